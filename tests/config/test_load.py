import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_router.config.load import Config, parse, parse_parts
from llm_router.config.problems import ConfigError, Place, Problem
from llm_router.config.schema import Document, Entry

ENGINES = ("sglang", "tabbyapi", "llamacpp", "command")

SHELF = """\
server:   {host: 127.0.0.1, port: 8002}
backends:
  sglang:   {command: [/opt/sglang/venv/bin/sglang, serve], port: 30000, args: {sleep-on-idle: true}}
  tabbyapi: {dir: /opt/TabbyAPI, model_dir: /opt/models, port: 5000}
  llamacpp: {command: [/opt/llama.cpp/build/bin/llama-server], port: 8085, load_timeout: 10m}
  old:      {engine: llamacpp}
models:
  mistral:  {backend: sglang, path: /opt/models/Mistral-AWQ, gpus: 4, context: 24576}
  behemoth: {backend: llamacpp, path: /opt/models/behemoth.gguf, aliases: [big], idle: 30m, default: true}
  monstral: {backend: tabbyapi, path: exl2/Monstral}
  my-own:   {backend: command, command: [./serve.sh, "{port}"], health: /health, load_timeout: 5s}
  bare:     {command: serve me}
  older:    {backend: old, path: /x.gguf}
"""


def no_file(path: str) -> str:
    raise FileNotFoundError(2, "No such file or directory", path)


def config(text: str, **more: Any) -> Config:
    return parse(text, "x.yml", {"HOME": "/home/me"}, no_file, ENGINES, **more)


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config(text)
    return [str(item) for item in caught.value.problems]


def test_a_shelf() -> None:
    found = config(SHELF, folder="/etc/llm-router")
    assert found.server.port == 8002
    assert found.backends["sglang"].args == {"sleep-on-idle": True}
    assert found.models["behemoth"].idle == 1800
    assert (found.folder, found.home, found.warnings) == ("/etc/llm-router", "/home/me", ())
    assert found.engine_of("older") == "llamacpp"
    assert found.engine_of("bare") == "command"
    assert found.backend_of("my-own")[0] == "command"
    assert [found.load_timeout(name) for name in ("mistral", "behemoth", "my-own")] == [180, 600, 5]


def test_how_long_an_engine_may_take_to_end() -> None:
    found = config("backends: {llamacpp: {grace: 7s}}\nmodels: {a: {backend: llamacpp, path: x}, b: {command: y}}")
    assert (found.grace("a"), found.grace("b")) == (7.0, None)


def test_names_and_aliases_and_the_default() -> None:
    found = config(SHELF)
    assert [found.resolve(name) for name in ("big", "mistral", "", "nobody")] == [
        "behemoth",
        "mistral",
        "behemoth",
        None,
    ]
    assert config("models: {a: {command: x}}").resolve("") is None


def test_the_backend_may_be_left_out_when_there_is_only_one() -> None:
    found = config("backends: {mine: {engine: llamacpp}}\nmodels: {a: {path: x}}")
    assert found.backend_of("a")[0] == "mine"


def test_a_known_engine_needs_no_entry_under_backends() -> None:
    assert config("models: {a: {backend: llamacpp, path: x}}").engine_of("a") == "llamacpp"


def test_empty_sections_are_empty() -> None:
    found = config("server:\nscheduler:\nbackends:\n  llamacpp:\nmodels:\n")
    assert found.backends["llamacpp"].engine is None
    assert [warning.text.split(":")[0] for warning in found.warnings] == ["no models are configured"]
    assert problems("models:\n  a:\n")[0].startswith("x.yml:2:3: cannot serve the model 'a': it names no `backend`")


def test_shared_pieces_have_a_place() -> None:
    found = config("x-common: &c {backend: llamacpp, idle: 5m}\nmodels: {a: {<<: *c, path: x}}")
    assert found.models["a"].idle == 300


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n...\n"])
def test_an_empty_file_says_what_is_needed(text: str) -> None:
    (said,) = problems(text)
    assert said.startswith("x.yml:1:1: cannot use an empty configuration")
    assert "For example" in said


@pytest.mark.parametrize("text", ["[]", "hello", "5"])
def test_a_file_that_is_no_sections(text: str) -> None:
    assert problems(text) == ["x.yml:1:1: cannot use the configuration: it must be sections (server, backends, models)"]


def test_every_mistake_is_told_at_once() -> None:
    text = """\
servr: {}
server:
  prot: 1
  port: "8002"
backends:
  v: {engine: llamacpp, port: 99999}
models:
  a: {pin: yes}
  a: {}
  b: {path: "x${NOPE}"}
"""
    assert problems(text) == [
        "x.yml:1:1: cannot use 'servr': the configuration has no such key. Did you mean 'server'?",
        "x.yml:3:3: cannot use 'prot': server has no such key. Did you mean 'port'?",
        "x.yml:4:9: cannot use '8002' as server.port: it must be a whole number",
        "x.yml:6:31: cannot use this value of backends.v.port: it must be less than or equal to 65535",
        "x.yml:8:12: cannot use 'yes' as models.a.pin: it must be true or false",
        "x.yml:9:3: cannot use 'a' twice in one place: it stands in line 8 already",
        "x.yml:10:13: cannot expand '${NOPE}': the environment has no NOPE. Set it, or write ${NOPE:-fallback}",
    ]


def test_words_of_a_command_line_win() -> None:
    found = config("server: {keys: [sk-one], port: 9, log_level: debug}\nmodels: {a: {command: x}}")
    changed = found.with_server(host="0.0.0.0", port=10)
    assert (changed.server.host, changed.server.port, changed.server.log_level) == ("0.0.0.0", 10, "debug")
    assert changed.server.keys == found.server.keys
    assert changed.models is found.models
    assert found.with_server() == found


def test_a_command_line_that_opens_the_router_is_warned_of() -> None:
    found = config("server: {allow_remote: true, insecure: true}\nmodels: {a: {command: x}}")
    assert found.warnings == ()
    (warning,) = found.with_server(host="0.0.0.0").warnings
    assert warning.text == "the router listens beyond this machine without keys"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"host": "0.0.0.0"}, "command line:1:1: cannot listen on 0.0.0.0 without keys"),
        ({"log_level": "inof"}, "cannot use 'inof' as log_level: it must be 'debug'"),
        ({"port": 70000}, "cannot use this value of port"),
        ({"prot": 7}, "cannot use 'prot'"),
        ({"keys": "file:x"}, "cannot read the secret file 'x': no file is read here"),
    ],
)
def test_words_of_a_command_line_are_judged_too(words: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config("models: {a: {command: x}}").with_server(**words)


def test_an_engine_may_be_spelled_as_people_do() -> None:
    found = parse("models: {a: {backend: llama.cpp, path: x}, b: {backend: custom, command: y}}", "x", {}, no_file)
    assert (found.engine_of("a"), found.engine_of("b")) == ("llamacpp", "command")
    with pytest.raises(ConfigError, match=r"no backend 'llama.cp'\. Did you mean 'llama.cpp'"):
        parse("models: {a: {backend: llama.cp, path: x}}", "x", {}, no_file)


class TestTwoFiles:
    def both(self, first: str, second: str) -> Config:
        return parse_parts([("config.yml", first), ("models.yml", second)], {}, no_file, ENGINES)

    def said(self, first: str, second: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            self.both(first, second)
        return [str(item) for item in caught.value.problems]

    @pytest.mark.parametrize(
        "second", ["a: {command: x}\nb: {command: y}", "models:\n  a: {command: x}\n  b: {command: y}"]
    )
    def test_models_stand_in_a_file_of_their_own(self, second: str) -> None:
        found = self.both("server: {port: 9}", second)
        assert (found.server.port, sorted(found.models)) == (9, ["a", "b"])

    @pytest.mark.parametrize("first", ["", "models:", "models: {c: {command: z}}"])
    def test_both_may_hold_models(self, first: str) -> None:
        assert "a" in self.both(first, "a: {command: x}").models

    @pytest.mark.parametrize("second", ["", "models:", "models: {}"])
    def test_the_second_may_be_empty(self, second: str) -> None:
        assert list(self.both("models: {c: {command: z}}", second).models) == ["c"]

    def test_a_model_may_be_called_models(self) -> None:
        assert list(self.both("", "models: {command: x}").models) == ["models"]

    def test_mistakes_name_their_own_file(self) -> None:
        assert self.said("serve: {}", "a: {command: x, pni: true}") == [
            "config.yml:1:1: cannot use 'serve': the configuration has no such key. Did you mean 'server'?",
            "models.yml:1:17: cannot use 'pni': models.a has no such key. Did you mean 'pin'?",
        ]
        assert self.said("models: {a: {command: x}}", "models: {a: {command: y}}") == [
            "models.yml:1:10: cannot use the model 'a' twice: it stands in config.yml:1:10 already"
        ]
        assert self.said("", "[]")[0].startswith("models.yml:1:1: cannot use the configuration: it must be sections")
        assert self.said("models: 5", "a: {command: x}")[0].startswith("config.yml:1:9: cannot use 5 as models")


def refused(text: str) -> tuple[Problem, ...]:
    """The mistakes in a text, none if it can be used; any other exception is a bug of ours."""
    try:
        config(text)
    except ConfigError as error:
        return error.problems
    return ()


KEYS = sorted({*Document.model_fields, *Entry.model_fields, *SHELF.replace(":", " ").split()})
SCALARS = [
    "5",
    "-1",
    "1.5",
    "true",
    "null",
    "'x'",
    "[]",
    "[1, a]",
    "{}",
    "{a: {b: 1}}",
    "5m",
    "${X}",
    "&a",
    "*a",
    "!t x",
    "file:x",
    "\t",
    "'",
]


@given(st.data())
@settings(deadline=None)
@pytest.mark.slow
def test_whatever_is_changed_in_a_file_it_is_read_or_refused(data: st.DataObject) -> None:
    text = SHELF
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 12)))
        piece = data.draw(st.sampled_from(SCALARS) | st.sampled_from(KEYS) | st.text(max_size=4))
        text = text[:start] + piece + text[end:]
    for said in refused(text):
        assert said.text.startswith("cannot ")


@given(
    st.dictionaries(
        st.sampled_from([*Document.model_fields, "x"]),
        st.dictionaries(
            st.sampled_from(["host", "port", "keys", "llamacpp", "m"]),
            st.recursive(
                st.sampled_from([None, True, 5, -1, 1.5, "x", "file:x", "5m", "llamacpp"]),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(
                        st.sampled_from(
                            ["backend", "path", "gpus", "env", "args", "command", "request", "key", "aliases", "idle"]
                        ),
                        inner,
                    )
                ),
                max_leaves=8,
            ),
        ),
    )
)
@settings(deadline=None)
@pytest.mark.slow
def test_any_value_in_any_place_is_read_or_refused(document: dict[str, Any]) -> None:
    for said in refused(json.dumps(document)):
        assert said.place == Place("x.yml", 1, said.place.column)
        assert said.text.startswith("cannot ")
