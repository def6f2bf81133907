"""Background tasks that are never lost."""

import asyncio
import gc
import logging

import pytest

from llm_router.host.machine.tasks import Tasks


async def fail() -> None:
    raise ValueError("the disk is full")


async def answer() -> int:
    return 42


async def test_a_task_has_its_familys_name_and_gives_its_result() -> None:
    tasks = Tasks("the probe")
    task = tasks.spawn("qwen#8", answer())
    assert task.get_name() == "the probe: qwen#8"
    assert repr(tasks) == "<tasks of the probe: the probe: qwen#8>"
    assert await task == 42
    assert len(tasks) == 0
    assert repr(tasks) == "<tasks of the probe: none>"


async def test_a_failure_is_logged_once_with_its_name_and_ends_only_that_one(caplog: pytest.LogCaptureFixture) -> None:
    tasks = Tasks("the probe")
    survivor = asyncio.Event()
    tasks.spawn("broken", fail())
    tasks.spawn("whole", survivor.wait())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage() == "cannot go on with the probe: broken: ValueError('the disk is full')"
    assert record.exc_info is not None
    assert len(tasks) == 1
    await tasks.aclose()


async def test_a_running_task_is_kept_from_the_collector() -> None:
    tasks = Tasks("the probe")
    go = asyncio.Event()
    done = []

    async def work() -> None:
        await go.wait()
        done.append(True)

    tasks.spawn("kept", work())
    await asyncio.sleep(0)
    gc.collect()
    go.set()
    await tasks.join()
    assert done == [True]


async def test_closing_cancels_and_waits_for_those_who_take_their_time() -> None:
    tasks = Tasks("the probe")
    story = []

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(5):
                await asyncio.sleep(0)
            story.append("tidied")

    tasks.spawn("stubborn", stubborn())
    await asyncio.sleep(0)
    await tasks.aclose()
    assert story == ["tidied"]
    await tasks.aclose()


async def test_a_task_may_close_its_own_family() -> None:
    tasks = Tasks("the probe")
    await asyncio.wait_for(tasks.spawn("last", tasks.aclose()), 5)
    assert len(tasks) == 0


async def test_joining_waits_for_those_too_who_begin_meanwhile() -> None:
    tasks = Tasks("the probe")
    story = []

    async def second() -> None:
        await asyncio.sleep(0)
        story.append("second")

    async def first() -> None:
        tasks.spawn("second", second())

    tasks.spawn("first", first())
    await tasks.join()
    assert story == ["second"]


async def test_after_closing_nothing_begins() -> None:
    tasks = Tasks("the probe")
    await tasks.aclose()
    with pytest.raises(RuntimeError, match="cannot begin 'late': the tasks of the probe are closed"):
        tasks.spawn("late", answer())
