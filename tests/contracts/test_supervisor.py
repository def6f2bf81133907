"""What every supervisor promises, the fake one included."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contracts.kits import KITS, Kit
from llm_router.core.words import InstanceId
from llm_router.host.machine.logs import LogTail
from llm_router.host.supervisors.supervisor import Exit, Handle, SupervisorError

QWEN = InstanceId("qwen#8")
NOTE = {"model": "qwen", "port": "8085"}


@pytest.fixture(params=KITS)
async def kit(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Kit]:
    made: Kit = request.param(tmp_path)
    yield made
    await made.close()


async def ready(handle: Handle) -> None:
    """Until the program has said that its signal handlers stand."""
    tail = LogTail(handle.log)
    async with asyncio.timeout(30):
        while "ready" not in tail.read_new():
            await asyncio.sleep(0.005)


async def test_a_started_instance_lives_under_its_handle(kit: Kit) -> None:
    supervisor = kit.supervisor()
    handle = await supervisor.start(QWEN, kit.obedient(), NOTE)
    assert handle.instance == QWEN
    assert handle.note == NOTE
    assert handle.pid in supervisor.pids(handle)
    assert await supervisor.find() == [handle]
    await supervisor.stop(handle, 5)


async def test_what_it_says_is_in_its_log(kit: Kit) -> None:
    supervisor = kit.supervisor()
    handle = await supervisor.start(QWEN, kit.obedient(), NOTE)
    await ready(handle)
    await supervisor.stop(handle, 5)
    assert handle.log.read_text() == "ready\n"


async def test_a_polite_stop_is_not_a_kill(kit: Kit) -> None:
    supervisor = kit.supervisor()
    handle = await supervisor.start(QWEN, kit.obedient(), NOTE)
    await ready(handle)
    assert await supervisor.stop(handle, 5) == Exit(-signal.SIGTERM, asked=True, killed=False)
    assert supervisor.pids(handle) == frozenset()
    assert await supervisor.find() == []


async def test_a_deaf_one_is_killed_after_its_grace(kit: Kit) -> None:
    supervisor = kit.supervisor()
    handle = await supervisor.start(QWEN, kit.deaf(), NOTE)
    await ready(handle)
    assert await supervisor.stop(handle, 0.02) == Exit(-signal.SIGKILL, asked=True, killed=True)
    assert supervisor.pids(handle) == frozenset()


async def test_without_grace_it_is_killed_at_once(kit: Kit) -> None:
    supervisor = kit.supervisor()
    handle = await supervisor.start(QWEN, kit.obedient(), NOTE)
    assert await supervisor.stop(handle, 0) == Exit(-signal.SIGKILL, asked=True, killed=True)


async def test_a_second_stop_shortens_the_grace(kit: Kit) -> None:
    supervisor = kit.supervisor()
    handle = await supervisor.start(QWEN, kit.deaf(), NOTE)
    await ready(handle)
    async with asyncio.timeout(30), asyncio.TaskGroup() as both:
        first = both.create_task(supervisor.stop(handle, 100))
        await asyncio.sleep(0)
        second = both.create_task(supervisor.stop(handle, 0.02))
    assert first.result() == second.result() == Exit(-signal.SIGKILL, asked=True, killed=True)


async def test_a_second_stop_does_not_lengthen_the_grace(kit: Kit) -> None:
    supervisor = kit.supervisor()
    handle = await supervisor.start(QWEN, kit.deaf(), NOTE)
    await ready(handle)
    async with asyncio.timeout(30), asyncio.TaskGroup() as both:
        both.create_task(supervisor.stop(handle, 0.05))
        await asyncio.sleep(0)
        both.create_task(supervisor.stop(handle, 100))


async def test_its_own_end_is_reported_as_often_as_asked(kit: Kit) -> None:
    supervisor = kit.supervisor()
    handle = await supervisor.start(QWEN, kit.brief(), NOTE)
    ended = await supervisor.watch(handle)
    assert ended == Exit(3, asked=False, killed=False)
    assert await supervisor.watch(handle) == ended
    assert await supervisor.stop(handle, 5) == ended
    assert await supervisor.find() == []


async def test_a_kill_from_outside_is_reported(kit: Kit) -> None:
    supervisor = kit.supervisor()
    handle = await supervisor.start(QWEN, kit.obedient(), NOTE)
    watching = asyncio.gather(supervisor.watch(handle), supervisor.watch(handle))
    await asyncio.sleep(0)
    kit.kill_main(handle)
    assert set(await watching) == {Exit(-signal.SIGKILL, asked=False, killed=False)}


async def test_who_stops_watching_ends_nothing(kit: Kit) -> None:
    supervisor = kit.supervisor()
    handle = await supervisor.start(QWEN, kit.obedient(), NOTE)
    await ready(handle)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await supervisor.watch(handle)
    assert handle.pid in supervisor.pids(handle)
    assert await supervisor.stop(handle, 5) == Exit(-signal.SIGTERM, asked=True, killed=False)


async def test_the_next_router_finds_it_and_stops_it(kit: Kit) -> None:
    handle = await kit.supervisor().start(QWEN, kit.obedient(), NOTE)
    await ready(handle)
    successor = kit.supervisor()
    assert await successor.find() == [handle]
    assert handle.pid in successor.pids(handle)
    assert await successor.stop(handle, 5) == Exit(-signal.SIGTERM, asked=True, killed=False)


async def test_the_next_router_learns_of_its_end(kit: Kit) -> None:
    handle = await kit.supervisor().start(QWEN, kit.obedient(), NOTE)
    successor = kit.supervisor()
    watching = asyncio.gather(successor.watch(handle), successor.watch(handle))
    await asyncio.sleep(0)
    kit.kill_main(handle)
    assert set(await watching) == {Exit(-signal.SIGKILL, asked=False, killed=False)}


async def test_an_end_while_no_router_was_there_is_known_to_the_next(kit: Kit) -> None:
    supervisor = kit.supervisor()
    handle = await supervisor.start(QWEN, kit.brief(), NOTE)
    await supervisor.watch(handle)
    successor = kit.supervisor()
    assert await successor.find() == []
    assert await successor.watch(handle) == Exit(3, asked=False, killed=False)


async def test_a_missing_program_is_an_error_that_helps(kit: Kit) -> None:
    supervisor = kit.supervisor()
    with pytest.raises(SupervisorError, match=r"^cannot start qwen#8: there is no program \S*missing"):
        await supervisor.start(QWEN, kit.missing(), NOTE)
    assert await supervisor.find() == []


async def test_two_states_do_not_see_each_other(kit: Kit) -> None:
    ours, theirs = kit.supervisor("ours"), kit.supervisor("theirs")
    mine = await ours.start(QWEN, kit.obedient(), NOTE)
    other = await theirs.start(QWEN, kit.obedient(), NOTE)
    assert await ours.find() == [mine]
    assert await theirs.find() == [other]
    await ours.stop(mine, 0)
    assert other.pid in theirs.pids(other)
    await theirs.stop(other, 0)


@pytest.mark.slow
async def test_many_start_and_stop_at_once(kit: Kit) -> None:
    supervisor = kit.supervisor()
    ids = [InstanceId(f"qwen#{number}") for number in range(12)]
    handles = await asyncio.gather(*(supervisor.start(one, kit.obedient(), NOTE) for one in ids))
    assert [handle.instance for handle in handles] == ids
    assert len({handle.token for handle in handles}) == len(ids)
    assert {handle.token for handle in await supervisor.find()} == {handle.token for handle in handles}
    exits = await asyncio.gather(*(supervisor.stop(handle, 0) for handle in handles))
    assert all(ended == Exit(-signal.SIGKILL, asked=True, killed=True) for ended in exits)
