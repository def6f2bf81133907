"""What the fake engines share: a small HTTP server of exact bytes, time, logs, children. Speech is in speaking.py.

Standard library only. A fake is one real process; what makes an engine that engine (when its port opens, its
bodies, log lines and way to end) is in the fake's own file. Behaviour on demand comes by environment:
``FAKE_SPEED`` divides all times, ``FAKE_TRAP`` names what goes wrong (comma-separated), ``FAKE_SAYS`` is the
sentence, ``FAKE_TOKENS_PER_S`` the pace before the speed.
"""

import asyncio
import contextlib
import ctypes
import json
import os
import re
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

_TASKS: set[asyncio.Task[None]] = set()
PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15
REASONS = {
    200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
    422: "Unprocessable Entity", 500: "Internal Server Error", 503: "Service Unavailable",
}  # fmt: skip


@dataclass(frozen=True)
class Script:
    """How this fake behaves."""

    speed: float = 1.0
    traps: frozenset[str] = frozenset()
    says: str = "I am a fake, a demo model."
    tokens_per_s: float = 50.0

    @classmethod
    def from_environment(cls, model: str) -> "Script":
        return cls(
            float(os.environ.get("FAKE_SPEED", "1")),
            frozenset(filter(None, os.environ.get("FAKE_TRAP", "").split(","))),
            os.environ.get("FAKE_SAYS") or f"I am {model}, a demo model.",
            float(os.environ.get("FAKE_TOKENS_PER_S", "50")),
        )

    def has(self, trap: str) -> bool:
        return trap in self.traps

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self.speed)

    def pauses(self, seconds: float) -> Callable[[], Awaitable[None]]:
        return lambda: self.pause(seconds)

    @property
    def pieces(self) -> list[str]:
        return re.findall(r"\s*\S+", self.says)


def say(line: str) -> None:
    """One line of the log, at once."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


async def bar(states: Iterable[str], pause: Callable[[], Awaitable[None]]) -> None:
    """A progress bar: its states as they come, each after a carriage return, as off a terminal."""
    for state in states:
        sys.stderr.write(f"\r{state}")
        sys.stderr.flush()
        await pause()
    sys.stderr.write("\n")
    sys.stderr.flush()


# Processes


def name_process(title: str, die_with_parent: int = 0) -> None:
    """Give this process a title (the kernel keeps 15 bytes); optionally a signal at its parent's end."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_NAME, title.encode()[:15], 0, 0, 0)
    if die_with_parent:
        libc.prctl(PR_SET_PDEATHSIG, die_with_parent, 0, 0, 0)


def spawn(title: str, die_with_parent: int = 0, then: Callable[[], None] = signal.pause) -> int:
    """A child with a title that does nothing until a signal ends it; call before any event loop runs."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    with contextlib.suppress(BaseException):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        name_process(title, die_with_parent)
        if os.getppid() == parent:
            then()
    os._exit(0)


def gone(pid: int) -> bool:
    """Whether this child has ended; it is reaped then."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def hold(size: int | None = None) -> None:
    """Take so many bytes of each visible GPU of the machine in ``FAKE_GPUS``; by default ``FAKE_GPU_BYTES``."""
    folder, visible = os.environ.get("FAKE_GPUS"), os.environ.get("CUDA_VISIBLE_DEVICES", "")
    size = int(os.environ.get("FAKE_GPU_BYTES", "0")) if size is None else size
    if folder and visible:
        taken = dict.fromkeys(visible.split(","), size)
        whole = Path(folder, f"{os.getpid()}.part")
        whole.write_text(json.dumps(taken))
        whole.rename(whole.with_suffix(""))


# HTTP


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body as an object; ``{}`` when it is none."""
        with contextlib.suppress(ValueError):
            parsed = json.loads(self.body)
            if isinstance(parsed, dict):
                return parsed
        return {}

    @property
    def bearer(self) -> str | None:
        kind, _, key = self.headers.get("authorization", "").partition(" ")
        return key if kind.lower() == "bearer" else None


class ClientLeftError(Exception):
    """The client closed its side."""


class OverError(Exception):
    """The answer ended before the sentence did, and all of it is written."""


class Exchange:
    """One request and its answer on a connection."""

    def __init__(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.request = request
        self._reader = reader
        self._writer = writer
        self._streaming = False
        self.cut = False

    @property
    def left(self) -> bool:
        return self._reader.at_eof() or self._writer.is_closing()

    async def until_left(self) -> None:
        """Say nothing more; ends with the connection."""
        await self._reader.read(1)
        raise ClientLeftError

    async def send(
        self, status: int, body: object = b"", headers: Mapping[str, str] | None = None, kind: str = "application/json"
    ) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body, separators=(",", ":")).encode()
        fields = {"content-length": str(len(content)), **({"content-type": kind} if content else {}), **(headers or {})}
        self._head(status, fields)
        self._writer.write(content)
        await self._drain()

    async def stream(self, status: int = 200, kind: str = "text/event-stream; charset=utf-8") -> None:
        self._head(status, {"content-type": kind, "transfer-encoding": "chunked"})
        self._streaming = True
        await self._drain()

    async def write(self, data: bytes) -> None:
        if self.left:
            raise ClientLeftError
        self._writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        await self._drain()

    async def event(self, content: object, end: bytes = b"\n") -> None:
        """One server-sent event; text is written as it is."""
        text = content if isinstance(content, str) else json.dumps(content, separators=(",", ":"))
        await self.write(b"data: " + text.encode() + end + end)

    async def finish(self) -> None:
        """The proper end of a stream."""
        if self._streaming:
            self._writer.write(b"0\r\n\r\n")
            await self._drain()

    def hang_up(self) -> None:
        """Close the connection after what was said."""
        self.cut = True
        self._writer.close()

    def abort(self) -> None:
        """Cut the connection in the middle of whatever is being said."""
        self.cut = True
        self._writer.transport.abort()

    def _head(self, status: int, fields: Mapping[str, str]) -> None:
        lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}", *(f"{k}: {v}" for k, v in fields.items())]
        self._writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())

    async def _drain(self) -> None:
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()


Handler = Callable[[Exchange], Awaitable[None]]


@dataclass
class Server:
    """An HTTP server with an answer for each ``METHOD /path``; ``fallback`` answers the rest.

    ``open`` are the exchanges under way, ``first`` is called once with the first request.
    """

    routes: dict[str, Handler]
    fallback: Handler
    before: Callable[[Exchange], Awaitable[bool]] | None = None
    open: set[Exchange] = field(default_factory=set)
    _server: asyncio.Server | None = None
    _quieter: asyncio.Event = field(default_factory=asyncio.Event)

    async def listen(self, bound: socket.socket) -> None:
        self._server = await asyncio.start_server(self._serve, sock=bound, backlog=2048)

    def close(self) -> None:
        """No new connections; those that are open go on."""
        if self._server:
            self._server.close()

    async def idle(self) -> None:
        """Return when no exchange is open."""
        while self.open:
            self._quieter.clear()
            await self._quieter.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ClientLeftError):
            while request := await read_request(reader):
                exchange = Exchange(request, reader, writer)
                self.open.add(exchange)
                try:
                    await self._answer(exchange)
                finally:
                    self.open.discard(exchange)
                    self._quieter.set()
                if exchange.cut:
                    return
        with contextlib.suppress(ConnectionError):
            writer.close()

    async def _answer(self, exchange: Exchange) -> None:
        if self.before is None or await self.before(exchange):
            handler = self.routes.get(f"{exchange.request.method} {exchange.request.path}", self.fallback)
            with contextlib.suppress(OverError):
                await handler(exchange)


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """The next request of a connection, ``None`` at its end."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").strip().split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    url = urlsplit(target)
    return Request(method, url.path, parse_qs(url.query), headers, body)


def bind(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet: connections are refused, and nobody else can have the port."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound


def taken(host: str, port: int) -> bool:
    """Whether somebody listens there."""
    with contextlib.closing(socket.socket()) as probe:
        return probe.connect_ex((host, port)) == 0


def on_signal(number: int, action: Callable[[], None]) -> None:
    asyncio.get_running_loop().add_signal_handler(number, action)


def start(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task beside the main one; a fake has no host that would name and keep it."""
    task = asyncio.get_running_loop().create_task(work)
    _TASKS.add(task)
    return task


async def for_ever() -> None:
    """Do not come back."""
    await asyncio.Event().wait()


def end_by(number: int) -> None:
    """Die of this signal, as an engine that puts the default action back and raises it again."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
