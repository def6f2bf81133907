"""An engine on the level of bytes: a real socket whose every byte a test decides. It knows HTTP only as far as requests go."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Self, cast

from llm_router.host.machine.tasks import Tasks


@dataclass(frozen=True)
class Seen:
    """One request as it came over the wire. Header names are in lower case."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    def json(self) -> dict[str, object]:
        value = json.loads(self.body)
        assert isinstance(value, dict)
        return value


class Talk:
    """One request being answered: what a script may do with its connection."""

    def __init__(self, connection: "_Connection", request: Seen) -> None:
        self._connection = connection
        self.request = request
        #: Set when the other side closed the connection.
        self.gone = connection.gone

    async def send(self, data: bytes) -> None:
        await self._connection.writable.wait()
        if not self.gone.is_set():
            self._connection.transport.write(data)

    async def json(self, value: object, status: str = "200 OK", extra: bytes = b"") -> None:
        body = json.dumps(value).encode()
        head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n"
        await self.send(head % (status.encode(), extra, len(body)) + body)

    async def events(self, *blocks: bytes, end: bool = True) -> None:
        """A chunked event stream; each block is a chunk of its own."""
        await self.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for block in blocks:
            await self.chunk(block)
        if end:
            await self.send(b"0\r\n\r\n")

    async def chunk(self, block: bytes) -> None:
        await self.send(b"%x\r\n%b\r\n" % (len(block), block))

    def close(self) -> None:
        self._connection.transport.close()

    def abort(self) -> None:
        self._connection.transport.abort()

    def pause(self) -> None:
        """Read no more of the other side."""
        self._connection.transport.pause_reading()


Script = Callable[[Talk], Awaitable[None]]


class Backend:
    """Listens on a port of its own and plays ``script`` for each request.

    ``left`` counts the requests whose client went away before the script was through.
    """

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[Seen] = []
        self.connections = 0
        self.left = 0
        self.port = 0
        #: Whether bodies are read; else a request is taken by its head, and the rest stays on the wire.
        self.greedy = True
        self.tasks = Tasks("backend")
        self.open: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def close(self) -> None:
        """Listen no more; the connections there are stay."""
        assert self._server is not None
        self._server.close()

    async def __aexit__(self, *_: object) -> None:
        self.close()
        for connection in tuple(self.open):
            connection.transport.abort()
        await self.tasks.aclose()


class _Connection(asyncio.Protocol):
    """Takes requests of known length, one after the other."""

    transport: asyncio.Transport

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.bytes = bytearray()
        self._busy = False
        self.gone = asyncio.Event()
        self.writable = asyncio.Event()
        self.writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._backend.connections += 1
        self._backend.open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._backend.open.discard(self)
        self._backend.left += self._busy
        self.gone.set()
        self.writable.set()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        self.bytes += data
        self._next()

    def _next(self) -> None:
        if not self._busy and (seen := _take(self.bytes, self._backend.greedy)) is not None:
            if not self._backend.greedy:
                self.transport.pause_reading()
            self._busy = True
            self._backend.requests.append(seen)
            self._backend.tasks.spawn("script", self._play(seen))

    async def _play(self, seen: Seen) -> None:
        await self._backend.script(Talk(self, seen))
        self._busy = False
        self._next()


def _take(data: bytearray, greedy: bool) -> Seen | None:
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    first, *lines = data[:end].decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    headers = [(name.lower(), value) for name, value in (line.split(": ", 1) for line in lines)]
    length = next((int(value) for name, value in headers if name == "content-length"), 0) if greedy else 0
    if len(data) < end + 4 + length:
        return None
    body = bytes(data[end + 4 : end + 4 + length])
    del data[: end + 4 + length]
    return Seen(method, target, headers, body)


def chunk(text: str | None = None, finish: str | None = None, **more: object) -> bytes:
    """One chat chunk as an event."""
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    value = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **more}
    return b"data: %b\n\n" % json.dumps(value).encode()


DONE = b"data: [DONE]\n\n"


def usage(prompt: int = 3, completion: int = 2) -> bytes:
    """The chunk that tells of usage, with empty choices."""
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return b"data: %b\n\n" % json.dumps({"id": "c1", "choices": [], "usage": counts}).encode()
