from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_router import app

Command = Callable[..., Any]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """What the command line asked the router for; it ends with code 7 at once."""
    calls: list[tuple[object, ...]] = []

    def serve(path: Path | None, **words: object) -> int:
        calls.append((path, words))
        return 7

    def demo(**words: object) -> int:
        calls.append((words,))
        return 7

    monkeypatch.setattr(app, "serve", serve)
    monkeypatch.setattr(app, "demo", demo)
    return calls


def test_serve(run: Command, asked: list[tuple[object, ...]]) -> None:
    assert run("serve").exit_code == 7
    assert run("serve", "-c", "x.yml", "--host", "::1", "--port", "5", "--log-level", "debug").exit_code == 7
    assert asked == [
        (None, {"host": None, "port": None, "log_level": None}),
        (Path("x.yml"), {"host": "::1", "port": 5, "log_level": "debug"}),
    ]


def test_demo(run: Command, asked: list[tuple[object, ...]]) -> None:
    assert run("demo").exit_code == 7
    run("demo", "--models", "3", "--port", "0", "--folder", "here")
    assert asked == [
        ({"models": 2, "port": 8002, "folder": None},),
        ({"models": 3, "port": 0, "folder": Path("here")},),
    ]


@pytest.mark.parametrize("words", [("--port", "70000"), ("--log-level", "loud"), ("--port", "x")])
def test_wrong_usage(run: Command, asked: list[tuple[object, ...]], words: tuple[str, ...]) -> None:
    assert run("serve", *words).exit_code == 2
    assert asked == []


@pytest.mark.parametrize("content", [None, "servr: {}\nmodels: {a: {command: x}}"])
def test_a_configuration_with_mistakes_starts_nothing(bare_home: Path, run: Command, content: str | None) -> None:
    if content is not None:
        (bare_home / "x.yml").write_text(content)
    answer = run("serve", "--config", "x.yml")
    assert answer.exit_code == 6
    assert "x.yml" in answer.stderr
    assert "cannot use" in answer.stderr
