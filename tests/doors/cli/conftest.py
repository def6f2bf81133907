from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
from typer.testing import CliRunner

from fakes.admin_api import AdminApi, running
from llm_router.doors.cli import loading
from llm_router.doors.cli.main import app


class Answer(Protocol):
    """What a command did."""

    @property
    def exit_code(self) -> int: ...
    @property
    def stdout(self) -> str: ...
    @property
    def stderr(self) -> str: ...


class Command(Protocol):
    def __call__(self, *words: str, stdin: str | None = None) -> Answer: ...


@pytest.fixture(autouse=True)
def bare_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nobody's home: no configuration, no address, no key of the one who runs the tests."""
    for name in ("LLM_ROUTER_URL", "LLM_ROUTER_API_KEY", "LLM_ROUTER_CONFIG", "ROUTER_CONFIG", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "POLL_S", 0.01)
    return tmp_path


@pytest.fixture
def api() -> Iterator[AdminApi]:
    with running(AdminApi()) as found:
        yield found


@pytest.fixture
def run() -> Command:
    """The command line in this process, with its own standard streams."""

    def call(*words: str, stdin: str | None = None) -> Answer:
        return CliRunner().invoke(app, list(words), input=stdin, catch_exceptions=False)

    return call


@pytest.fixture
def at(api: AdminApi, monkeypatch: pytest.MonkeyPatch, run: Command) -> Command:
    """The same, speaking to the fake router."""
    monkeypatch.setenv("LLM_ROUTER_URL", api.url)
    return run
