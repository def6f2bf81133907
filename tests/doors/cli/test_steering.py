import json
from collections.abc import Callable
from typing import Any

import pytest

from fakes.admin_api import AdminApi, chunk, status, told

Command = Callable[..., Any]

BUSY = status(
    {
        "name": "alpha",
        "state": "ready",
        "loaded": True,
        "default": True,
        "aliases": ["a"],
        "context": 4096,
        "running": 2,
    },
    {"name": "beta", "waiting": 3, "last_load_s": 42.0},
    instances=[
        {
            "id": "alpha#1",
            "model": "alpha",
            "state": "ready",
            "phase": None,
            "leases": 2,
            "devices": ["GPU-1"],
            "port": 40001,
            "pid": 77,
        },
        {
            "id": "beta#2",
            "model": "beta",
            "state": "starting",
            "phase": "loading weights",
            "percent": 40.4,
            "left_s": 20,
            "leases": 0,
            "devices": [],
        },
    ],
    queue=[{"model": "beta", "waiting": 3, "background": 0, "oldest_s": 4.0}],
    devices=[{"id": "GPU-1", "name": "Card", "total": 24 * 1024**3, "used": 600 * 1024**2, "free": None}],
    failures=[
        {"model": "gamma", "kind": "missing_file", "cause": "cannot find /x", "tail": ["one", "two"], "until_s": 5}
    ],
)


def test_status_for_people(api: AdminApi, at: Command) -> None:
    api.statuses = [BUSY]
    answer = at("status")
    assert answer.exit_code == 0
    for words in (
        "llm-router 9.9 at http://127.0.0.1:8002, up 1 h 2 min",
        "alpha (a)",
        "default",
        "alpha#1: ready, 2 answers running, port 40001, pid 77, on GPU-1",
        "beta#2: starting, loading weights 40 %, about 20 s left",
        "3 requests waiting for beta, the oldest since 4.0 s",
        "24.0 GiB",
        "600 MiB",
        "failed gamma: cannot find /x",
    ):
        assert words in answer.stdout
    assert answer.stderr == ""


def test_status_for_programs(api: AdminApi, at: Command) -> None:
    api.statuses = [BUSY]
    assert json.loads(at("status", "--json").stdout) == BUSY


def test_a_status_with_markup_and_control_codes_is_shown_as_text(api: AdminApi, at: Command) -> None:
    api.statuses = [status({"name": "[red]x[/]"}, failures=[{"model": "[/]", "cause": "\x1b[31mred\x07"}])]
    shown = at("status").stdout
    assert "[red]x[/]" in shown
    assert "\x1b" not in shown
    assert "\x07" not in shown


@pytest.mark.parametrize("words", [("models",), ("models", "list")])
def test_models(api: AdminApi, at: Command, words: tuple[str, ...]) -> None:
    api.statuses = [BUSY]
    assert "beta" in at(*words).stdout
    assert json.loads(at(*words, "--json").stdout) == BUSY["models"]


def test_no_models(at: Command) -> None:
    assert at("models").stdout == "No models are configured.\n"


def test_options_before_the_subcommand_are_not_lost_silently(at: Command) -> None:
    answer = at("models", "--url", "http://127.0.0.1:1", "list")
    assert (answer.exit_code, "write them at the end" in answer.stderr) == (2, True)


def test_one_model(api: AdminApi, at: Command) -> None:
    api.statuses = [{**BUSY, "failures": [{"model": "alpha", "cause": "cannot read", "tail": ["last words"]}]}]
    shown = at("models", "show", "a").stdout
    for words in ("alpha\n", "state      ready", "alpha#1: ready", "cannot read", "last words"):
        assert words in shown
    told_ = json.loads(at("models", "show", "alpha", "--json").stdout)
    assert (told_["name"], len(told_["instances"]), told_["failure"]["cause"]) == ("alpha", 1, "cannot read")


def test_an_unknown_model_names_the_nearest(api: AdminApi, at: Command) -> None:
    api.statuses = [BUSY]
    answer = at("models", "show", "alpa")
    assert (answer.exit_code, answer.stderr) == (4, "cannot find the model 'alpa'. Did you mean 'alpha'?\n")


def test_load_without_waiting(api: AdminApi, at: Command) -> None:
    answer = at("load", "alpha", "--no-wait")
    assert (answer.exit_code, answer.stdout) == (0, "alpha is being loaded.\n")
    assert api.asked == [("/models/load", {"model": "alpha"})]


def test_load_and_wait(api: AdminApi, at: Command) -> None:
    api.statuses = [BUSY]
    answer = at("load", "alpha")
    assert answer.exit_code == 0
    assert answer.stdout.startswith("alpha is loaded (")
    told_ = json.loads(at("load", "alpha", "--json").stdout)
    assert (told_["model"], told_["loaded"]) == ("alpha", True)


def test_load_that_fails(api: AdminApi, at: Command) -> None:
    failure = {"model": "alpha", "kind": "out_of_memory", "cause": "too little memory", "tail": ["cudaMalloc failed"]}
    api.statuses = [status({"name": "alpha"}, failures=[failure])]
    answer = at("load", "alpha")
    assert answer.exit_code == 1
    assert answer.stderr == "cannot load alpha: too little memory\n  cudaMalloc failed\n"
    error = json.loads(at("load", "alpha", "--json").stdout)["error"]
    assert error == {
        "message": "cannot load alpha: too little memory",
        "exit_code": 1,
        "details": ["cudaMalloc failed"],
    }


def test_load_of_an_unknown_model(api: AdminApi, at: Command) -> None:
    api.answers["/models/load"] = (404, {"error": {"message": "cannot find the model 'x'; did you mean y?"}})
    answer = at("load", "x")
    assert (answer.exit_code, answer.stderr) == (4, "cannot find the model 'x'; did you mean y?\n")


def test_unload(api: AdminApi, at: Command) -> None:
    assert at("unload", "alpha").stdout == "alpha leaves as soon as its running answers have ended.\n"
    assert json.loads(at("unload", "alpha", "--json").stdout) == {"model": "alpha", "success": True}
    assert api.asked == [("/models/unload", {"model": "alpha"})] * 2


def test_the_key_is_sent(api: AdminApi, at: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    api.key = "sk-one"
    answer = at("status")
    assert answer.exit_code == 5
    assert "give a key with --key or $LLM_ROUTER_API_KEY" in answer.stderr
    assert at("status", "--key", "sk-one").exit_code == 0
    monkeypatch.setenv("LLM_ROUTER_API_KEY", "sk-one")
    assert at("unload", "x").exit_code == 0


class TestChat:
    def test_one_question(self, api: AdminApi, at: Command) -> None:
        api.chunks = [
            told("Loading alpha: 40 %"),
            told("alpha ready (42 s)", done=True),
            chunk("I am "),
            chunk("alpha"),
            chunk(finish="stop"),
            told("⚡ 45.2 tok/s · 128 tokens · 2.8 s", done=True),
            {"choices": [], "usage": {"completion_tokens": 128}},
        ]
        answer = at("chat", "alpha", "Who are you?", "--system", "Be brief", "--max-tokens", "9", "--temperature", "0")
        assert answer.exit_code == 0
        assert answer.stdout == "I am alpha\n"
        assert answer.stderr == "⚡ 45.2 tok/s · 128 tokens · 2.8 s\n"
        assert api.asked == [
            (
                "/v1/chat/completions",
                {
                    "model": "alpha",
                    "max_tokens": 9,
                    "temperature": 0.0,
                    "messages": [
                        {"role": "system", "content": "Be brief"},
                        {"role": "user", "content": "Who are you?"},
                    ],
                    "stream": True,
                    "stream_options": {"include_usage": True},
                },
            )
        ]

    def test_for_programs(self, api: AdminApi, at: Command) -> None:
        api.chunks = [told("Loading"), chunk("hi"), chunk(finish="stop", usage={"completion_tokens": 1})]
        assert json.loads(at("chat", "alpha", "x", "--json").stdout) == {
            "model": "alpha",
            "content": "hi",
            "finish_reason": "stop",
            "usage": {"completion_tokens": 1},
            "status": ["Loading"],
        }

    def test_the_question_may_come_from_a_pipe(self, api: AdminApi, at: Command) -> None:
        api.chunks = [chunk("hi")]
        assert at("chat", "alpha", stdin="from a pipe").stdout == "hi\n"
        assert api.asked[0][1]["messages"] == [{"role": "user", "content": "from a pipe"}]

    def test_nothing_to_ask(self, at: Command) -> None:
        answer = at("chat", "alpha", stdin=" \n")
        assert (answer.exit_code, answer.stderr) == (
            2,
            "cannot ask nothing: give a prompt, or type one on standard input\n",
        )

    def test_a_refusal(self, api: AdminApi, at: Command) -> None:
        failure = {"kind": "crashed", "cause": "it crashed", "log": ["boom"]}
        error = {"message": "cannot load alpha: it crashed", "failure": failure}
        api.answers["/v1/chat/completions"] = (503, {"error": error})
        answer = at("chat", "alpha", "x")
        assert (answer.exit_code, answer.stderr) == (1, "cannot load alpha: it crashed\n  boom\n")

    def test_an_error_in_the_stream(self, api: AdminApi, at: Command) -> None:
        api.chunks = [chunk("I am"), {"error": {"message": "the engine ended"}}]
        answer = at("chat", "alpha", "x")
        assert (answer.exit_code, answer.stdout) == (1, "I am")
        assert "cannot do this: the engine ended" in answer.stderr

    def test_a_stream_that_breaks_off(self, api: AdminApi, at: Command) -> None:
        api.chunks, api.finishes = [chunk("I am")], False
        answer = at("chat", "alpha", "x")
        assert answer.exit_code == 1
        assert "the connection closed in the middle" in answer.stderr


def test_a_switch_is_a_load_that_is_waited_for(api: AdminApi, at: Command) -> None:
    api.statuses = [status({"name": "beta", "waiting": 1}), status({"name": "beta", "loaded": True})]
    answer = at("switch", "beta")
    assert (answer.exit_code, answer.stdout.startswith("beta is loaded (")) == (0, True)
    assert api.asked[0] == ("/models/load", {"model": "beta"})


def test_a_switch_that_fails_says_why(api: AdminApi, at: Command) -> None:
    api.statuses = [status({"name": "beta"}, failures=[{"model": "beta", "cause": "cannot read /b", "tail": ["end"]}])]
    answer = at("switch", "beta")
    assert (answer.exit_code, answer.stderr) == (1, "cannot read /b\n  end\n")


RELOADED = {"success": True, "summary": "added gamma", "warnings": ["x.yml:1:1: look out"]}


def test_a_reload(api: AdminApi, at: Command) -> None:
    api.answers["/api/reload"] = (200, RELOADED)
    answer = at("reload")
    assert (answer.exit_code, answer.stdout, answer.stderr) == (
        0,
        "reloaded: added gamma.\n",
        "warning: x.yml:1:1: look out\n",
    )
    assert json.loads(at("reload", "--json").stdout) == RELOADED


def test_a_reload_of_a_broken_configuration(api: AdminApi, at: Command) -> None:
    text = "cannot reload, everything stays as it is: x.yml:1:1: cannot use 'servr'"
    api.answers["/api/reload"] = (422, {"error": {"message": text, "code": "broken_configuration"}})
    answer = at("reload")
    assert (answer.exit_code, answer.stderr) == (6, text + "\n")
