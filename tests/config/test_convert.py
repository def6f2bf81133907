import pytest

from llm_router.config.convert import convert, write
from llm_router.config.old import Note
from llm_router.config.problems import ConfigError


def test_a_note_stands_above_its_key() -> None:
    written = write(
        {"server": {"port": 1}, "models": {}}, [Note(("server", "port"), "Why."), Note((), "All.")], ["Head"]
    )
    assert written == "# Head\n# All.\n\nserver:\n  # Why.\n  port: 1\n"


def test_a_note_on_what_is_not_there_is_left_out() -> None:
    assert write({"a": {"b": 1}}, [Note(("a", "c", "d"), "x"), Note(("a", "b", "c"), "x")], []) == "a:\n  b: 1\n"


def test_texts_stay_texts_and_commands_one_line() -> None:
    long = "/a/very/long/path/" * 12
    written = write({"a": {"x": "1e5", "y": "on", "z": [long, "{port}", 5]}}, [], [])
    assert written == f"a:\n  x: \"1e5\"\n  y: on\n  z: [{long}, '{{port}}', 5]\n"


def test_secrets_of_the_environment_are_not_written_down() -> None:
    written = convert(
        [("x.yml", "router_port: 1\nmodels: {a: {backend: sglang, model_path: '${DIR}/a'}}")], {"DIR": "/secret"}
    )
    assert "path: ${DIR}/a" in written
    assert "/secret" not in written


def test_what_is_native_already() -> None:
    with pytest.raises(ConfigError, match=r"x.yml:1:1: cannot convert this file: it is in the present layout already"):
        convert([("x.yml", "models: {}")], {})
