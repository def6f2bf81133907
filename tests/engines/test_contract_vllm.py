"""vLLM's own traps, met by the adapter: healthy while asleep, what outlives its parent, the hang at SIGTERM."""

import asyncio
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import httpx2
import psutil
import pytest

from fakes.cold import cold, gone, occupied
from fakes.kinds import HURRY, Kind, job_of, kinds, trapped
from llm_router.core.words import DeviceId, FailureKind
from llm_router.engines.engine import Job
from llm_router.engines.vllm import VLLM

ENGINE = VLLM()
KIND = Kind("vllm")
pytestmark = pytest.mark.slow


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return job_of(KIND, tmp_path)


async def test_the_port_is_refused_until_it_can_answer(job: Job, tmp_path: Path) -> None:
    async with cold(ENGINE, trapped(job, "hang-load"), tmp_path) as engine:
        while not any("Starting to load model" in line for line in engine.run.lines):
            await asyncio.sleep(0.005)
        with pytest.raises(httpx2.ConnectError):
            await engine.run.client.get(engine.url("/health"))


async def test_a_busy_port_fails_at_once(job: Job, tmp_path: Path) -> None:
    with occupied(job.port):
        async with cold(ENGINE, job, tmp_path) as engine:
            failure = await engine.failure()
            assert await engine.run.process.wait() == 1
    assert failure.kind is FailureKind.port_in_use


@pytest.mark.parametrize(
    ("trap", "kind", "words", "device"),
    [
        ("no-share", FailureKind.out_of_memory, "only 3.20 of 79.11 GiB are free on GPU 2", "GPU-c"),
        ("no-kv", FailureKind.out_of_memory, "no memory for the cache", None),
        ("long-context", FailureKind.out_of_memory, "lower its context to 66512", None),
        ("profiling", FailureKind.crashed, "another process freed GPU memory", None),
        ("torch-oom", FailureKind.out_of_memory, "out of memory on GPU 0, which has 23.64 GiB", "GPU-a"),
        ("bad-quant", FailureKind.unsupported, "quantisation exl3", None),
    ],
)
async def test_each_failed_load_names_its_cause(
    job: Job, tmp_path: Path, trap: str, kind: FailureKind, words: str, device: str | None
) -> None:
    two = replace(trapped(job, trap), devices=(0, 2), device_ids=(DeviceId("GPU-a"), DeviceId("GPU-c")))
    async with cold(ENGINE, two, tmp_path) as engine:
        failure = await engine.failure()
        assert await engine.run.process.wait() == 1
    assert failure.kind is kind
    assert words in failure.cause
    assert failure.device == device


@pytest.mark.parametrize("kind", kinds("vllm"))
@pytest.mark.timeout(300)
async def test_its_core_outlives_a_killed_parent_and_the_group_catches_it(kind: Kind, tmp_path: Path) -> None:
    async with cold(ENGINE, job_of(kind, tmp_path), tmp_path) as engine:
        await engine.proof(kind.total_s)
        leader = engine.run.process.pid
        family = [child for child in engine.children() if child.name().startswith("VLLM::")]
        assert sorted(child.name()[:15] for child in family) == ["VLLM::EngineCor", "VLLM::Worker"]
        os.kill(leader, signal.SIGKILL)
        await engine.run.process.wait()
        assert not await gone(family, within_s=0.3)
        assert {os.getpgid(child.pid) for child in family} == {leader}
        os.killpg(leader, signal.SIGKILL)
        assert await gone(family)


async def test_a_dead_core_is_an_error_event_a_503_and_then_a_clean_exit_code(job: Job, tmp_path: Path) -> None:
    async with cold(ENGINE, trapped(job, "crash-midstream"), tmp_path) as engine:
        await engine.proof()
        async with engine.streaming() as response:
            lines = [line async for line in response.aiter_lines() if line]
        assert lines[-1] == "data: [DONE]"
        assert "EngineCore encountered an issue" in json.loads(lines[-2][6:])["error"]["message"]
        # A clean exit code is no proof of a clean end.
        assert await engine.run.process.wait() == 0


def sleepy(job: Job) -> Job:
    return replace(job, options={"enable-sleep-mode": True})


async def test_asleep_it_calls_itself_healthy_and_keeps_requests(job: Job, tmp_path: Path) -> None:
    sleeper = sleepy(job)
    parking = ENGINE.parking(sleeper)
    assert parking is not None
    async with cold(ENGINE, sleeper, tmp_path) as engine:
        await engine.proof()
        for step in parking.sleep:
            assert step.judge(await engine.ask(step.question)).verdict.value == "yes"
        watch = ENGINE.watch(sleeper)
        assert watch is not None
        assert watch.judge(await engine.ask(watch.question)).verdict.value == "yes"
        with pytest.raises(httpx2.TimeoutException):
            await engine.run.client.post(
                engine.url("/v1/chat/completions"), json=engine.body(), headers=engine.headers, timeout=0.2
            )
        # So the walk to a proof asks whether it sleeps, before it asks for a token.
        failure = await engine.failure(total_s=0.5)
        assert failure.kind is FailureKind.timeout
        for step in parking.wake:
            assert step.judge(await engine.ask(step.question)).verdict.value == "yes"
        assert (await engine.chat()).status_code == 200


async def test_without_the_mode_there_is_nothing_to_sleep_with(job: Job, tmp_path: Path) -> None:
    async with cold(ENGINE, job, tmp_path) as engine:
        await engine.proof()
        assert (await engine.run.client.post(engine.url("/sleep?level=1"))).status_code == 404


async def test_sigterm_cuts_a_stream_with_a_reason_unless_it_may_drain(job: Job, tmp_path: Path) -> None:
    assert await last_reason(job, tmp_path) == "abort"
    drains = replace(job, port=job_of(KIND, tmp_path).port, options={"shutdown-timeout": 600})
    assert await last_reason(drains, tmp_path) == "stop"


async def last_reason(job: Job, folder: Path) -> str:
    """The finish reason of a stream during which SIGTERM came."""
    slow = replace(job, env={**job.env, "FAKE_TOKENS_PER_S": "0.2"})
    async with cold(ENGINE, slow, folder) as engine:
        await engine.proof()
        async with engine.streaming() as response:
            lines = response.aiter_lines()
            first = [await anext(lines)]
            engine.run.process.terminate()
            lines_after = first + [line async for line in lines]
        assert await engine.run.process.wait() == 0
    events = [json.loads(line[6:]) for line in lines_after if line.startswith("data: {")]
    return str(next(event["choices"][0]["finish_reason"] for event in reversed(events) if event["choices"]))


async def test_the_hang_at_sigterm_ends_with_the_grace(job: Job, tmp_path: Path) -> None:
    async with cold(ENGINE, trapped(job, "hang-on-term", "stall-midstream"), tmp_path) as engine:
        await engine.proof()
        family = [psutil.Process(engine.run.process.pid), *engine.children()]
        async with engine.streaming() as response:
            lines = response.aiter_lines()
            await anext(lines)
            assert await engine.end(HURRY) == -9
        assert await gone(family)


@pytest.mark.parametrize("kind", kinds("vllm"))
@pytest.mark.timeout(300)
async def test_its_key_guards_only_what_begins_with_v1(kind: Kind, tmp_path: Path) -> None:
    async with cold(ENGINE, job_of(kind, tmp_path), tmp_path) as engine:
        await engine.proof(kind.total_s)
        bare = [
            (await engine.run.client.get(engine.url(path))).status_code
            for path in ("/v1/models", "/health", "/version")
        ]
        wrong = await engine.chat(model="nobody")
    assert bare == [401, 200, 200]
    # The one engine whose answer proves the name.
    assert wrong.status_code == 404
    assert "`nobody` does not exist" in wrong.json()["error"]["message"]


async def test_a_model_without_a_chat_template_is_proved_by_a_text(job: Job, tmp_path: Path) -> None:
    async with cold(ENGINE, trapped(job, "base"), tmp_path) as engine:
        await engine.proof()


async def test_an_embedding_model_is_proved_by_a_vector(job: Job, tmp_path: Path) -> None:
    async with cold(ENGINE, replace(job, options={"runner": "pooling"}), tmp_path) as engine:
        await engine.proof()
