"""Sets the stage: the router with a stand-in engine behind it, whatever it is compared with, and takes it all down.

This file knows how the targets are started and which processes are theirs. It measures nothing.
"""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from bench.machine import listeners, on_cores, tree
from bench.tools import BenchError, Tools

MODEL: Final = "bench"
_START_S: Final = 30.0
_ROUTER_OPENS_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Target:
    """Something that answers at a port. ``roots``: its processes, without children; empty if they are not known."""

    name: str
    port: int
    roots: tuple[int, ...] = ()
    #: The engine behind it, which is not part of it.
    engine: int | None = None

    def pids(self) -> list[int]:
        """Its processes now."""
        without = frozenset(() if self.engine is None else (self.engine,))
        return list(dict.fromkeys(pid for root in self.roots for pid in tree(root, without)))


def free_port() -> int:
    """A port of this machine that nobody has."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def call(port: int, method: str, path: str, body: object = None, timeout_s: float = 10.0) -> tuple[int, Any]:
    """One request; status and parsed answer. Raises ``OSError`` if there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    with contextlib.closing(connection):
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"content-type": "application/json"})
            answer = connection.getresponse()
            data = answer.read()
        except http.client.HTTPException as error:
            raise OSError(f"{error!r}") from error
    try:
        return answer.status, json.loads(data)
    except ValueError:
        return answer.status, data.decode(errors="replace")


def ask(model: str, words: str) -> dict[str, object]:
    """A request's body; ``words`` tells the stand-in engine what to answer."""
    return {"model": model, "max_tokens": 8, "messages": [{"role": "user", "content": words}]}


class Stage:
    """The processes of one benchmark. Use as a context: everything that was started ends with it."""

    def __init__(self, tools: Tools, folder: Path, measured: frozenset[int], rest: frozenset[int]) -> None:
        self.tools = tools
        self.measured = measured
        self.rest = rest
        self._folder = folder
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in reversed(self._started):
            self.stop(process)

    def router(
        self,
        models: Mapping[str, Mapping[str, object]],
        *,
        name: str,
        backends: Mapping[str, object] | None = None,
        scheduler: Mapping[str, object] | None = None,
    ) -> tuple[Target, Path]:
        """Start a router on the measured cores, everything switched on; gives it and its state folder."""
        port = free_port()
        state = self._folder / name
        state.mkdir()
        config = {
            "server": {"port": port, "state_dir": str(state)},
            "scheduler": scheduler or {},
            "backends": backends or {},
            "models": models,
        }
        path = state / "llm-router.yml"
        path.write_text(json.dumps(config), encoding="utf-8")
        process = self.start(name, [sys.executable, "-m", "llm_router", "serve", "--config", str(path)])
        self.wait(process, port, "/health")
        return Target(name, port, (process.pid,)), state

    def start(self, name: str, words: list[str]) -> subprocess.Popen[bytes]:
        """Start a process on the measured cores; what it says goes to a file."""
        with (self._folder / f"{name}.log").open("wb") as log, on_cores(self.measured):
            process = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
        self._started.append(process)
        return process

    def wait(self, process: subprocess.Popen[bytes], port: int, path: str) -> None:
        """Until it answers at all. Raises ``BenchError`` if it ends or takes too long."""
        end = time.monotonic() + _START_S
        while time.monotonic() < end and process.poll() is None:
            with contextlib.suppress(OSError):
                call(port, "GET", path, timeout_s=2.0)
                return
            time.sleep(_ROUTER_OPENS_S)
        words = " ".join(map(str, process.args)) if isinstance(process.args, list) else str(process.args)
        raise BenchError(f"cannot start {words}: {self._last_words() or 'it does not answer'}")

    def _last_words(self) -> str:
        logs = sorted(self._folder.glob("*.log"), key=lambda path: path.stat().st_mtime)
        return logs[-1].read_text(errors="replace").strip()[-2000:] if logs else ""

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """End a process politely, then not."""
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()
        if process in self._started:
            self._started.remove(process)


def main_targets(stage: Stage, port: int, peers: Mapping[str, str]) -> list[Target]:
    """Direct access, the router, the ordinary alternative, and the peers, all in front of one stand-in engine.

    The router starts that engine, as it starts any; ``port`` is where it listens. Raises ``BenchError``.
    """
    if listeners(port):
        raise BenchError(f"cannot use port {port} for the stand-in engine: another process listens there")
    engine = {"command": [str(stage.tools.engine), "{port}"]}
    router, _ = stage.router(
        {MODEL: {"backend": "stand-in"}},
        backends={"stand-in": {"engine": "command", "port": port, **engine}},
        name="router",
    )
    status, answer = call(router.port, "POST", "/v1/chat/completions", ask(MODEL, "bench:0,0,100;"), _START_S)
    if status != 200:
        raise BenchError(f"cannot start the stand-in engine: {answer}")
    engine_pid = listeners(port)[0]
    on_rest(engine_pid, stage.rest)
    targets = [Target("direct", port), Target("router", router.port, router.roots, engine_pid), _plain(stage, port)]
    for name, url in peers.items():
        targets.append(_peer(name, url, port))
    return targets


def on_rest(pid: int, cores: frozenset[int]) -> None:
    """Move a process that was started by another one to these cores."""
    os.sched_setaffinity(pid, cores)


def _plain(stage: Stage, engine_port: int) -> Target:
    port = free_port()
    process = stage.start("plain-asgi", [sys.executable, "-m", "bench.plain_asgi", str(port), str(engine_port)])
    stage.wait(process, port, "/v1/models")
    return Target("plain ASGI", port, (process.pid,))


def _peer(name: str, url: str, engine_port: int) -> Target:
    address = urlsplit(url)
    if address.scheme != "http" or address.hostname not in ("127.0.0.1", "localhost"):
        raise BenchError(f"cannot measure {name} at {url}: a peer runs on this machine, as http://127.0.0.1:PORT")
    port = address.port or 80
    try:
        status, answer = call(port, "POST", "/v1/chat/completions", ask(MODEL, "bench:0,0,100;"), _START_S)
    except OSError as error:
        raise BenchError(f"cannot measure {name}: nothing answers at {url}: {error}") from None
    if status != 200:
        raise BenchError(
            f"cannot measure {name}: it answers {status}: {answer}; let it pass requests for the model {MODEL!r}"
            f" on to http://127.0.0.1:{engine_port}"
        )
    return Target(name, port, tuple(listeners(port)))
