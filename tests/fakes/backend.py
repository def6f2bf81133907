"""An engine on the level of bytes: a real socket whose every byte a test decides. It knows HTTP only as far as requests go."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self


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


@dataclass
class Talk:
    """One connection during one request: what a script may do with it."""

    request: Seen
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    #: Set when the other side closed the connection.
    gone: asyncio.Event

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def json(self, value: object, status: str = "200 OK", extra: bytes = b"") -> None:
        body = json.dumps(value).encode()
        head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n"
        await self.send(head % (status.encode(), extra, len(body)) + body)

    async def events(self, *blocks: bytes, end: bool = True) -> None:
        """A chunked event stream; each block is its own chunk and its own write."""
        await self.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for block in blocks:
            await self.chunk(block)
        if end:
            await self.send(b"0\r\n\r\n")

    async def chunk(self, block: bytes) -> None:
        await self.send(b"%x\r\n%b\r\n" % (len(block), block))

    def abort(self) -> None:
        self.writer.transport.abort()


Script = Callable[[Talk], Awaitable[None]]


@dataclass
class Backend:
    """Listens on a port of its own and plays ``script`` for each request."""

    script: Script
    requests: list[Seen] = field(default_factory=list)
    connections: int = 0
    left: int = 0
    port: int = 0
    _server: asyncio.Server | None = None
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**26)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while (seen := await _read(reader)) is not None:
                self.requests.append(seen)
                if not await self._play(seen, reader, writer):
                    break
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _play(self, seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        gone = asyncio.Event()
        script = asyncio.ensure_future(self._run(Talk(seen, reader, writer, gone)))
        watch = asyncio.ensure_future(_until_eof(reader, gone))
        try:
            await script
        finally:
            self.left += gone.is_set()
            script.cancel()
            watch.cancel()
            await asyncio.gather(watch, script, return_exceptions=True)
        return not writer.transport.is_closing() and not gone.is_set()

    async def _run(self, talk: Talk) -> None:
        await self.script(talk)


async def _until_eof(reader: asyncio.StreamReader, gone: asyncio.Event) -> None:
    """Notice the end of the connection without taking bytes of a next request."""
    while not reader.at_eof():
        if reader._eof or reader.exception() is not None:  # type: ignore[attr-defined]
            break
        wait = reader._wait_for_data("watch") if not reader._buffer else asyncio.sleep(0.01)  # type: ignore[attr-defined]
        try:
            await wait
        except ConnectionError:
            break
    gone.set()


async def _read(reader: asyncio.StreamReader) -> Seen | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    headers = [(name.lower(), value) for name, value in (line.split(": ", 1) for line in lines)]
    length = next((int(value) for name, value in headers if name == "content-length"), 0)
    body = await reader.readexactly(length)
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
