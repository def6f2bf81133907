"""What changes when an operator's unit runs the engine: its steps, its names, its files."""

import json
from dataclasses import replace

import pytest

from llm_router.core.words import FailureKind
from llm_router.engines import registry
from llm_router.engines.engine import Answer, Check, Job, Need, Verdict
from llm_router.engines.serviced import Service, Serviced, is_service, service_name

JOB = Job("qwen", (), 5000, path="exl3/Qwen-4.0bpw")


def serviced(engine: str, *, script: str = "", served: str = "", config: str = "", tokens: str = "") -> Serviced:
    words = (script,) if script else ()
    return Serviced(registry.find(engine), Service("engine.service", words, served, config, tokens, "/home/me"))


def models(*names: str, owner: str = "sglang") -> Answer:
    cards = [{"id": name, "object": "model", "owned_by": owner} for name in names]
    return Answer(200, body=json.dumps({"data": cards}).encode())


def identity(engine: Serviced, answer: Answer, job: Job = JOB) -> Verdict:
    step = next(step for step in engine.steps(job) if step.name == "identity")
    return step.judge(answer).verdict


@pytest.mark.parametrize("engine", registry.names())
def test_every_engine_can_be_in_a_unit(engine: str) -> None:
    one = serviced(engine, script="/opt/start.sh")
    assert one.name == engine
    assert one.help_argv(JOB) is None
    launch = one.launch(JOB)
    assert (launch.argv, launch.unit, launch.files) == (("/opt/start.sh",), "engine.service", ())
    assert one.farewell(JOB) == registry.find(engine).farewell(JOB)
    assert one.checks(JOB) == ()


def test_a_script_decides_which_model_it_is_whatever_it_is_called() -> None:
    answer = models("/opt/models/Qwen-AWQ")
    assert identity(serviced("sglang", script="/opt/start.sh"), answer) is Verdict.yes
    assert identity(serviced("sglang"), answer) is Verdict.no
    assert identity(serviced("sglang", script="/opt/start.sh", served="other"), answer) is Verdict.no


def test_an_engine_that_refuses_other_names_needs_the_right_one() -> None:
    one = serviced("vllm", script="/opt/start.sh")
    step = next(step for step in one.steps(JOB) if step.name == "identity")
    failure = step.judge(models("Qwen-AWQ", owner="vllm")).failure
    assert failure is not None
    assert failure.kind is FailureKind.wrong_identity
    assert "`model_name`" in failure.cause
    named = serviced("vllm", script="/opt/start.sh", served="Qwen-AWQ")
    assert identity(named, models("Qwen-AWQ", owner="vllm")) is Verdict.yes
    assert named.dialect(JOB).model_name == "Qwen-AWQ"
    assert b'"Qwen-AWQ"' in (named.steps(JOB)[-1].question.body or b"")


@pytest.mark.parametrize("engine", ["sglang", "vllm", "llamacpp", "tabbyapi"])
@pytest.mark.parametrize(("key", "words"), [(None, "asks for a key"), ("wrong", "asks for another key")])
def test_a_key_that_is_missing_or_wrong_is_said_with_its_place(engine: str, key: str | None, words: str) -> None:
    one, job = serviced(engine), replace(JOB, key=key)
    step = next(step for step in one.steps(job) if step.name == "identity")
    failure = step.judge(Answer(401, body=b'{"error": "Unauthorized"}')).failure
    assert failure is not None
    assert failure.kind is FailureKind.key
    assert failure.cause.endswith(f"(engine.service {words}: write it as `key` at its backend)")


def test_who_ran_before_us_is_judged_strictly() -> None:
    step = serviced("sglang", script="/opt/start.sh").identity(JOB)
    assert step is not None
    assert step.judge(models("/opt/models/Qwen-AWQ")).verdict is Verdict.no
    assert step.judge(models("qwen")).verdict is Verdict.yes


def test_tabbyapi_loads_by_its_file_and_not_by_request() -> None:
    one = serviced("tabbyapi")
    assert "load" not in [step.name for step in one.steps(JOB)]
    edit = one.launch(JOB).edit
    assert edit is not None
    assert edit.values == ((("model", "model_name"), "exl3/Qwen-4.0bpw"),)
    assert edit.file.variable == "TABBY_CONFIG_PATH"
    assert edit.file.folders == ("/home/me/tabbyAPI", "/opt/tabbyAPI", "/opt/TabbyAPI", "/etc/tabbyapi")
    card = Answer(200, body=b'{"id": "Qwen-4.0bpw", "parameters": {}}')
    assert identity(one, card) is Verdict.yes
    assert identity(one, Answer(200, body=b'{"id": "Other", "parameters": {}}')) is Verdict.no
    assert one.dialect(JOB).model_name == "Qwen-4.0bpw"


def test_the_folder_of_models_is_set_and_looked_at_when_it_is_configured() -> None:
    one = serviced("tabbyapi", served="exl3/Named")
    job = Job("qwen", (), 5000, path="ignored", model_dir="/srv/models")
    edit = one.launch(job).edit
    assert edit is not None
    assert edit.values == ((("model", "model_name"), "exl3/Named"), (("model", "model_dir"), "/srv/models"))
    assert one.checks(job) == (Check(Need.directory, "/srv/models/exl3/Named"),)


@pytest.mark.parametrize(
    ("config", "tokens", "home", "expected"),
    [
        ("", "", "", ""),
        ("/x/config.yml", "", "/opt/t", "/x"),
        ("", "", "/opt/t", "/opt/t"),
        ("/x/config.yml", "/y/t.yml", "", "/y/t.yml"),
    ],
)
def test_keys_are_beside_the_settings_unless_somebody_says_where(
    config: str, tokens: str, home: str, expected: str
) -> None:
    file = serviced("tabbyapi", config=config, tokens=tokens).keys(Job("m", (), 1, home=home))
    assert file is not None
    assert (file.name, file.configured) == ("api_tokens.yml", expected)


def test_other_engines_have_no_files_of_keys_or_settings() -> None:
    one = serviced("llamacpp")
    assert one.keys(JOB) is None
    assert one.launch(JOB).edit is None


@pytest.mark.parametrize(
    ("word", "good"),
    [
        ("sglang", True),
        ("sglang.service", True),
        ("engine@1.service", True),
        ("engine@.service", False),
        ("a b", False),
        ("../x", False),
        ("", False),
        ("x" * 300, False),
        ("@x", False),
    ],
)
def test_names_of_services(word: str, good: bool) -> None:
    assert is_service(word) is good
    assert service_name(word).endswith(".service")
