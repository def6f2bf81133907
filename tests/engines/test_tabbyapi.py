"""The adapter of TabbyAPI: its files, its load by events, answers that are not what they look like, its causes."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from fakes.golden import causes
from llm_router.core.words import DeviceId, FailureKind
from llm_router.engines.engine import Answer, Check, Ended, Job, Judgement, Need, Verdict
from llm_router.engines.keys import admin_key
from llm_router.engines.tabbyapi import TabbyAPI

ENGINE = TabbyAPI()
OLD = TabbyAPI("tabbyapi-exl2")
JOB = Job(
    "monstral", (), 5000, path="exl3/Monstral-4bpw", model_dir="/opt/models", home="/opt/TabbyAPI", context=24576,
    devices=(0, 2), directory="/run/monstral-1", key="k1", device_ids=(DeviceId("GPU-a"), DeviceId("GPU-c")),
)  # fmt: skip
ADMIN = admin_key("k1")


def files(job: Job) -> dict[str, dict[str, object]]:
    yaml = YAML(typ="safe", pure=True)
    return {file.path: yaml.load(file.content) for file in ENGINE.launch(job).files}


def settings(job: Job) -> dict[str, dict[str, object]]:
    return files(job)["/run/monstral-1/config.yml"]  # type: ignore[return-value]


def request(job: Job) -> dict[str, object]:
    body = json.loads(ENGINE.steps(job)[1].question.body or b"")
    assert isinstance(body, dict)
    return body


def test_it_is_started_in_a_directory_of_its_own_without_a_model() -> None:
    launch = ENGINE.launch(JOB)
    assert launch.argv == ("/opt/TabbyAPI/venv/bin/python", "/opt/TabbyAPI/main.py")
    assert launch.cwd == "/run/monstral-1"
    assert launch.env["TABBY_LOG_CONSOLE_WIDTH"] == "500"
    assert launch.env["CUDA_VISIBLE_DEVICES"] == "0,2"
    assert launch.links == (
        ("/run/monstral-1/templates", "/opt/TabbyAPI/templates"),
        ("/run/monstral-1/sampler_overrides", "/opt/TabbyAPI/sampler_overrides"),
    )
    assert settings(JOB) == {
        "network": {"host": "127.0.0.1", "port": 5000, "disable_auth": False},
        "model": {"model_dir": "/opt/models/exl3"},
    }
    assert request(JOB) == {"model_name": "Monstral-4bpw", "max_seq_len": 24576, "cache_size": 24576}


def test_keys_are_ours_secret_and_two() -> None:
    (keys,) = (file for file in ENGINE.launch(JOB).files if file.path.endswith("api_tokens.yml"))
    assert keys.secret
    assert files(JOB)[keys.path] == {"api_key": "k1", "admin_key": ADMIN}
    # It prints both in its log.
    assert set(ENGINE.launch(JOB).secrets) == {"k1", ADMIN}
    # Loads need the greater one, what clients send gets the lesser one.
    assert ("Authorization", f"Bearer {ADMIN}") in ENGINE.steps(JOB)[1].question.headers
    assert ENGINE.dialect(JOB).headers == (("Authorization", "Bearer k1"),)


def test_without_a_key_it_asks_for_none() -> None:
    assert list(files(replace(JOB, key=None))) == ["/run/monstral-1/config.yml"]
    assert settings(replace(JOB, key=None))["network"]["disable_auth"] is True


def test_a_command_of_the_configuration_wins() -> None:
    assert ENGINE.launch(replace(JOB, command=("/x/python", "/x/main.py"))).argv == ("/x/python", "/x/main.py")
    assert ENGINE.launch(replace(JOB, home="")).argv[1] == "/opt/TabbyAPI/main.py"
    assert ENGINE.launch(replace(JOB, home="")).links == ()
    assert ENGINE.help_argv(JOB) is None


@pytest.mark.parametrize(
    "options",
    [
        {"cache_mode": "8,6", "reasoning": True, "draft_model_name": "d", "draft_mode": "model", "log_requests": True},
        {"model.cache-mode": "8,6", "--reasoning": True, "draft_model.draft_model_name": "d", "draft_mode": "model",
         "logging.log_requests": True},
        {"model": {"cache_mode": "8,6", "reasoning": True}, "draft_model": {"draft_model_name": "d", "draft_mode": "model"},
         "logging": {"log_requests": True}},
    ],
)  # fmt: skip
def test_each_setting_goes_where_it_has_an_effect(options: dict[str, object]) -> None:
    """What the request has not is applied to a load by request only if ``use_as_default`` names it."""
    job = replace(JOB, options=options)
    assert request(job)["cache_mode"] == "8,6"
    assert request(job)["draft_model"] == {"draft_model_name": "d"}
    told = settings(job)
    assert told["model"]["reasoning"] is True
    assert told["draft_model"]["draft_mode"] == "model"
    assert told["model"]["use_as_default"] == ["reasoning", "draft_mode"]
    assert told["logging"] == {"log_requests": True}


def test_context_and_parallel_requests_give_the_cache() -> None:
    job = replace(JOB, context=1000, parallel=3)
    assert request(job)["cache_size"] == 3072
    assert settings(job)["model"]["max_batch_size"] == 3
    assert request(replace(job, options={"cache_size": 4096}))["cache_size"] == 4096
    assert "max_seq_len" not in request(replace(JOB, context=None, options={"vision": None}))


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (replace(JOB, options={"port": 1}), "the router sets it; use port of the backend"),
        (replace(JOB, options={"model": {"model_name": "x"}}), "the router sets it; use path"),
        (replace(JOB, options={"network.disable_auth": True}), "the router sets it"),
        (replace(JOB, options={"no_such_thing": 1}), "TabbyAPI has no such setting"),
        (replace(JOB, path="exl3/Name", model_dir=""), "its path is relative"),
        (replace(JOB, directory=""), "a directory of its own"),
    ],
)
def test_what_is_wrong_is_said_before_the_start(job: Job, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ENGINE.launch(job)


def test_what_is_checked_before_anybody_is_stopped() -> None:
    assert ENGINE.checks(JOB) == (
        Check(Need.program, "/opt/TabbyAPI/venv/bin/python"),
        Check(Need.file, "/opt/TabbyAPI/main.py"),
        Check(Need.directory, "/opt/models/exl3/Monstral-4bpw"),
        Check(Need.model_header, "/opt/models/exl3/Monstral-4bpw/config.json"),
    )


@pytest.mark.parametrize(
    ("engine", "method", "words"),
    [
        (ENGINE, "exl3", None),
        (ENGINE, "exl2", "use tabbyapi-exl2"),
        (ENGINE, "awq", "use sglang"),
        (OLD, "exl2", None),
        (OLD, "gptq", None),
        (OLD, "exl3", "use tabbyapi, the main branch"),
    ],
)
def test_each_branch_takes_its_own_formats(engine: TabbyAPI, method: str, words: str | None) -> None:
    head = json.dumps({"quantization_config": {"quant_method": method}}).encode()
    failure = engine.judge_file(JOB, "/m/config.json", head, len(head))
    assert (failure is None) == (words is None)
    if failure and words:
        assert failure.kind is FailureKind.unsupported
        assert words in failure.cause


# The load


def event(content: object) -> bytes:
    return b"data: " + json.dumps(content).encode() + b"\r\n\r\n"


def module(kind: str, number: int, of: int, status: str = "processing") -> bytes:
    return event({"model_type": kind, "module": number, "modules": of, "status": status})


def judge(body: bytes, *, complete: bool = False, status: int = 200) -> Judgement:
    return ENGINE.steps(JOB)[1].judge(Answer(status, body=body, complete=complete))


def test_the_percent_of_a_load_is_true() -> None:
    body = b""
    told = []
    for piece in (
        module("vision", 2, 2), module("vision", 2, 2, "finished"), module("draft", 1, 2), module("model", 10, 40),
        b": ping - 2026-11-20 12:00:00+00:00\r\n\r\n", module("model", 40, 40), module("model", 40, 40, "finished"),
    ):  # fmt: skip
        body += piece
        judged = judge(body)
        assert judged.verdict is Verdict.wait
        told.append((judged.phase, judged.percent))
    assert told == [
        ("loading weights", 6.0), ("loading weights", 6.0), ("loading weights", 9.0), ("loading weights", 33.2),
        ("loading weights", 33.2), ("allocating cache", 97.0), ("allocating cache", 97.0),
    ]  # fmt: skip
    assert judge(body, complete=True).verdict is Verdict.yes


def test_finished_is_not_the_end_of_the_load_but_the_end_of_the_stream_is() -> None:
    finished = module("model", 40, 40, "finished")
    assert judge(finished).verdict is Verdict.wait
    assert judge(finished, complete=True).verdict is Verdict.yes
    # Of the draft only: broken off.
    draft = judge(module("draft", 2, 2, "finished"), complete=True)
    assert draft.failure is not None
    assert "broke the load off" in draft.failure.cause
    # The older branch says nothing when the model is there already.
    assert judge(b"", complete=True).verdict is Verdict.yes
    assert judge(b"").verdict is Verdict.wait
    # Cut in the middle of an event.
    assert judge(finished[:-9]).verdict is Verdict.wait


def test_a_failure_comes_inside_a_200() -> None:
    body = module("model", 1, 40) + event(
        {"error": {"message": "Insufficient VRAM in split for model and cache", "trace": None}}
    )
    for complete in (False, True):
        judged = judge(body, complete=complete)
        assert judged.verdict is Verdict.no
        assert judged.failure is not None
        assert judged.failure.kind is FailureKind.out_of_memory
    other = judge(event({"error": "odd"})).failure
    assert other is not None
    assert other.cause == "cannot load monstral: TabbyAPI says: odd"


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, {"detail": "Invalid admin key"}, FailureKind.key),
        (
            400,
            {"detail": "Could not find the model path for load. Check model name or config.yml?"},
            FailureKind.missing_file,
        ),
        (422, {"detail": [{"msg": "Input should be a valid integer"}]}, FailureKind.bad_argument),
        (500, "Internal Server Error", FailureKind.crashed),
    ],
)
def test_a_refused_load_says_why(status: int, body: object, kind: FailureKind) -> None:
    failure = judge(json.dumps(body).encode(), status=status, complete=True).failure
    assert failure is not None
    assert failure.kind is kind
    assert failure.cause.startswith("cannot load monstral: ")


@given(st.binary(max_size=200), st.booleans(), st.sampled_from([0, 200, 400, 503]))
def test_no_answer_can_break_a_judge(body: bytes, complete: bool, status: int) -> None:
    watch = ENGINE.watch(JOB)
    assert watch is not None
    for step in (*ENGINE.steps(JOB), watch):
        assert isinstance(step.judge(Answer(status, body=body, complete=complete)), Judgement)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)
                    | st.dictionaries(st.sampled_from(["module", "modules", "model_type", "status", "error", "id", "issues"]),
                                      inner, max_size=4), max_leaves=8))  # fmt: skip
def test_no_event_can_break_a_judge(content: object) -> None:
    watch = ENGINE.watch(JOB)
    assert watch is not None
    for step in (*ENGINE.steps(JOB), watch):
        step.judge(Answer(200, body=event(content)))
        step.judge(Answer(200, body=json.dumps(content).encode()))


def test_the_load_is_asked_once_and_may_take_long() -> None:
    step = ENGINE.steps(JOB)[1]
    assert step.attempts == 1
    assert step.question.stream
    assert step.question.timeout_s >= 600


# The rest of the road


def test_who_answers_is_told_without_a_key() -> None:
    first = ENGINE.steps(JOB)[0]
    assert first.question.headers == ()
    assert first.judge(Answer(200, body=b'{"software":{"name":"TabbyAPI"}}')).verdict is Verdict.yes
    assert first.judge(Answer(404)).verdict is Verdict.yes
    assert first.judge(Answer(0)).verdict is Verdict.wait
    failure = first.judge(Answer(200, body=b'{"software":{"name":"Other"}}')).failure
    assert failure is not None
    assert failure.kind is FailureKind.wrong_identity


def test_the_loaded_model_and_its_context_are_looked_at() -> None:
    identity = ENGINE.steps(JOB)[2]

    def card(name: str, context: object) -> Answer:
        return Answer(200, body=json.dumps({"id": name, "parameters": {"max_seq_len": context}}).encode())

    assert identity.judge(card("Monstral-4bpw", 24576)).verdict is Verdict.yes
    # Without a model: 503, in older versions 400.
    assert identity.judge(Answer(503)).verdict is Verdict.wait
    assert identity.judge(Answer(400)).verdict is Verdict.wait
    other = identity.judge(card("Other", 24576)).failure
    assert other is not None
    assert other.kind is FailureKind.wrong_identity
    short = identity.judge(card("Monstral-4bpw", 4096)).failure
    assert short is not None
    assert short.kind is FailureKind.bad_argument
    assert "tabby_config.yml in /opt/models/exl3/Monstral-4bpw" in short.cause
    refused = identity.judge(Answer(401)).failure
    assert refused is not None
    assert refused.kind is FailureKind.key


def test_the_proof_names_the_folder() -> None:
    proof = ENGINE.steps(JOB)[3]
    assert json.loads(proof.question.body or b"")["model"] == "Monstral-4bpw"
    text = '{"detail":{"error":{"message":"Chat completions are disabled because a chat template is not set."}}}'
    instead = proof.judge(Answer(422, body=text.encode())).instead
    assert instead is not None
    assert instead.path == "/v1/completions"


def test_the_watch_tells_a_broken_generator_and_a_lost_model() -> None:
    watch = ENGINE.watch(JOB)
    assert watch is not None
    assert watch.question.path == "/health"
    sticky = watch.judge(Answer(503, body=b'{"status":"unhealthy","issues":[{"time":"t","description":"boom"}]}'))
    assert sticky.failure is not None
    assert "its generator broke (boom); it must be restarted" in sticky.failure.cause
    # Healthy is said also without a model.
    healthy = watch.judge(Answer(200, body=b'{"status":"healthy","issues":[]}'))
    assert healthy.instead is not None
    assert healthy.instead.path == "/v1/model"
    assert watch.judge(Answer(200, body=b'{"id":"Monstral-4bpw"}')).verdict is Verdict.yes
    assert watch.judge(Answer(503, body=b'{"detail":"No models are currently loaded."}')).verdict is Verdict.wait


@pytest.mark.parametrize(("line", "kind", "words"), causes("tabbyapi"))
def test_each_known_text_names_its_cause(line: str, kind: FailureKind, words: str) -> None:
    failure = ENGINE.explain(replace(JOB, devices=(0, 2)), Ended(1), ["Traceback (most recent call last):", line])
    assert failure.kind is kind
    assert words in failure.cause
    assert failure.cause.startswith("cannot ")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("WARNING:  Port 5000 is currently in use. Switching to 5001.", "TabbyAPI moved to 5001"),
        ("ERROR:    Ports 5000 and 5001 are in use by different services.", "ports 5000 and 5001"),
        (
            "ERROR:    The YAML config from 'config.yml' couldn't load because of the following error:",
            "go on without a model",
        ),
    ],
)
def test_some_lines_fail_a_start_of_a_server_that_lives_on(line: str, words: str) -> None:
    fact = ENGINE.read(f"2026-11-20 12:00:00.123 {line}")
    assert fact is not None
    assert fact.failure is not None
    assert words in fact.failure.cause


def test_its_log_tells_the_port_it_really_took() -> None:
    fact = ENGINE.read("2026-11-20 12:00:00.123 INFO:     Developer documentation: http://127.0.0.1:5001/redoc")
    assert fact is not None
    assert fact.port == 5001
    assert fact.near
    loading = ENGINE.read("2026-11-20 12:00:00.123 INFO:     Loading model: /opt/models/x")
    assert loading is not None
    assert loading.phase == "loading weights"
    assert ENGINE.read("2026-11-20 12:00:00.123 INFO:     Metrics (ID: 1): 7 tokens generated") is None


def test_the_rest_of_the_manners() -> None:
    # No unload before the end: it makes cut answers look whole.
    assert ENGINE.farewell(JOB).first == ()
    dialect = ENGINE.dialect(JOB)
    assert dialect.model_name == "Monstral-4bpw"
    assert dialect.ask_usage
    assert dialect.usage_whole
    assert dialect.serves is not None
    assert not {"/v1/model/load", "/v1/model/unload", "/v1/download"} & dialect.serves
