"""What an installed engine understands: its options, read from ``--help`` once and remembered until it changes.

It runs the program for its help text and keeps the words that look like options; what they mean is the
adapter's business. A program that has no help is no error; one that surely cannot run is, and says why.
"""

import asyncio
import contextlib
import json
import logging
import os
import re
import shutil
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

#: The help of an engine that imports its whole framework first takes a while (seconds).
HELP_LIMIT_S: Final = 90.0
HELP_BYTES: Final = 4 * 1024 * 1024
#: The shell's codes for what it found and could not run, or did not find (POSIX, 2.8.2).
_CANNOT_RUN: Final = frozenset({126, 127})
#: A Python program without what it needs. Other errors of a help without GPUs say nothing of a start.
_LACKS: Final = re.compile(rb"^(ModuleNotFoundError: .+)$", re.MULTILINE)
_OPTION: Final = re.compile(rb"(?<![\w-])(--?[A-Za-z][\w-]*)")


def find_program(word: str, cwd: str | None = None) -> Path | None:
    """The executable file that this first word of a command means, ``None`` if there is none."""
    if "/" in word:
        path = Path(cwd or ".", word)
        return path if path.is_file() and os.access(path, os.X_OK) else None
    found = shutil.which(word)
    return Path(found) if found else None


def options_of(text: bytes) -> frozenset[str]:
    """All words of a help text that look like options, with their dashes."""
    return frozenset(match.decode() for match in _OPTION.findall(text))


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of asking a program. ``fault`` is why it can never run, in words, ``None`` if it may."""

    flags: frozenset[str] | None = None
    fault: str | None = None


class Programs:
    """Remembers the options of each command, in memory and in ``path``, by the program's size and time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, dict[str, object]] = {}
        self._asking: dict[str, asyncio.Lock] = {}
        try:
            loaded = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        except (OSError, ValueError, RecursionError) as error:
            log.warning("cannot read %s: %s; the engines are asked for their options again", path, error)
            return
        if isinstance(loaded, dict):
            self._known = {key: value for key, value in loaded.items() if isinstance(value, dict)}

    async def ask(self, argv: Sequence[str], cwd: str | None = None) -> Heard:
        """The options that this command, its word for help included, prints; ``flags`` ``None`` if it names none."""
        program = find_program(argv[0], cwd)
        if program is None:
            return Heard()
        stat = program.stat()
        stamp = f"{stat.st_mtime_ns} {stat.st_size}"
        key = json.dumps([str(program), *argv[1:]])
        async with self._asking.setdefault(key, asyncio.Lock()):
            known = self._known.get(key)
            if known is None or known.get("stamp") != stamp:
                text, fault = await _help((str(program), *argv[1:]), cwd)
                if fault is not None:
                    # Not remembered: what it lacks may be installed without a change of the program.
                    return Heard(fault=f"cannot run {program}: {fault}")
                known = {"stamp": stamp, "flags": sorted(options_of(text))}
                self._known[key] = known
                self._save()
        flags = known.get("flags")
        return Heard(frozenset(map(str, flags)) if isinstance(flags, list) and flags else None)

    def _save(self) -> None:
        part = self._path.with_suffix(".part")
        try:
            part.write_text(json.dumps(self._known), encoding="utf-8")
            part.replace(self._path)
        except OSError as error:
            log.warning(
                "cannot remember what the engines understand in %s: %s; they are asked again next time",
                self._path,
                error,
            )


async def _help(argv: Sequence[str], cwd: str | None) -> tuple[bytes, str | None]:
    """What the command prints, nothing when it does not end in time, and why it cannot be run."""
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            cwd=cwd,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "NO_COLOR": "1", "COLUMNS": "200", "HF_HUB_OFFLINE": "1"},
        )
    except OSError as error:
        return b"", f"{error.strerror or error}; install it anew, or correct `command`"
    assert process.stdout is not None
    ended = False
    try:
        async with asyncio.timeout(HELP_LIMIT_S):
            text = await _whole(process.stdout)
            await process.wait()
            ended = True
    except TimeoutError:
        log.warning("%s --help did not end within %.0f s; its options are not known", argv[0], HELP_LIMIT_S)
        return b"", None
    finally:
        if not ended:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return text, _fault(text, process.returncode)


async def _whole(reader: asyncio.StreamReader) -> bytes:
    """All that comes; a single read gives what happens to be there."""
    text = bytearray()
    while len(text) < HELP_BYTES and (piece := await reader.read(HELP_BYTES)):
        text += piece
    return bytes(text)


def _fault(text: bytes, code: int | None) -> str | None:
    """Why a program that printed this and ended so can never run, ``None`` if it may."""
    if code and not options_of(text) and (lack := _LACKS.search(text)):
        return f"{lack[1].decode('utf-8', 'replace')}; install it there, or correct `command`"
    if code in _CANNOT_RUN and not options_of(text):
        said = text.decode("utf-8", "replace").strip().splitlines()
        return f"{said[-1] if said else f'exit code {code}'}; install it anew, or correct `command`"
    return None
