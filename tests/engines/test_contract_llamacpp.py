"""One suite for the stand-in and for the real llama.cpp server: what the adapter says of it is so.

The same cases run against both, so that the stand-in cannot tell what the engine does not do.
"""

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from fakes.running import FAKE_LLAMA, REAL_LLAMA, Running, free_port, running
from llm_router.core.words import Failure, FailureKind
from llm_router.demo.tinymodel import write_model
from llm_router.engines.engine import Job, Question
from llm_router.engines.llamacpp import LlamaCpp
from llm_router.host.crew.probe import Limits, Proof, prove

ENGINE = LlamaCpp()
SAYS = "I am alpha, and I am real."
KEY = "a-key-of-ours"
pytestmark = pytest.mark.slow


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.real)])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def real(kind: str) -> bool:
    return kind == "real"


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shelf")
    write_model(folder / "alpha.gguf", "alpha", SAYS)
    return folder


@pytest.fixture
def job(real: bool, shelf: Path) -> Job:
    return Job(
        model="alpha",
        command=REAL_LLAMA if real else FAKE_LLAMA,
        port=free_port(),
        path=str(shelf / "alpha.gguf"),
        context=2048,
        parallel=2,
        options={"threads": 1},
        key=KEY,
    )


async def walk(job: Job, engine: Running, total_s: float = 30.0) -> Proof | Failure:
    return await prove(ENGINE, job, engine.eyes(), limits=Limits(total_s=total_s))


async def failure_of(job: Job, folder: Path, **env: str) -> Failure:
    async with running(ENGINE.launch(job), folder, **env) as engine:
        result = await walk(job, engine)
    assert isinstance(result, Failure)
    assert result.cause.startswith("cannot ")
    return result


async def chat(job: Job, engine: Running, **fields: object) -> httpx2.Response:
    body = {"messages": [{"role": "user", "content": "who are you?"}], **fields}
    return await engine.client.post(
        f"http://{job.host}:{job.port}/v1/chat/completions", json=body, headers=dict(ENGINE.dialect(job).headers)
    )


async def test_a_cold_start_ends_in_a_proof(job: Job, tmp_path: Path, real: bool) -> None:
    phases: list[str] = []
    async with running(ENGINE.launch(job), tmp_path) as engine:
        result = await prove(ENGINE, job, engine.eyes(), news=lambda phase, _percent, _left: phases.append(phase))
        assert isinstance(result, Proof), result
        assert phases[0] == "starting"
        assert "warming up" in result.phases
        told = (await chat(job, engine)).json()
    assert told["choices"][0]["message"]["content"] == (SAYS if real else "I am alpha, a fake model.")
    assert told["choices"][0]["finish_reason"] == "stop"
    assert told["model"] == "alpha"
    assert told["timings"]["predicted_n"] == told["usage"]["completion_tokens"]


async def test_the_key_is_ours_and_no_process_list_shows_it(job: Job, tmp_path: Path) -> None:
    launch = ENGINE.launch(job)
    assert not any(KEY in word for word in launch.argv)
    async with running(launch, tmp_path) as engine:
        assert isinstance(await walk(job, engine), Proof)
        bare = await engine.client.get(f"http://127.0.0.1:{job.port}/v1/models")
        assert bare.status_code == 401
        assert bare.headers["server"] == "llama.cpp"
        refused = await walk(replace(job, key="another"), engine)
    assert isinstance(refused, Failure)
    assert refused.kind is FailureKind.key


async def test_another_model_on_the_port_is_found_out(job: Job, tmp_path: Path) -> None:
    async with running(ENGINE.launch(job), tmp_path) as engine:
        result = await walk(replace(job, model="beta", path="/models/beta.gguf"), engine)
    assert isinstance(result, Failure)
    assert result.kind is FailureKind.wrong_identity
    assert "'alpha" in result.cause or "alpha.gguf" in result.cause


async def test_a_context_that_was_cut_is_found_out(job: Job, tmp_path: Path) -> None:
    failure = await failure_of(replace(job, context=8192), tmp_path)
    assert failure.kind is FailureKind.wrong_identity
    assert "a context of 4096 tokens instead of 8192" in failure.cause


@pytest.mark.parametrize(
    ("content", "expected", "words"),
    [
        (None, FailureKind.missing_file, "does not exist"),
        (b"not a model at all", FailureKind.bad_file, "is not a GGUF file"),
        ("half", FailureKind.bad_file, "is damaged or cut off"),
    ],
    ids=["missing", "garbage", "truncated"],
)
async def test_a_file_that_cannot_be_loaded_is_named(
    job: Job, tmp_path: Path, shelf: Path, content: bytes | str | None, expected: FailureKind, words: str
) -> None:
    whole = (shelf / "alpha.gguf").read_bytes()
    path = tmp_path / "broken.gguf"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else whole[: len(whole) // 2])
    failure = await failure_of(replace(job, path=str(path)), tmp_path)
    assert failure.kind is expected
    assert words in failure.cause
    assert str(path) in failure.cause
    assert any("exiting due to model loading error" in line for line in failure.tail)


async def test_a_busy_port_is_named(job: Job, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", job.port)):
        failure = await failure_of(job, tmp_path)
    assert failure.kind is FailureKind.port_in_use
    assert str(job.port) in failure.cause


async def test_an_unknown_argument_is_named(job: Job, tmp_path: Path) -> None:
    failure = await failure_of(replace(job, options={"threads": 1, "wonka": True}), tmp_path)
    assert failure.kind is FailureKind.bad_argument
    assert "--wonka" in failure.cause


@pytest.mark.parametrize("options", [{"embeddings": True, "pooling": "mean"}, {"rerank": True}], ids=["embed", "rank"])
async def test_models_without_chat_are_proved_by_what_they_do(
    job: Job, tmp_path: Path, options: dict[str, object]
) -> None:
    other = replace(job, options={"threads": 1, **options})
    async with running(ENGINE.launch(other), tmp_path) as engine:
        assert isinstance(await walk(other, engine), Proof)


async def test_what_it_does_not_serve_is_a_final_no(job: Job, tmp_path: Path) -> None:
    async with running(ENGINE.launch(job), tmp_path) as engine:
        result = await walk(replace(job, options={"embeddings": True}), engine)
    assert isinstance(result, Failure)
    assert "501" in result.cause
    assert "does not support embeddings" in result.cause


async def test_sigterm_ends_an_idle_one_at_once_with_code_0(job: Job, tmp_path: Path) -> None:
    async with running(ENGINE.launch(job), tmp_path) as engine:
        assert isinstance(await walk(job, engine), Proof)
        engine.process.terminate()
        async with asyncio.timeout(ENGINE.farewell(job).grace_s):
            assert await engine.process.wait() == 0


async def wait_for(job: Job, engine: Running, status: int) -> None:
    while (await engine.ask(job.host, job.port, Question("GET", "/health"))).status != status:
        assert engine.process.returncode is None, engine.lines
        await asyncio.sleep(0.005)


async def test_sigterm_while_loading_kills_it_by_the_signal(job: Job, tmp_path: Path, real: bool) -> None:
    slow = replace(job, options={"threads": 1, "load-mode": "none", "check-tensors": True})
    if real:
        write_model(tmp_path / "large.gguf", "alpha", SAYS, pad_mb=200)
        slow = replace(slow, path=str(tmp_path / "large.gguf"))
    async with running(ENGINE.launch(slow), tmp_path, FAKE_LOAD_S="20") as engine:
        await wait_for(slow, engine, 503)
        every = await engine.ask(slow.host, slow.port, Question("GET", "/v1/models"))
        engine.process.terminate()
        result = await walk(slow, engine)
        assert engine.process.returncode == -signal.SIGTERM
    assert json.loads(every.body)["error"]["message"] == "Loading model"
    assert isinstance(result, Failure)
    assert "SIGTERM" in result.cause


async def test_a_kill_while_loading_is_explained(job: Job, tmp_path: Path) -> None:
    async with running(ENGINE.launch(job), tmp_path, FAKE_LOAD_S="20") as engine:
        os.kill(engine.process.pid, signal.SIGKILL)
        result = await walk(job, engine)
    assert isinstance(result, Failure)
    assert result.kind is FailureKind.crashed
    assert "killed by SIGKILL, perhaps by the kernel for lack of main memory" in result.cause


@pytest.fixture
async def busy(job: Job, tmp_path: Path) -> AsyncIterator[Running]:
    async with running(ENGINE.launch(job), tmp_path, FAKE_TOKEN_S="0.02") as engine:
        assert isinstance(await walk(job, engine), Proof)
        yield engine


async def test_sigterm_with_a_stream_in_flight_ends_it_without_done_within_the_grace(job: Job, busy: Running) -> None:
    """The engine may also race to its end at once; what it must not do is to pretend that the answer is whole."""
    body = {
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "ignore_eos": True,
        "max_tokens": 1_000_000,
    }
    url = f"http://127.0.0.1:{job.port}/v1/chat/completions"
    seen = b""
    try:
        async with busy.client.stream("POST", url, json=body, headers=dict(ENGINE.dialect(job).headers)) as answer:
            async for raw in answer.aiter_bytes():
                if not seen:
                    busy.process.terminate()
                seen = (seen + raw)[-4096:]
    except httpx2.HTTPError:
        pass  # broken off: as good as ended
    assert b"[DONE]" not in seen
    assert b'"finish_reason":"stop"' not in seen
    async with asyncio.timeout(ENGINE.farewell(job).grace_s):
        assert await busy.process.wait() == 0


async def test_a_client_that_leaves_a_stream_frees_the_slot(job: Job, busy: Running) -> None:
    body = {
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "ignore_eos": True,
        "max_tokens": 1_000_000,
    }
    url = f"http://127.0.0.1:{job.port}/v1/chat/completions"
    for _ in range(4):  # twice as many as there are slots
        async with busy.client.stream("POST", url, json=body, headers=dict(ENGINE.dialect(job).headers)) as answer:
            assert answer.status_code == 200
            await anext(answer.aiter_bytes())
    async with asyncio.timeout(5):
        assert (await chat(job, busy)).status_code == 200


async def test_the_log_tells_the_phases_in_order(job: Job, tmp_path: Path) -> None:
    async with running(ENGINE.launch(job), tmp_path) as engine:
        assert isinstance(await walk(job, engine), Proof)
        facts = [fact for line in engine.lines if (fact := ENGINE.read(line))]
    phases = list(dict.fromkeys(fact.phase for fact in facts if fact.phase))
    assert phases == ["loading weights", "allocating cache", "warming up"]
    assert [fact.near for fact in facts if fact.phase == "loading weights"].count(True) == 0
    assert {fact.port for fact in facts if fact.port} == {job.port}
