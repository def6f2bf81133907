"""The two small C programs of the benchmark, compiled when they are needed.

This file knows where sources and programs are and how the load generator is asked. It refuses to know what is
measured with it.
"""

import hashlib
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import platformdirs

from bench.machine import on_cores

_SOURCES: Final = Path(__file__).parent
_COMPILERS: Final = ("cc", "gcc", "clang")


class BenchError(Exception):
    """The benchmark cannot go on; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Tools:
    """The compiled programs."""

    engine: Path
    load: Path


def build(folder: Path | None = None) -> Tools:
    """Compile what is not there yet, into ``folder`` (default: the user's cache). Raises ``BenchError``."""
    folder = folder or platformdirs.user_cache_path("llm-router") / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    return Tools(_compiled("engine", folder), _compiled("load", folder))


def _compiled(name: str, folder: Path) -> Path:
    """The program of this very source: a changed source is another program."""
    texts = [(_SOURCES / source).read_bytes() for source in ("common.h", f"{name}.c")]
    program = folder / f"{name}-{hashlib.sha256(b''.join(texts)).hexdigest()[:12]}"
    if program.exists():
        return program
    compiler = os.environ.get("CC") or next(filter(shutil.which, _COMPILERS), None)
    if compiler is None:
        raise BenchError(
            "cannot build the load generator: there is no C compiler; on Debian or Ubuntu type: apt-get install gcc libc6-dev"
        )
    made = program.with_suffix(".new")
    done = subprocess.run(
        [compiler, "-O2", "-o", made, _SOURCES / f"{name}.c"], check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise BenchError(f"cannot build {name}.c with {compiler}: {done.stderr.strip()}")
    made.replace(program)
    return program


@dataclass(frozen=True, slots=True)
class Load:
    """What the load generator is to do: so many connections, requests or seconds, bytes of a body, and for streams
    the number of events, the pause between them (microseconds) and their bytes. ``rest_ms``: read nothing so long."""

    connections: int = 1
    requests: int | None = None
    seconds: float | None = None
    body: int = 1000
    events: int = 0
    pause_us: int = 0
    size: int = 500
    rest_ms: int = 0

    def words(self, port: int, model: str) -> list[str]:
        """The options for the program."""
        words = ["-p", str(port), "-m", model, "-c", str(self.connections), "-b", str(self.body)]
        words += ["-e", f"{self.events},{self.pause_us},{self.size}", "-w", str(self.rest_ms)]
        if self.requests is not None:
            words += ["-n", str(self.requests)]
        if self.seconds is not None:
            words += ["-d", f"{self.seconds:g}"]
        return words


def start_load(tools: Tools, load: Load, port: int, model: str, cores: frozenset[int]) -> subprocess.Popen[str]:
    """Start the load generator."""
    with on_cores(cores):
        return subprocess.Popen([tools.load, *load.words(port, model)], stdout=subprocess.PIPE, text=True)


def finish_load(process: subprocess.Popen[str], timeout_s: float) -> dict[str, Any]:
    """What the load generator found. Raises ``BenchError`` if it does not end in time or fails."""
    try:
        out, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise BenchError(f"cannot measure: the answers did not end within {timeout_s:.0f} s") from None
    if process.returncode:
        raise BenchError(f"cannot measure: the load generator ended with {process.returncode}")
    found: dict[str, Any] = json.loads(out)
    return found
