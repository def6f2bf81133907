"""What exists is documented: paths, headers, errors, words, keys, commands, tables, engines."""

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from enum import Enum
from typing import Any, get_args

import pytest
import typer
from starlette.routing import Route

from llm_router.config.schema import Server, json_schema
from llm_router.core.commands import Command
from llm_router.core.events import Event
from llm_router.core.instance import State, Why
from llm_router.core.words import DETERMINISTIC, EndReason, FailureKind, Outcome, Reason, Stage
from llm_router.doors import api
from llm_router.doors.cli.main import app
from llm_router.engines import registry
from llm_router.host.history import SCHEMA
from llm_router.wire import access, errors, openai, paths
from support.documents import DOCS, REFERENCE, ROOT, links, named

HTTP = REFERENCE / "http-api.md"
WORDS = REFERENCE / "words.md"
SOURCE = ROOT / "src" / "llm_router"


def test_every_path_of_a_model_request() -> None:
    here = named(HTTP)
    known = {path.decode() for path in (*paths._EXACT, *paths._BELOW)}
    assert known <= here
    assert any(word.startswith(paths._RAW.decode()) for word in here)


def test_every_path_of_the_ordinary_door() -> None:
    here = named(HTTP)
    nobody: Any = api.Door(*[None for _ in fields(api.Door)])  # type: ignore[arg-type]  # nobody comes in
    routes = [route for route in api.build(nobody).routes if isinstance(route, Route)]
    shown = {re.sub(r"\{.*?\}", "NAME", route.path) for route in routes}
    assert shown
    assert shown <= here


def test_every_header_of_our_own() -> None:
    text = HTTP.read_text(encoding="utf-8").lower()
    written = "".join(path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py"))
    ours = set(re.findall(r"""b"(x-(?:llm-)?router-[a-z-]*[a-z])\b""", written)) | set(access.EXPOSED)
    assert len(ours) > 5
    assert {header for header in ours if f"`{header}" not in text} == set()


def codes() -> Iterator[str]:
    """The codes that faults are made with: a constant in second place, or what stands for it."""
    makers = {"Fault": 1, "_bad": 1, "bad": 1, "BadRequestError": 1, "engine": 0, "Trouble": 0}
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name not in makers or len(node.args) <= makers[name]:
                continue
            code = node.args[makers[name]]
            if isinstance(code, ast.Constant) and isinstance(code.value, str):
                yield code.value
    yield from (code for _, code in errors._REFUSALS.values())
    yield from (code for code, _ in errors._ENDS.values())


def test_every_error_code() -> None:
    found = set(codes())
    assert {"model_not_found", "queue_full", "engine_unreachable", "stalled", "body_too_large"} <= found
    assert found - named(HTTP) == set()


@pytest.mark.parametrize("words", [State, Why, Stage, Reason, EndReason, Outcome, FailureKind])
def test_every_word(words: type[Enum]) -> None:
    assert {word.value for word in words} - named(WORDS) == set()


def test_which_failures_would_happen_again() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (yes|no) \|", WORDS.read_text(encoding="utf-8"), re.MULTILINE)
    assert dict(rows) == {kind.value: "yes" if kind in DETERMINISTIC else "no" for kind in FailureKind}


def test_every_event_and_command() -> None:
    kinds = {kind.__name__ for kind in (*get_args(Event), *get_args(Command))}
    assert kinds - named(REFERENCE / "journal.md") == set()


def test_every_key_of_the_configuration() -> None:
    schema = json_schema()
    keys = {key for section in schema["$defs"].values() for key in section.get("properties", {})}
    assert len(keys) > 50
    assert keys - named(REFERENCE / "configuration.md") == set()


def test_the_keys_that_pages_speak_of_exist() -> None:
    schema = json_schema()
    keys = {key for section in (schema, *schema["$defs"].values()) for key in section.get("properties", {})}
    for page in (DOCS / "how-to").glob("*.md"):
        spoken = {found[1] for words in named(page) if (found := re.match(r"([a-z_]+): ", words))}
        assert spoken <= keys, f"{page.name} speaks of keys that are not there"


def test_every_way_to_tell_a_waiting_client() -> None:
    modes = set(get_args(Server.model_fields["status"].annotation))
    assert "event" in modes
    assert modes - named(REFERENCE / "status.md") == set()


def test_every_background_task() -> None:
    assert set(openai.BACKGROUND_TASKS) - named(HTTP) == set()


def test_every_command() -> None:
    headings = re.findall(r"^## `llm-router ([^`]+)`$", (REFERENCE / "cli.md").read_text("utf-8"), re.MULTILINE)
    root: Any = typer.main.get_command(app)
    for name, command in root.commands.items():
        for inner in getattr(command, "commands", {"": None}):
            assert any(f"{heading} ".startswith(f"{name} {inner} ".replace("  ", " ")) for heading in headings)


def test_every_column_of_the_history() -> None:
    columns = set(re.findall(r"^  (\w+)\s+(?:INTEGER|REAL|TEXT)", SCHEMA, re.MULTILINE))
    assert "tokens_per_s" in columns
    assert columns - named(REFERENCE / "state-folder.md") == set()


@pytest.mark.parametrize("engine", registry.names())
def test_every_engine_has_a_page(engine: str) -> None:
    name = "tabbyapi" if engine == "tabbyapi-exl2" else engine
    page = REFERENCE / "engines" / f"{name}.md"
    assert page.exists()
    assert engine in page.read_text(encoding="utf-8")
    assert page.name in links(REFERENCE / "engines" / "README.md")
    assert f"docs/reference/engines/{page.name}" in links(ROOT / "README.md")
    assert {engine, name} <= named(REFERENCE / "engines" / "README.md")
