"""The configuration's rules for clients become the road's manners."""

import pytest

from llm_router.config.load import Config, parse
from llm_router.config.problems import ConfigError
from llm_router.doors.habits import manners
from llm_router.formats.recognise import Recognised
from llm_router.formats.words import Format, Kind


def config(text: str) -> Config:
    return parse(text, "x.yml", {"HOME": "/"}, lambda path: path, ["llamacpp", "command"])


TEXT = """
server:
  status: content
  plain_lines: true
  background: steer
  hold: 30s
  keep_alive: true
  load_timeout: 2m
  clients:
    - {user_agent: sillytavern, status: reasoning}
    - {user_agent: /Roo(Code)?/, status: "off", background: true, keep_alive: false}
backends: {llamacpp: {}}
models:
  a:
    {path: /a.gguf, status: comment, background: refuse, always_background: true, merge_user_messages: true,
     load_timeout: 9m, request: {force: {temperature: 1}, default: {top_p: 0.9}, drop: [seed]}}
  b: {path: /b.gguf}
"""


def test_everything_arrives() -> None:
    kinds = {"b": Recognised("b", "/b.gguf", Format.gguf, Kind.embedding)}
    found = manners(config(TEXT), kinds)
    assert (found.status, found.plain_lines, found.background) == ("content", True, "steer")
    assert (found.hold_s, found.keep_alive) == (30.0, True)
    silly, roo = found.clients
    assert (silly.status, silly.background, silly.keep_alive) == ("reasoning", False, None)
    assert (roo.status, roo.background, roo.keep_alive) == ("off", True, False)
    assert found.of_client({b"user-agent": b"SillyTavern/1"}) is silly
    assert found.of_client({b"user-agent": b"node RooCode/3"}) is roo
    a, b = found.of_model("a"), found.of_model("b")
    assert (a.status, a.background, a.always_background, a.merge) == ("comment", "refuse", True, True)
    assert (a.limit_s, b.limit_s) == (540.0, 120.0)
    assert (a.chats, b.chats) == (True, False)
    assert a.rules.drop > {"seed"}
    assert {"num_ctx"} <= b.rules.drop


def test_without_a_word_the_defaults_hold() -> None:
    found = manners(config("models: {a: {command: [x]}}"), {})
    assert (found.status, found.background, found.hold_s, found.keep_alive) == ("event", "ride", None, False)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("server: {clients: [{user_agent: '/(/'}]}", "cannot use '/(/' as a pattern"),
        ("server: {clients: [{agent: x}]}", "user_agent"),
        ("server: {hold: 0}", "hold"),
        ("server: {status: loud}", "content"),
        ("models: {a: {command: [x], request: {force: {model: b}}}}", "cannot force 'model'"),
        ("models: {a: {command: [x], request: {default: {n_ctx: 5}}}}", "never changes the context"),
    ],
)
def test_what_cannot_be_is_said_when_it_is_read(text: str, part: str) -> None:
    with pytest.raises(ConfigError) as wrong:
        config(text)
    assert part in str(wrong.value)
