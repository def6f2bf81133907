"""The adapter of ``transformers serve``: the pinned form, strict bodies, its log and its causes."""

import json
from dataclasses import replace

import pytest

from fakes.golden import causes, log_lines
from llm_router.core.words import FailureKind
from llm_router.engines.engine import Answer, Check, Ended, Job, Need, Verdict
from llm_router.engines.transformers import ACCEPTS, Transformers

ENGINE = Transformers()
PROGRAM = ("/opt/hf/bin/transformers", "serve")
JOB = Job("odd", PROGRAM, 8000, path="/models/Odd-7B", devices=(1,), key="k1")


def argv(job: Job) -> str:
    return " ".join(ENGINE.launch(job).argv)


def test_the_model_is_pinned() -> None:
    launch = ENGINE.launch(JOB)
    assert (
        " ".join(launch.argv)
        == "/opt/hf/bin/transformers serve /models/Odd-7B --host 127.0.0.1 --port 8000 --device auto"
    )
    assert launch.env["CUDA_VISIBLE_DEVICES"] == "1"
    # It has no keys.
    assert launch.files == ()
    assert ENGINE.dialect(JOB).headers == ()


def test_an_older_version_pins_by_a_flag() -> None:
    old = frozenset({"--force-model", "--host", "--port", "--device"})
    assert argv(replace(JOB, flags=old)) == (
        "/opt/hf/bin/transformers serve --force-model /models/Odd-7B --host 127.0.0.1 --port 8000 --device auto"
    )


def test_options_go_under_their_own_names() -> None:
    options = {"device": "cpu", "dtype": "bfloat16", "trust_remote_code": True, "compile": False}
    assert argv(replace(JOB, options=options)).endswith(
        "--device cpu --dtype bfloat16 --trust-remote-code --no-compile"
    )
    assert argv(replace(JOB, parallel=4)).endswith("--device auto --continuous-batching")
    assert "--continuous-batching" not in argv(replace(JOB, parallel=1))
    assert argv(replace(JOB, parallel=4, options={"continuous-batching": False})).endswith("--no-continuous-batching")
    with pytest.raises(ValueError, match="the installed program does not list --dtype"):
        ENGINE.launch(replace(JOB, flags=frozenset({"--host", "--port"}), options={"dtype": "auto"}))


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (replace(JOB, path=""), "it has no path"),
        (replace(JOB, path="/models/a@b"), "it takes what follows @ for a revision"),
        (replace(JOB, context=4096), "transformers serve has no setting for it"),
        (replace(JOB, options={"model-timeout": 3}), "the router sets it; use idle of the model"),
        (replace(JOB, options={"port": 3}), "the router sets it; use port of the backend"),
    ],
)
def test_what_it_cannot_do_is_said_before_the_start(job: Job, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ENGINE.launch(job)


def test_the_command_is_completed() -> None:
    assert ENGINE.launch(replace(JOB, command=())).argv[:2] == ("transformers", "serve")
    assert ENGINE.launch(replace(JOB, command=("/x/transformers",))).argv[:2] == ("/x/transformers", "serve")
    assert ENGINE.help_argv(JOB) == (*PROGRAM, "--help")


def test_checks_and_files() -> None:
    assert ENGINE.checks(JOB) == (
        Check(Need.program, PROGRAM[0]),
        Check(Need.directory, "/models/Odd-7B"),
        Check(Need.model_header, "/models/Odd-7B/config.json"),
    )
    assert ENGINE.judge_file(JOB, "/m/config.json", b'{"model_type": "odd"}', 21) is None
    exl3 = b'{"quantization_config": {"quant_method": "exl3"}}'
    failure = ENGINE.judge_file(JOB, "/m/config.json", exl3, len(exl3))
    assert failure is not None
    assert "use tabbyapi" in failure.cause


def test_progress_follows_the_real_log_of_a_start() -> None:
    """Recorded from 5.23 on a processor."""
    facts = [fact for line in log_lines("transformers", "ready.log") if (fact := ENGINE.read(line))]
    assert [(fact.phase, fact.percent) for fact in facts[:2]] == [("loading weights", 5.0), ("loading weights", 95.0)]
    assert facts[-1].near
    assert facts[-1].port == 18220
    older = ENGINE.read("Loading checkpoint shards:  50%|█████     | 1/2 [00:01<00:01,  1.2s/it]")
    assert older is not None
    assert older.percent == 50.0


@pytest.mark.parametrize(("line", "kind", "words"), causes("transformers"))
def test_each_known_text_names_its_cause(line: str, kind: FailureKind, words: str) -> None:
    failure = ENGINE.explain(JOB, Ended(1), ["Traceback (most recent call last):", line])
    assert failure.kind is kind
    assert words in failure.cause
    assert failure.cause.startswith("cannot ")


def answer(status: int = 200, **fields: object) -> Answer:
    body = {"choices": [{"finish_reason": "length"}], **fields}
    return Answer(status, body=json.dumps(body).encode())


def test_the_first_token_is_the_identity() -> None:
    health, proof = ENGINE.steps(JOB)
    assert health.question.path == "/health"
    body = json.loads(proof.question.body or b"")
    assert body["model"] == "/models/Odd-7B"
    assert set(body) <= {"model", "messages", "max_tokens", "temperature"}
    assert proof.judge(answer(model="/models/Odd-7B@main")).verdict is Verdict.yes
    assert proof.judge(answer(model="/models/Odd-7B")).verdict is Verdict.yes
    assert proof.judge(Answer(503)).verdict is Verdict.wait
    for wrong in (
        answer(model="/models/Other@main"),
        answer(400, detail="Server is pinned to '/models/Other'; requested '/models/Odd-7B'."),
    ):
        judged = proof.judge(wrong)
        assert judged.failure is not None
        assert judged.failure.kind is FailureKind.wrong_identity


def test_fields_that_it_refuses_are_dropped() -> None:
    dialect = ENGINE.dialect(JOB)
    assert dialect.model_name == "/models/Odd-7B"
    for accepted in dialect.accepts.values():
        assert not accepted & {"top_k", "min_p", "repetition_penalty", "ignore_eos", "cache_prompt", "rid"}
    assert not dialect.says_done
    assert not dialect.ask_usage
    assert ACCEPTS["/v1/chat/completions"] >= {"model", "messages", "seed", "stop", "tools", "stream_options", "stream"}
    assert ACCEPTS["/v1/completions"] >= {"model", "prompt", "suffix", "stream_options"}
    assert ACCEPTS["/v1/responses"] >= {"model", "input", "reasoning", "stream"}


def test_the_rest_of_the_manners() -> None:
    assert ENGINE.farewell(JOB).grace_s == 10.0
    watch = ENGINE.watch(JOB)
    assert watch is not None
    assert watch.judge(Answer(503, body=b'{"status":"unhealthy","reason":"cb_worker_dead"}')).verdict is Verdict.wait
