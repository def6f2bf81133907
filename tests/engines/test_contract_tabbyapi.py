"""TabbyAPI's own traps, met by the adapter: the next port, healthy without a model, loads by events, lost streams."""

import asyncio
import contextlib
import json
import signal
import socket
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from fakes.cold import Cold, cold, occupied
from fakes.kinds import HURRY, Kind, job_of, trapped
from llm_router.core.words import FailureKind
from llm_router.engines.engine import Answer, Job, Launch, Question, Verdict
from llm_router.engines.keys import admin_key
from llm_router.engines.tabbyapi import TabbyAPI

ENGINE = TabbyAPI()
KIND = Kind("tabbyapi")
pytestmark = pytest.mark.slow


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return job_of(KIND, tmp_path)


async def healthy(engine: Cold, further: int = 0) -> httpx2.Response:
    """The first answer of its health, on its port or one ``further``."""
    while engine.run.process.returncode is None:
        try:
            return await engine.run.client.get(f"http://127.0.0.1:{engine.job.port + further}/health")
        except httpx2.HTTPError:
            await asyncio.sleep(0.005)
    raise AssertionError(engine.run.lines)


def two_ports() -> int:
    """A free port with a free one behind it."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            with contextlib.suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 1))
                return port


async def test_it_is_healthy_without_a_model_and_that_is_no_proof(job: Job, tmp_path: Path) -> None:
    async with cold(ENGINE, job, tmp_path) as engine:
        assert (await healthy(engine)).json() == {"status": "healthy", "issues": []}
        model = await engine.ask(Question("GET", "/v1/model", headers=tuple(engine.headers.items())))
        assert (model.status, json.loads(model.body)) == (503, {"detail": "No models are currently loaded."})
        # With a name the refusal is an error of its own.
        assert (await engine.chat()).status_code == 500
        watch = ENGINE.watch(job)
        assert watch is not None
        instead = watch.judge(await engine.ask(watch.question)).instead
        assert instead is not None
        assert watch.judge(await engine.ask(instead)).verdict is Verdict.wait
        await engine.proof()
        assert watch.judge(await engine.ask(instead)).verdict is Verdict.yes


async def test_the_load_is_seen_event_by_event(job: Job, tmp_path: Path) -> None:
    slow = replace(job, env={**job.env, "FAKE_SPEED": "20"}, options={"draft_model_name": "small"})
    step = ENGINE.steps(slow)[1]
    async with cold(ENGINE, slow, tmp_path) as engine:
        await healthy(engine)
        judged = [step.judge(answer) async for answer in engine.stream(slow.host, slow.port, step.question)]
        # Proving what is loaded already is quick and right.
        await engine.proof()
    assert [one.verdict for one in judged] == [Verdict.wait] * (len(judged) - 1) + [Verdict.yes]
    percents = [one.percent for one in judged if one.percent is not None]
    assert percents == sorted(percents)
    assert len(set(percents)) > 10
    assert 6.0 <= percents[0] < 12.0
    assert percents[-1] == 97.0


@pytest.mark.parametrize("branch", ["tabbyapi", "tabbyapi-exl2"])
async def test_what_is_loaded_already_is_proved_again(tmp_path: Path, branch: str) -> None:
    """As when a running one is taken over: the newer branch says "finished", the older one nothing."""
    async with cold(TabbyAPI(branch), job_of(Kind(branch), tmp_path), tmp_path) as engine:
        await engine.proof()
        await engine.proof()
        assert sum("Loading model:" in line for line in engine.run.lines) == 1


async def test_an_asker_that_only_waits_for_the_end_is_right_too(job: Job, tmp_path: Path) -> None:
    async with cold(ENGINE, job, tmp_path) as engine:
        await healthy(engine)
        for step in ENGINE.steps(job):
            answer = await engine.ask(step.question)
            assert step.judge(answer).verdict is Verdict.yes, (step.name, answer)


async def test_a_busy_port_moves_it_and_the_log_tells(job: Job, tmp_path: Path) -> None:
    job = replace(job, port=two_ports())
    with occupied(job.port):
        async with cold(ENGINE, job, tmp_path) as engine:
            failure = await engine.failure()
            # It lives on, on the next port, healthy and alone.
            assert (await healthy(engine, further=1)).status_code == 200
    assert failure.kind is FailureKind.port_in_use
    assert f"TabbyAPI moved to {job.port + 1}" in failure.cause


async def test_two_busy_ports_end_it_with_a_clean_exit_code(job: Job, tmp_path: Path) -> None:
    job = replace(job, port=two_ports())
    with occupied(job.port), occupied(job.port + 1):
        async with cold(ENGINE, job, tmp_path) as engine:
            failure = await engine.failure()
            assert await engine.run.process.wait() == 0
    assert failure.kind is FailureKind.port_in_use


class Spoilt(TabbyAPI):
    """Writes a config.yml that is no YAML."""

    def launch(self, job: Job) -> Launch:
        launch = super().launch(job)
        spoilt = tuple(replace(file, content=b"model\n  nonsense") for file in launch.files[:1])
        return replace(launch, files=(*spoilt, *launch.files[1:]))


async def test_settings_that_it_cannot_read_are_not_a_healthy_start(job: Job, tmp_path: Path) -> None:
    # Its defaults name port 5000, which somebody may have: the log is enough.
    async with cold(Spoilt(), job, tmp_path) as engine:
        failure = await engine.failure()
    assert failure.kind is FailureKind.bad_argument
    assert "cannot read its config.yml" in failure.cause


@pytest.mark.parametrize(
    ("trap", "kind", "words"),
    [
        ("oom", FailureKind.out_of_memory, "do not fit on its devices"),
        ("no-deps", FailureKind.missing_program, "lacks ExLlama"),
        ("old-gpu", FailureKind.unsupported, "compute capability 8.0"),
        ("other-model", FailureKind.wrong_identity, "has loaded another-model instead"),
        ("short", FailureKind.bad_argument, "a context of 1024 instead of 2048 tokens"),
    ],
)
async def test_a_load_that_fails_or_cheats_names_its_cause(
    job: Job, tmp_path: Path, trap: str, kind: FailureKind, words: str
) -> None:
    async with cold(ENGINE, trapped(job, trap), tmp_path) as engine:
        failure = await engine.failure()
        # The server itself is healthy all the time.
        assert (await healthy(engine)).status_code == 200
    assert failure.kind is kind
    assert words in failure.cause


async def test_exl2_is_refused_by_the_main_branch_and_loaded_by_the_old_one(job: Job, tmp_path: Path) -> None:
    config = Path(job.path) / "config.json"
    config.write_text('{"quantization_config": {"quant_method": "exl2"}}')
    async with cold(ENGINE, job, tmp_path) as engine:
        failure = await engine.failure()
    assert failure.kind is FailureKind.unsupported
    assert "use the backend tabbyapi-exl2" in failure.cause
    old = replace(job_of(Kind("tabbyapi-exl2"), tmp_path), path=job.path)
    config.write_text('{"quantization_config": {"quant_method": "exl2"}}')
    async with cold(TabbyAPI("tabbyapi-exl2"), old, tmp_path) as engine:
        await engine.proof()


async def test_a_missing_folder_is_a_refusal_before_the_stream(job: Job, tmp_path: Path) -> None:
    gone = replace(job, path=f"{job.path}-gone")
    async with cold(ENGINE, gone, tmp_path) as engine:
        failure = await engine.failure()
    assert failure.kind is FailureKind.missing_file


async def test_a_model_that_comes_after_the_stream_is_waited_for(job: Job, tmp_path: Path) -> None:
    late = trapped(job, "slow-cache")
    _, load, identity, _ = ENGINE.steps(late)
    async with cold(ENGINE, late, tmp_path) as engine:
        await healthy(engine)
        assert load.judge(await engine.ask(load.question)).verdict is Verdict.yes
        judged = identity.judge(await engine.ask(identity.question))
        assert (judged.verdict, judged.phase) == (Verdict.wait, "allocating cache")
        await engine.proof()


async def test_a_broken_generator_is_unhealthy_for_ever_and_must_be_restarted(job: Job, tmp_path: Path) -> None:
    watch = ENGINE.watch(job)
    assert watch is not None
    async with cold(ENGINE, trapped(job, "broken-generator"), tmp_path) as engine:
        await engine.proof()
        assert (await engine.chat()).status_code == 200
        judged = watch.judge(await engine.ask(watch.question))
    assert judged.verdict is Verdict.no
    assert judged.failure is not None
    assert "it must be restarted" in judged.failure.cause


async def test_its_keys_are_for_different_doors(job: Job, tmp_path: Path) -> None:
    async with cold(ENGINE, job, tmp_path) as engine:
        await engine.proof()
        client, load = engine.run.client, engine.url("/v1/model/load")
        statuses = [
            (await client.get(engine.url("/v1/models"))).status_code,
            (await client.get(engine.url("/v1/models"), headers={"x-admin-key": admin_key(str(job.key))})).status_code,
            (await client.get(engine.url("/v1/models"), headers={"x-api-key": str(job.key)})).status_code,
            # What a client's request carries cannot unload the model.
            (await client.post(engine.url("/v1/model/unload"), headers=engine.headers)).status_code,
            (await client.post(load, headers=engine.headers, json={"model_name": "x"})).status_code,
        ]
        assert "Your API key is" in "\n".join(engine.run.lines)
    assert statuses == [401, 401, 200, 401, 401]


async def test_it_counts_tokens_only_for_who_asks(job: Job, tmp_path: Path) -> None:
    async with cold(ENGINE, job, tmp_path) as engine:
        await engine.proof()
        assert (await engine.chat()).json()["usage"] is None
        asked = (await engine.chat(stream_options={"include_usage": True})).json()["usage"]
        assert asked["completion_tokens"] == 7
        assert asked["completion_tokens_per_sec"] > 0
        async with engine.streaming(stream_options={"include_usage": True}) as response:
            raw = b"".join([piece async for piece in response.aiter_raw()])
    assert b"\r\n\r\n" in raw
    last = json.loads(raw.split(b"\r\n\r\n")[-3][6:])
    # The counts ride on a chunk that repeats the last choice.
    assert last["usage"]
    assert last["choices"][0]["finish_reason"] == "stop"


async def test_an_error_in_a_stream_has_no_done_behind_it(job: Job, tmp_path: Path) -> None:
    async with cold(ENGINE, trapped(job, "error-midstream"), tmp_path) as engine:
        await engine.proof()
        async with engine.streaming() as response:
            lines = [line async for line in response.aiter_lines() if line]
    assert "aborted" in json.loads(lines[-1][6:])["error"]["message"]


async def test_an_unload_leaves_streams_without_a_word(job: Job, tmp_path: Path) -> None:
    """Why the router drains first and looks for silence."""
    slow = replace(job, env={**job.env, "FAKE_TOKENS_PER_S": "0.05"})
    admin = {"Authorization": f"Bearer {admin_key(str(job.key))}"}
    async with cold(ENGINE, slow, tmp_path) as engine:
        await engine.proof()
        async with engine.streaming() as response:
            lines = response.aiter_lines()
            await anext(lines)
            assert (await engine.run.client.post(engine.url("/v1/model/unload"), headers=admin)).status_code == 200
            while not (line := await anext(lines)).startswith(":"):
                assert 'finish_reason":"' not in line
        assert line.startswith(": ping - ")


async def test_sigterm_waits_for_a_stream_until_the_grace_is_over(job: Job, tmp_path: Path) -> None:
    slow = replace(job, env={**job.env, "FAKE_TOKENS_PER_S": "0.01"})
    async with cold(ENGINE, slow, tmp_path) as engine:
        await engine.proof()
        async with engine.streaming() as response:
            assert response.status_code == 200
            assert await engine.end(HURRY) == -9


async def terminated(process: asyncio.subprocess.Process) -> None:
    """Ask it to end as soon as it takes the signal itself."""
    status = Path(f"/proc/{process.pid}/status")
    while not int(status.read_text().partition("SigCgt:")[2].split()[0], 16) >> (signal.SIGTERM - 1) & 1:
        await asyncio.sleep(0.005)
    process.terminate()


async def test_sigterm_before_it_serves_is_a_clean_exit_code_too(job: Job, tmp_path: Path) -> None:
    """So 0 is no proof of success."""
    async with cold(ENGINE, replace(job, env={**job.env, "FAKE_SPEED": "0.1"}), tmp_path) as engine:
        failure, _ = await asyncio.gather(engine.failure(), terminated(engine.run.process))
    assert failure.kind is FailureKind.crashed
    assert "exit code 0" in failure.cause


async def test_a_model_without_a_template_is_proved_by_a_text(job: Job, tmp_path: Path) -> None:
    async with cold(ENGINE, trapped(job, "no-template"), tmp_path) as engine:
        await engine.proof()


def test_an_answer_that_never_came_is_waited_for(job: Job) -> None:
    assert all(step.judge(Answer(0)).verdict is Verdict.wait for step in ENGINE.steps(job))
