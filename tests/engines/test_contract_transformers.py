"""The own traps of ``transformers serve``, met by the adapter: strict bodies, streams without an end, the busy port."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from fakes.cold import cold, occupied
from fakes.kinds import Kind, job_of, kinds, trapped
from llm_router.core.words import FailureKind
from llm_router.engines.engine import Job
from llm_router.engines.transformers import Transformers

ENGINE = Transformers()
KIND = Kind("transformers")
pytestmark = pytest.mark.slow


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return job_of(KIND, tmp_path)


@pytest.mark.parametrize("kind", kinds("transformers"))
@pytest.mark.timeout(300)
async def test_the_model_list_is_no_identity_but_the_answer_is(kind: Kind, tmp_path: Path) -> None:
    job = job_of(kind, tmp_path)
    env = {**job.env, "HF_HUB_CACHE": str(tmp_path / "nowhere")}
    async with cold(ENGINE, replace(job, env=env), tmp_path) as engine:
        await engine.proof(kind.total_s)
        # An unhandled error closes the connection without having said so: it must not be used again.
        reader, writer = await asyncio.open_connection("127.0.0.1", job.port)
        writer.write(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
        raw = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        told = (await engine.chat()).json()
        pinned = await engine.chat(model="alpha")
    assert raw.startswith(b"HTTP/1.1 500 ")
    assert b"connection: close" not in raw.lower()
    assert told["model"] == f"{job.path}@main"
    assert pinned.status_code == 400
    assert pinned.json()["detail"].startswith("Server is pinned to ")


@pytest.mark.parametrize("kind", kinds("transformers"))
@pytest.mark.timeout(300)
async def test_a_busy_port_is_found_after_the_load(kind: Kind, tmp_path: Path) -> None:
    job = job_of(kind, tmp_path)
    with occupied(job.port):
        async with cold(ENGINE, job, tmp_path) as engine:
            code = await engine.run.process.wait()
            failure = ENGINE.explain(job, None, engine.run.lines)
    assert code == 3
    assert failure.kind is FailureKind.port_in_use


@pytest.mark.parametrize(
    ("trap", "kind"),
    [
        ("oom", FailureKind.out_of_memory),
        ("missing", FailureKind.missing_file),
        ("corrupt", FailureKind.bad_file),
        ("no-extra", FailureKind.missing_program),
    ],
)
async def test_each_failed_load_names_its_cause(job: Job, tmp_path: Path, trap: str, kind: FailureKind) -> None:
    async with cold(ENGINE, trapped(job, trap), tmp_path) as engine:
        failure = await engine.failure()
        assert await engine.run.process.wait() == 1
    assert failure.kind is kind


async def test_the_port_is_refused_until_the_model_is_there(job: Job, tmp_path: Path) -> None:
    async with cold(ENGINE, trapped(job, "hang-load"), tmp_path) as engine:
        with pytest.raises(httpx2.ConnectError):
            await engine.run.client.get(engine.url("/health"))


@pytest.mark.parametrize("kind", kinds("transformers"))
@pytest.mark.timeout(300)
async def test_usage_rides_on_the_last_chunk_and_nothing_says_done(kind: Kind, tmp_path: Path) -> None:
    async with cold(ENGINE, job_of(kind, tmp_path), tmp_path) as engine:
        await engine.proof(kind.total_s)
        async with engine.streaming() as response:
            lines = [line async for line in response.aiter_lines() if line]
    last = json.loads(lines[-1][6:])
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["usage"] == {"completion_tokens": 7, "prompt_tokens": 6, "total_tokens": 13}
    assert last["choices"][0]["delta"] == {}


async def test_an_error_in_a_stream_is_a_bare_text(job: Job, tmp_path: Path) -> None:
    async with cold(ENGINE, trapped(job, "error-midstream"), tmp_path) as engine:
        await engine.proof()
        async with engine.streaming() as response:
            lines = [line async for line in response.aiter_lines() if line]
    assert json.loads(lines[-1][6:]) == {"error": "CUDA error: device-side assert triggered"}


async def test_sigterm_lets_a_stream_end_and_is_then_passed_on(job: Job, tmp_path: Path) -> None:
    slow = replace(job, env={**job.env, "FAKE_TOKENS_PER_S": "0.2"})
    async with cold(ENGINE, slow, tmp_path) as engine:
        await engine.proof()
        async with engine.streaming() as response:
            lines = response.aiter_lines()
            await anext(lines)
            engine.run.process.terminate()
            rest = [line async for line in lines if line]
        assert '"finish_reason":"stop"' in rest[-1]
        assert await engine.run.process.wait() == -15
