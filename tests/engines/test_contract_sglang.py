"""SGLang's own traps, met by the adapter: false readiness, the port found busy too late, the endless drain, sleep."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from fakes.cold import Cold, cold, gone, occupied
from fakes.kinds import HURRY, Kind, job_of, kinds, trapped
from llm_router.core.words import DeviceId, FailureKind
from llm_router.engines.engine import Job
from llm_router.engines.sglang import SGLang

ENGINE = SGLang()
KIND = Kind("sglang")
pytestmark = pytest.mark.slow


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return job_of(KIND, tmp_path)


async def status(engine: Cold, path: str) -> int:
    """0 when refused."""
    try:
        response = await engine.run.client.get(engine.url(path), headers=engine.headers, timeout=5)
    except httpx2.HTTPError:
        return 0
    return response.status_code


async def until(engine: Cold, path: str, *wanted: int) -> int:
    while (got := await status(engine, path)) not in wanted:
        await asyncio.sleep(0.005)
    return got


async def test_the_model_list_is_a_false_ready_while_it_warms_up(job: Job, tmp_path: Path) -> None:
    slow = replace(job, env={**job.env, "FAKE_SPEED": "30"})
    async with cold(ENGINE, slow, tmp_path) as engine:
        assert await status(engine, "/v1/models") == 0
        assert await until(engine, "/v1/models", 200) == 200
        assert await status(engine, "/ready") == 503
        assert await status(engine, "/health") == 503
        await engine.proof()
        assert "The server is fired up and ready to roll!" in "\n".join(engine.run.lines)
        assert await status(engine, "/ready") == 200
        # Each call of it generates a token and takes a second.
        began = time.monotonic()
        assert await status(engine, "/health") == 200
        assert time.monotonic() - began >= 1 / 30


async def test_an_old_version_without_ready_is_proved_all_the_same(job: Job, tmp_path: Path) -> None:
    async with cold(ENGINE, trapped(job, "old"), tmp_path) as engine:
        await engine.proof()
        assert await status(engine, "/ready") == 404
        assert await status(engine, "/get_model_info") == 200


async def test_a_model_without_a_chat_template_is_proved_by_a_text(job: Job, tmp_path: Path) -> None:
    async with cold(ENGINE, trapped(job, "base"), tmp_path) as engine:
        await engine.proof()
        assert (await engine.chat()).status_code == 400


async def test_an_embedding_model_is_proved_by_a_vector(job: Job, tmp_path: Path) -> None:
    async with cold(ENGINE, replace(job, options={"is-embedding": True}), tmp_path) as engine:
        await engine.proof()


@pytest.mark.parametrize("kind", kinds("sglang"))
@pytest.mark.timeout(300)
async def test_a_port_that_was_taken_meanwhile_is_known_from_the_log(kind: Kind, tmp_path: Path) -> None:
    job = job_of(kind, tmp_path)
    with occupied(job.port):
        async with cold(ENGINE, job, tmp_path) as engine:
            failure = await engine.failure(kind.total_s)
            assert failure.kind is FailureKind.port_in_use
            # It lives on, without a port.
            assert engine.run.process.returncode is None


@pytest.mark.parametrize(
    ("trap", "kind", "device"),
    [
        ("oom", FailureKind.out_of_memory, None),
        ("capture-oom", FailureKind.out_of_memory, "GPU-c"),
        ("torch-oom", FailureKind.out_of_memory, "GPU-a"),
        ("bad-quant", FailureKind.unsupported, None),
        ("unbalanced", FailureKind.no_room, None),
    ],
)
async def test_each_failed_load_names_its_cause(
    job: Job, tmp_path: Path, trap: str, kind: FailureKind, device: str | None
) -> None:
    two = replace(trapped(job, trap), devices=(0, 2), device_ids=(DeviceId("GPU-a"), DeviceId("GPU-c")))
    async with cold(ENGINE, two, tmp_path) as engine:
        failure = await engine.failure()
        # It kills itself.
        assert await engine.run.process.wait() == -9
    assert failure.kind is kind
    assert failure.device == device


async def test_two_ranks_count_once(job: Job, tmp_path: Path) -> None:
    async with cold(ENGINE, replace(job, devices=(0, 1)), tmp_path) as engine:
        await engine.proof()
        titles = sorted(child.name() for child in engine.children())
        facts = [fact for line in engine.run.lines if (fact := ENGINE.read(line)) and fact.percent]
    assert titles == ["sglang::detoken", "sglang::schedul", "sglang::schedul"]
    percents = [fact.percent for fact in facts]
    assert percents == sorted(percents)  # type: ignore[type-var]


async def test_sigterm_during_the_load_kills(job: Job, tmp_path: Path) -> None:
    async with cold(ENGINE, trapped(job, "hang-load"), tmp_path) as engine:
        while not any("Load weight begin" in line for line in engine.run.lines):
            await asyncio.sleep(0.005)
        family = engine.children()
        assert await engine.end(HURRY) == -15
        assert await gone(family)


async def test_sigterm_alone_waits_for_a_stream_without_limit_and_the_farewell_does_not(
    job: Job, tmp_path: Path
) -> None:
    async with cold(ENGINE, trapped(job, "stall-midstream"), tmp_path) as engine:
        await engine.proof()
        async with engine.streaming() as response:
            lines = response.aiter_lines()
            await anext(lines)
            engine.run.process.terminate()
            while not any("Remaining number of requests 1" in line for line in engine.run.lines):
                await asyncio.sleep(0.005)
            assert await status(engine, "/ready") == 503
            (abort,) = ENGINE.farewell(job).first
            assert (await engine.ask(abort)).status == 200
            with pytest.raises(httpx2.HTTPError):
                await drain(lines)
        assert await engine.run.process.wait() == 0


async def drain(lines: AsyncIterator[str]) -> None:
    async for _ in lines:
        continue


async def test_children_die_with_a_killed_parent(job: Job, tmp_path: Path) -> None:
    async with cold(ENGINE, job, tmp_path) as engine:
        await engine.proof()
        family = engine.children()
        assert len(family) == 2
        os.kill(engine.run.process.pid, signal.SIGKILL)
        assert await gone(family)


async def test_it_is_parked_and_woken_by_its_steps(job: Job, tmp_path: Path) -> None:
    sleepy = replace(job, options={"enable-memory-saver": True, "enable-weights-cpu-backup": True})
    parking = ENGINE.parking(sleepy)
    assert parking is not None
    async with cold(ENGINE, sleepy, tmp_path) as engine:
        await engine.proof()
        for step in parking.sleep:
            assert step.judge(await engine.ask(step.question)).verdict.value == "yes"
        # The probe of the watch does not touch the released memory.
        watch = ENGINE.watch(sleepy)
        assert watch is not None
        assert watch.judge(await engine.ask(watch.question)).verdict.value == "yes"
        for step in parking.wake:
            assert step.judge(await engine.ask(step.question)).verdict.value == "yes"
        assert (await engine.chat()).status_code == 200


async def test_parking_in_traffic_would_kill_it(job: Job, tmp_path: Path) -> None:
    """Why it must be drained before."""
    sleepy = trapped(
        replace(job, options={"enable-memory-saver": True, "enable-weights-cpu-backup": True}), "stall-midstream"
    )
    parking = ENGINE.parking(sleepy)
    assert parking is not None
    async with cold(ENGINE, sleepy, tmp_path) as engine:
        await engine.proof()
        async with engine.streaming() as response:
            lines = response.aiter_lines()
            await anext(lines)
            idle, release = parking.sleep
            assert idle.judge(await engine.ask(idle.question)).verdict.value == "wait"
            await engine.ask(release.question)
            assert await engine.run.process.wait() == -9


@pytest.mark.parametrize("kind", kinds("sglang"))
@pytest.mark.timeout(300)
async def test_any_name_is_answered_and_echoed_so_the_name_proves_nothing(kind: Kind, tmp_path: Path) -> None:
    async with cold(ENGINE, job_of(kind, tmp_path), tmp_path) as engine:
        await engine.proof(kind.total_s)
        told = (await engine.chat(model="nobody")).json()
    assert told["model"] == "nobody"
    assert told["choices"][0]["message"]["content"] == "I am alpha, a demo model."
