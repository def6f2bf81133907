"""What holds for every engine with an adapter of its own: from cold to proved to gone, and what goes wrong on the way.

The same cases run against the stand-ins and, where they are set up, against the originals.
"""

import json
import socket
from dataclasses import replace
from pathlib import Path

import httpx2
import psutil
import pytest

from fakes.cold import Cold, cold, gone
from fakes.kinds import KEY, Kind, job_of, kinds, trapped
from llm_router.core.words import FailureKind
from llm_router.engines.registry import find

ALL = kinds("sglang", "vllm", "transformers", "tabbyapi", "tabbyapi-exl2")
FAKES = [pytest.param(Kind(name), id=name) for name in ("sglang", "vllm", "transformers", "tabbyapi")]
SAYS = "I am alpha, a demo model."
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.timeout(600)
async def test_a_cold_start_ends_in_a_proof_and_a_clean_end(kind: Kind, tmp_path: Path) -> None:
    job = job_of(kind, tmp_path)
    async with cold(find(kind.engine), job, tmp_path) as engine:
        proof = await engine.proof(kind.total_s)
        assert "loading weights" in proof.phases
        percents = [percent for _, percent in engine.news if percent is not None]
        assert percents
        assert percents == sorted(percents)
        told = (await engine.chat(max_tokens=50, stream_options=None)).json()
        assert told["choices"][0]["message"]["content"] == SAYS
        assert told["choices"][0]["finish_reason"] == "stop"
        family = engine.children()
        code = await engine.end(kind.hurry)
    # By the signal that was sent: transformers passes it on to itself.
    assert code == (-15 if kind.engine == "transformers" else 0)
    assert await gone(family)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", job.port)) != 0


async def events(engine: Cold, **fields: object) -> tuple[list[dict[str, object]], bool]:
    """The events of a stream, and whether it said that it is done."""
    async with engine.streaming(**fields) as response:
        assert response.status_code == 200
        lines = [line async for line in response.aiter_lines()]
    texts = [line[6:] for line in lines if line.startswith("data: ")]
    return [json.loads(text) for text in texts if text != "[DONE]"], "[DONE]" in texts


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.timeout(600)
async def test_a_stream_is_as_the_dialect_says(kind: Kind, tmp_path: Path) -> None:
    job = job_of(kind, tmp_path)
    async with cold(find(kind.engine), job, tmp_path) as engine:
        await engine.proof(kind.total_s)
        dialect = engine.engine.dialect(job)
        asked = {"stream_options": {"include_usage": True}} if dialect.ask_usage else {}
        told, done = await events(engine, **asked)
        if dialect.drop or dialect.accepts:
            refused = await engine.chat(top_k=3)
            assert refused.status_code == 422
            assert "top_k" in refused.text
        else:
            assert (await engine.chat(top_k=3)).status_code == 200
    assert done is dialect.says_done
    choices = [choice for event in told for choice in event["choices"]]  # type: ignore[attr-defined]
    assert "".join(choice["delta"].get("content") or "" for choice in choices) == SAYS
    assert next(choice["finish_reason"] for choice in choices if choice.get("finish_reason")) == "stop"
    (usage,) = [event["usage"] for event in told if event.get("usage")]
    assert usage["completion_tokens"] == 7  # type: ignore[index]
    assert usage["prompt_tokens"] == 6  # type: ignore[index]


@pytest.mark.parametrize("kind", kinds("sglang", "vllm", "tabbyapi"))
@pytest.mark.timeout(600)
async def test_the_key_is_ours_and_no_process_list_shows_it(kind: Kind, tmp_path: Path) -> None:
    job = job_of(kind, tmp_path)
    launch = find(kind.engine).launch(job)
    async with cold(find(kind.engine), job, tmp_path) as engine:
        await engine.proof(kind.total_s)
        family = [psutil.Process(engine.run.process.pid), *engine.children()]
        assert not any(secret in " ".join(one.cmdline()) for one in family for secret in launch.secrets)
        bare = await engine.run.client.get(engine.url("/v1/models"))
        assert bare.status_code == 401
        refused = await engine.failure(job=replace(job, key="another"))
    assert KEY in launch.secrets
    assert refused.kind is FailureKind.key
    for file in launch.files:
        assert Path(file.path).stat().st_mode & 0o777 == (0o600 if file.secret else 0o644)


@pytest.mark.parametrize("kind", kinds("sglang", "vllm", "transformers"))
@pytest.mark.timeout(600)
async def test_another_model_on_the_port_is_found_out(kind: Kind, tmp_path: Path) -> None:
    job = job_of(kind, tmp_path)
    async with cold(find(kind.engine), job, tmp_path) as engine:
        await engine.proof(kind.total_s)
        failure = await engine.failure(job=replace(job, model="beta", path="/models/beta-4bpw"))
    assert failure.kind is FailureKind.wrong_identity


@pytest.mark.parametrize("kind", FAKES)
async def test_healthy_without_a_token_is_not_ready(kind: Kind, tmp_path: Path) -> None:
    async with cold(find(kind.engine), trapped(job_of(kind, tmp_path), "mute"), tmp_path) as engine:
        failure = await engine.failure(patience_s=0.25)
    assert failure.kind is FailureKind.timeout
    assert "first token" in failure.cause


@pytest.mark.parametrize("kind", FAKES)
async def test_a_load_that_hangs_is_given_up_with_its_phase(kind: Kind, tmp_path: Path) -> None:
    async with cold(find(kind.engine), trapped(job_of(kind, tmp_path), "hang-load"), tmp_path) as engine:
        failure = await engine.failure(total_s=0.8)
    assert failure.kind is FailureKind.timeout
    assert failure.tail


@pytest.mark.parametrize("kind", FAKES)
async def test_one_that_is_deaf_is_killed_with_its_family(kind: Kind, tmp_path: Path) -> None:
    async with cold(find(kind.engine), trapped(job_of(kind, tmp_path), "deaf"), tmp_path) as engine:
        await engine.proof()
        family = engine.children()
        assert await engine.end(speed=100.0) == -9
    assert await gone(family)


@pytest.mark.parametrize("kind", FAKES)
async def test_a_crash_in_a_stream_never_looks_like_an_end(kind: Kind, tmp_path: Path) -> None:
    job = trapped(job_of(kind, tmp_path), "crash-midstream")
    told: list[str] = []
    async with cold(find(kind.engine), job, tmp_path) as engine:
        await engine.proof()
        try:
            async with engine.streaming() as response:
                told = [line async for line in response.aiter_lines() if line.startswith("data: {")]
        except httpx2.HTTPError as error:
            told.append(type(error).__name__)
        ended = await engine.run.process.wait()
    assert told
    assert '"finish_reason":"stop"' not in "".join(told)
    # vLLM says goodbye politely after the death of its core.
    assert ended == (0 if kind.engine == "vllm" else -9)


@pytest.mark.parametrize("kind", FAKES)
async def test_a_client_that_leaves_ends_the_generation(kind: Kind, tmp_path: Path) -> None:
    async with cold(find(kind.engine), job_of(kind, tmp_path), tmp_path) as engine:
        await engine.proof()
        async with engine.streaming(max_tokens=3) as response:
            async for _ in response.aiter_lines():
                break
        # Nothing runs any more, so it ends at once even where it would wait for a stream.
        assert await engine.end(kind.hurry) in (0, -15)
