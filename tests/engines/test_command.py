"""Any program with a port: its places, its health by usual or own path, and the proof where there is one."""

import asyncio
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.running import FAKE_LLAMA, REAL_LLAMA, free_port, running
from llm_router.core.words import Failure, FailureKind
from llm_router.demo.tinymodel import write_model
from llm_router.engines.command import Command
from llm_router.engines.engine import Answer, Check, Ended, Job, Need, Verdict
from llm_router.host.crew.probe import Limits, Proof, prove

ENGINE = Command()
JOB = Job("my-own", ("./serve.sh", "{port}"), 4711, key="k1")
LIST = Answer(200, body=b'{"object":"list","data":[{"id":"x"}]}')
TOKEN = Answer(200, body=b'{"choices":[{"finish_reason":"length"}]}')


def test_places_are_filled_and_other_braces_stay() -> None:
    job = replace(
        JOB,
        command=("./serve.sh", "--listen={host}:{port}", "{path}", "{model}", "-c{context}", '{"json": {}}', "${HOME}"),
        path="/m/x",
        context=4096,
        env={"WHERE": "http://{host}:{port}"},
        cwd="/srv",
    )
    launch = ENGINE.launch(job)
    assert launch.argv == (
        "./serve.sh",
        "--listen=127.0.0.1:4711",
        "/m/x",
        "my-own",
        "-c4096",
        '{"json": {}}',
        "${HOME}",
    )
    assert launch.env == {"PORT": "4711", "HOST": "127.0.0.1", "WHERE": "http://127.0.0.1:4711"}
    assert launch.cwd == "/srv"


@pytest.mark.parametrize("place", ["context", "path"])
def test_a_place_without_a_value_is_named(place: str) -> None:
    with pytest.raises(ValueError, match=f"cannot fill {{{place}}} in the command of my-own: the model has no {place}"):
        ENGINE.launch(replace(JOB, command=("x", f"{{{place}}}")))


def test_a_filled_value_is_not_filled_again() -> None:
    job = replace(JOB, model="{port}", command=("x", "{model}"))
    assert ENGINE.launch(job).argv == ("x", "{port}")


def test_args_are_its_flags_but_for_the_routers_own_words() -> None:
    job = replace(JOB, options={"proof": "none", "served-name": "x", "verbose": True, "n": 3}, devices=(1,))
    launch = ENGINE.launch(job)
    assert launch.argv == ("./serve.sh", "4711", "--verbose", "-n", "3")
    assert launch.env["CUDA_VISIBLE_DEVICES"] == "1"


def test_without_a_command_there_is_nothing_to_start() -> None:
    with pytest.raises(ValueError, match="cannot start my-own: it has no command"):
        ENGINE.launch(replace(JOB, command=()))
    assert ENGINE.checks(replace(JOB, command=())) == ()
    assert ENGINE.checks(JOB) == (Check(Need.program, "./serve.sh"),)


def test_an_unknown_program_is_never_run_for_its_help() -> None:
    assert ENGINE.help_argv(JOB) is None


def test_the_key_is_sent_only_to_a_program_that_was_given_it() -> None:
    assert ENGINE.dialect(JOB).headers == ()
    keyed = replace(JOB, command=("x", "--key={key}"))
    assert ENGINE.dialect(keyed).headers == (("Authorization", "Bearer k1"),)
    assert ENGINE.launch(keyed).argv == ("x", "--key=k1")
    assert ENGINE.steps(keyed)[0].question.headers == (("Authorization", "Bearer k1"),)


def test_the_usual_health_falls_back_to_the_list_of_models() -> None:
    ready = ENGINE.steps(JOB)[0]
    assert ready.question.path == "/health"
    assert ready.judge(Answer(0)).verdict is Verdict.wait
    assert ready.judge(Answer(503)).verdict is Verdict.wait
    fallback = ready.judge(Answer(404))
    assert fallback.verdict is Verdict.wait
    assert fallback.instead is not None
    assert fallback.instead.path == "/v1/models"
    assert ready.judge(LIST).verdict is Verdict.yes


def test_without_both_the_remedy_is_named() -> None:
    ready = ENGINE.steps(JOB)[0]
    ready.judge(Answer(404))
    judged = ready.judge(Answer(404))
    assert judged.verdict is Verdict.no
    assert judged.failure is not None
    assert "set health to a path that answers 2xx" in judged.failure.cause


def test_an_own_health_path_may_come_late() -> None:
    ready = ENGINE.steps(replace(JOB, health="/ping"))[0]
    assert ready.question.path == "/ping"
    for status, expected in ((404, Verdict.wait), (500, Verdict.wait), (204, Verdict.yes), (401, Verdict.no)):
        assert ready.judge(Answer(status)).verdict is expected


@pytest.mark.parametrize(
    ("options", "paths"),
    [
        ({}, ["/health", "/v1/models"]),
        ({"proof": "none"}, ["/health"]),
        ({"proof": False}, ["/health"]),
        ({"proof": "chat"}, ["/health", "/v1/chat/completions"]),
        ({"proof": "completions"}, ["/health", "/v1/completions"]),
        ({"proof": "embeddings"}, ["/health", "/v1/embeddings"]),
    ],
)
def test_the_proof_is_as_configured(options: Mapping[str, object], paths: list[str]) -> None:
    assert [step.question.path for step in ENGINE.steps(replace(JOB, options=options))] == paths


def test_an_unknown_proof_is_refused_before_the_start() -> None:
    with pytest.raises(ValueError, match="cannot prove my-own by 'prayer': proof is one of auto, none, chat"):
        ENGINE.launch(replace(JOB, options={"proof": "prayer"}))


def test_a_server_with_a_list_of_models_must_make_a_token() -> None:
    proof = ENGINE.steps(replace(JOB, options={"served-name": "x"}))[1]
    asked = proof.judge(LIST)
    assert asked.instead is not None
    assert asked.instead.path == "/v1/chat/completions"
    assert json.loads(asked.instead.body or b"")["model"] == "x"
    assert proof.judge(TOKEN).verdict is Verdict.yes
    assert proof.judge(Answer(500, body=b'{"error":"broken"}')).verdict is Verdict.no
    refused = proof.judge(Answer(400, body=b'{"error":"no such model"}'))
    assert refused.failure is not None
    assert "no such model; set proof" in refused.failure.cause


def test_a_server_without_one_is_believed_by_its_health() -> None:
    proof = ENGINE.steps(JOB)[1]
    assert proof.judge(Answer(404)).verdict is Verdict.yes


def test_the_watch_does_not_call_a_server_ill_for_lack_of_a_path() -> None:
    usual, own = ENGINE.watch(JOB), ENGINE.watch(replace(JOB, health="/ping"))
    assert usual is not None
    assert own is not None
    assert usual.judge(Answer(404)).verdict is Verdict.yes
    assert own.judge(Answer(404)).verdict is Verdict.wait


@given(st.integers(0, 599), st.binary(max_size=60))
def test_no_answer_makes_a_judge_raise(status: int, body: bytes) -> None:
    for step in ENGINE.steps(JOB):
        step.judge(Answer(status, body=body))


def test_its_end_is_explained_by_what_all_programs_share() -> None:
    failure = ENGINE.explain(JOB, Ended(127), ["./serve.sh: line 3: exec: wonka: not found"])
    assert failure.kind is FailureKind.crashed
    assert "exit code 127" in failure.cause
    assert "wonka: not found" in failure.cause
    busy = ENGINE.explain(JOB, Ended(1), ["OSError: [Errno 98] Address already in use"])
    assert busy.kind is FailureKind.port_in_use


# -- with real programs


async def walk(job: Job, folder: Path, total_s: float = 20) -> Proof | Failure:
    async with running(ENGINE.launch(job), folder) as engine:
        return await prove(ENGINE, job, engine.eyes(), limits=Limits(total_s=total_s))


PLAIN = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/ping" else 404); self.send_header("Content-Length", "0"); self.end_headers()
    do_POST = do_GET
    def log_request(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.mark.slow
async def test_a_plain_server_is_ready_by_its_own_path(tmp_path: Path) -> None:
    job = Job("plain", (sys.executable, "-c", PLAIN, "{port}"), free_port(), health="/ping")
    assert isinstance(await walk(job, tmp_path), Proof)
    unhealthy = await walk(replace(job, health=None, port=free_port()), tmp_path)
    assert isinstance(unhealthy, Failure)
    assert "set health" in unhealthy.cause


@pytest.mark.slow
@pytest.mark.parametrize(
    "program", [FAKE_LLAMA, pytest.param(REAL_LLAMA, marks=pytest.mark.real)], ids=["fake", "real"]
)
async def test_a_server_of_the_usual_kind_needs_no_settings(tmp_path: Path, program: tuple[str, ...]) -> None:
    write_model(tmp_path / "a.gguf", "alpha", "I am alpha.")
    words = ("-m", "{path}", "--alias", "{model}", "--port", "{port}", "-c", "{context}", "-t", "1")
    job = Job("my-own", (*program, *words), free_port(), path=str(tmp_path / "a.gguf"), context=1024)
    assert isinstance(await walk(job, tmp_path), Proof)


@pytest.mark.slow
async def test_a_program_that_never_listens_is_given_up(tmp_path: Path) -> None:
    job = Job("mute", (sys.executable, "-S", "-c", "input()"), free_port())
    result = await walk(
        replace(job, command=(sys.executable, "-S", "-c", "import time; time.sleep(60)")), tmp_path, 0.3
    )
    assert isinstance(result, Failure)
    assert result.kind is FailureKind.timeout
    ended = await asyncio.wait_for(walk(job, tmp_path), 5)
    assert isinstance(ended, Failure)
    assert "EOFError" in ended.cause
