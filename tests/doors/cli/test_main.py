import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_router import __version__
from llm_router.doors.cli import main, steering

Command = Callable[..., Any]


@pytest.mark.parametrize("words", [("version",), ("--version",)])
def test_version(run: Command, words: tuple[str, ...]) -> None:
    assert run(*words).stdout == f"llm-router {__version__}\n"
    assert run("version", "--json").stdout == f'{{\n  "version": "{__version__}"\n}}\n'


def test_a_word_that_is_no_command(run: Command) -> None:
    answer = run("lod")
    assert answer.exit_code == 2
    assert "Did you mean 'load'" in answer.stderr


def test_ctrl_c_has_its_own_code(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(steering, "router", interrupted)
    assert run("status").exit_code == 130


def test_a_fault_of_ours_is_a_sentence_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> None:
        raise RuntimeError("oh no")

    monkeypatch.setattr(main, "app", broken)
    monkeypatch.delenv("LLM_ROUTER_TRACEBACK", raising=False)
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 1
    assert "a fault in llm-router (RuntimeError: oh no)" in capsys.readouterr().err
    monkeypatch.setenv("LLM_ROUTER_TRACEBACK", "1")
    with pytest.raises(RuntimeError, match="oh no"):
        main.main()


@pytest.mark.slow
def test_what_only_some_commands_need_is_imported_only_by_them() -> None:
    """``serve`` lives for weeks with what its process imported."""
    code = (
        "import sys; import llm_router.doors.cli.main as m;"
        "print(sorted({name.partition('.')[0] for name in sys.modules}"
        " & {'rich', 'httpx2', 'pydantic', 'ruamel', 'psutil', 'uvicorn', 'starlette', 'asyncio'}))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert shown.stdout == "[]\n"


@pytest.mark.slow
def test_the_installed_command(bare_home: Path) -> None:
    program = Path(sys.executable).with_name("llm-router")
    env = {**os.environ, "LLM_ROUTER_URL": "http://127.0.0.1:1"}
    shown = subprocess.run([program, "status"], capture_output=True, text=True, timeout=30, env=env, check=False)
    assert shown.returncode == 3
    assert shown.stderr.startswith("cannot reach the router at http://127.0.0.1:1: nothing listens there.")
    assert "Traceback" not in shown.stderr
