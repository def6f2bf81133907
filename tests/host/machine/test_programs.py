import json
import os
import sys
from pathlib import Path

import pytest

from llm_router.host.machine import programs as module
from llm_router.host.machine.programs import Heard, Programs, find_program, options_of


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


async def flags(programs: Programs, engine: Path, *words: str) -> frozenset[str] | None:
    heard = await programs.ask((str(engine), *words))
    assert heard.fault is None
    return heard.flags


def test_options_are_the_words_with_dashes() -> None:
    text = b"usage: x [-h] [--tp-size N]\n  -m, --model FNAME  a file (not a-b)\n --no-mmap=0"
    assert options_of(text) == frozenset({"-h", "--tp-size", "-m", "--model", "--no-mmap"})


async def test_a_program_is_asked_once_until_it_changes(tmp_path: Path) -> None:
    count = tmp_path / "count"
    engine = script(tmp_path / "engine", f'echo x >>{count}; [ "$1 $2" = "serve --help" ] && echo " --port N" >&2')
    programs = Programs(tmp_path / "programs.json")
    assert await flags(programs, engine, "serve", "--help") == frozenset({"--port"})
    assert await flags(programs, engine, "serve", "--help") == frozenset({"--port"})
    assert await flags(Programs(tmp_path / "programs.json"), engine, "serve", "--help") == frozenset({"--port"})
    assert count.read_text() == "x\n"
    script(engine, 'echo " --port N --sleep"')
    os.utime(engine, ns=(1, 1))
    assert await flags(programs, engine, "serve", "--help") == frozenset({"--port", "--sleep"})


async def test_a_help_that_comes_in_pieces_is_read_to_its_end(tmp_path: Path) -> None:
    # The second piece is written when the first one has been read for sure: the pipe is empty again.
    pieces = "import os,fcntl,termios,array,time\nos.write(1, b' --first\\n')\nleft = array.array('i', [1])\n"
    pieces += (
        "while left[0]:\n    fcntl.ioctl(1, termios.FIONREAD, left); time.sleep(0.001)\nos.write(1, b' --second\\n')\n"
    )
    (tmp_path / "pieces.py").write_text(pieces)
    engine = script(tmp_path / "engine", f"exec {sys.executable} {tmp_path / 'pieces.py'}")
    assert await flags(Programs(tmp_path / "programs.json"), engine) == frozenset({"--first", "--second"})


async def test_a_program_without_help_is_no_fault(tmp_path: Path) -> None:
    programs = Programs(tmp_path / "programs.json")
    assert await programs.ask((str(tmp_path / "nothing"),)) == Heard()
    for number, text in enumerate(("exit 3", "echo no GPU; exit 1", "kill -9 $$")):
        assert await programs.ask((str(script(tmp_path / f"silent-{number}", text)),)) == Heard()


async def test_a_program_that_can_never_run_says_why(tmp_path: Path) -> None:
    programs = Programs(tmp_path / "programs.json")
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF nonsense")
    broken.chmod(0o755)
    fault = (await programs.ask((str(broken),))).fault
    assert fault == f"cannot run {broken}: Exec format error; install it anew, or correct `command`"
    python = "Traceback (most recent call last):\nModuleNotFoundError: No module named 'sglang'"
    lacking = script(tmp_path / "lacking", f'echo "{python}" >&2; exit 1')
    fault = (await programs.ask((str(lacking), "--help"))).fault
    assert fault is not None
    assert "No module named 'sglang'; install it there" in fault
    gone = script(tmp_path / "gone", "exec /no/such/interpreter")
    fault = (await programs.ask((str(gone),))).fault
    assert fault is not None
    assert "/no/such/interpreter" in fault
    script(gone, "echo ' --port'")
    assert (await programs.ask((str(gone),))).fault is None


async def test_a_program_that_hangs_is_ended_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELP_LIMIT_S", 0.2)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    engine = script(tmp_path / "engine", f"exec 3>{fifo}; sleep 600 & wait")
    assert await Programs(tmp_path / "programs.json").ask((str(engine),)) == Heard()
    os.set_blocking(reader, True)
    # End of file means that nobody holds the other end any more: the child is gone too.
    assert os.read(reader, 1) == b""
    os.close(reader)


async def test_a_spoilt_memory_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "programs.json").write_text('{"half": ')
    engine = script(tmp_path / "engine", 'echo " --port"')
    programs = Programs(tmp_path / "programs.json")
    assert await flags(programs, engine) == frozenset({"--port"})
    assert json.loads((tmp_path / "programs.json").read_text())


def test_a_program_is_found_on_path_or_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = script(tmp_path / "engine", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_program("engine") == engine
    assert find_program("./engine", str(tmp_path)) == engine
    assert find_program("other") is None
    engine.chmod(0o644)
    assert find_program(str(engine)) is None
