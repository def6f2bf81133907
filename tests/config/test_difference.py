import pytest

from llm_router.config.difference import AT_START, Difference, difference
from llm_router.config.load import Config, parse
from llm_router.config.schema import Server

BEFORE = """\
server: {port: 1}
backends: {llamacpp: {args: {threads: 4}, grace: 5}}
models:
  a: {backend: llamacpp, path: /a.gguf}
  b: {command: x, idle: 5m}
  c: {command: y}
"""


def config(text: str) -> Config:
    return parse(text, "x.yml", {}, lambda name: name, folder="/etc")


def changes(after: str, begun: str = BEFORE) -> Difference:
    return difference(config(BEFORE), config(after), config(begun))


def test_another_way_to_write_the_same_is_no_change() -> None:
    found = changes(BEFORE.replace("5m", "300").replace("c: {command: y}", "c:\n    command: [y]  # as ever"))
    assert found.nothing
    assert (found.unchanged, str(found)) == (("a", "b", "c"), "nothing changed")


@pytest.mark.parametrize(
    ("was", "becomes", "found"),
    [
        ("/a.gguf", "/z.gguf", Difference(changed=("a",), unchanged=("b", "c"))),
        ("threads: 4", "threads: 5", Difference(changed=("a",), unchanged=("b", "c"))),
        ("grace: 5", "grace: 6", Difference(adjusted=("a",), unchanged=("b", "c"))),
        ("idle: 5m", "idle: 6m, aliases: [z]", Difference(adjusted=("b",), unchanged=("a", "c"))),
        ("c: {command: y}", "d: {command: y}", Difference(added=("d",), removed=("c",), unchanged=("a", "b"))),
        ("port: 1", "port: 2", Difference(unchanged=("a", "b", "c"), needs_restart=("server.port",))),
        ("port: 1", "port: 1, keys: [k], max_body: 5", Difference(unchanged=("a", "b", "c"), settings=("server.keys", "server.max_body"))),
        ("server:", "scheduler: {linger: 9}\nserver:", Difference(unchanged=("a", "b", "c"), settings=("scheduler.linger",))),
    ],
)  # fmt: skip
def test_what_changes(was: str, becomes: str, found: Difference) -> None:
    assert changes(BEFORE.replace(was, becomes)) == found
    assert not found.nothing


def test_what_needs_a_restart_is_told_until_it_comes() -> None:
    assert changes(BEFORE, begun=BEFORE.replace("port: 1", "port: 7")).needs_restart == ("server.port",)


def test_in_words() -> None:
    found = Difference(("a",), ("b", "c"), ("d",), ("e",), ("f",), ("server.keys",), ("server.port",))
    assert str(found) == (
        "added a; removed b, c; changed d; adjusted e; set server.keys; needs a restart of the router: server.port"
    )


def test_the_settings_at_start_are_settings() -> None:
    assert set(AT_START) <= set(Server.model_fields)
