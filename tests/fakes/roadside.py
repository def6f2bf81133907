"""A road between a fake desk, a fake engine and a raw client, on real sockets."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Self

import httptools
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from uvicorn.server import ServerState

from fakes.backend import Backend, Script
from fakes.desk import FakeDesk
from llm_router.host.road.front import Front, RoadConfig
from llm_router.host.road.road import Guard, Limits, Road, open_guard
from llm_router.wire.manners import Manners


@dataclass
class Reply:
    """One answer as the client read it."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)
    complete: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    def json(self) -> Any:
        return json.loads(self.body)

    def payloads(self) -> list[Any]:
        """The JSON values of the events, and ``"[DONE]"``."""
        texts = [event[6:] for event in self.body.decode().split("\n\n") if event.startswith("data: ")]
        return ["[DONE]" if text == "[DONE]" else json.loads(text) for text in texts]

    def text(self) -> str:
        """The joined content of a chat stream, read as strictly as the strictest client does."""
        return "".join(
            value["choices"][0]["delta"].get("content") or "" for value in self.payloads() if value != "[DONE]"
        )

    def statuses(self) -> list[dict[str, Any]]:
        values = [value for value in self.payloads() if isinstance(value, dict)]
        return [value["event"]["data"] for value in values if "event" in value]


class Client:
    """One connection to the road."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.replies: list[Reply] = []
        self._given = 0
        self._parser = httptools.HttpResponseParser(self)

    @classmethod
    async def open(cls, port: int) -> Self:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def post(self, body: object, path: str = "/v1/chat/completions", *headers: str) -> None:
        await self.send(post(body, path, *headers))

    async def read(self, until: Callable[[Reply], bool] | None = None) -> Reply:
        """Read until the answer is whole, ``until`` holds, or the connection ends."""
        while True:
            if len(self.replies) > self._given:
                reply = self.replies[self._given]
                if reply.complete or (until is not None and until(reply)):
                    self._given += reply.complete
                    return reply
            async with asyncio.timeout(10):
                data = await self.reader.read(65536)
            if not data:
                return self.replies[self._given] if len(self.replies) > self._given else Reply()
            with contextlib.suppress(httptools.HttpParserUpgrade):
                self._parser.feed_data(data)

    async def ended(self) -> bool:
        """Whether the connection ends without another byte."""
        async with asyncio.timeout(10):
            try:
                return await self.reader.read(1) == b""
            except ConnectionError:
                return True

    def leave(self) -> None:
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    def on_message_begin(self) -> None:
        self.replies.append(Reply())

    def on_header(self, name: bytes, value: bytes) -> None:
        self.replies[-1].headers.append((name.decode().lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        self.replies[-1].status = self._parser.get_status_code()
        if self.replies[-1].status == 100:
            self.replies.pop()
            self.replies.append(Reply())

    def on_body(self, body: bytes) -> None:
        self.replies[-1].pieces.append(body)

    def on_message_complete(self) -> None:
        if self.replies[-1].status >= 200:
            self.replies[-1].complete = True
        else:
            self.replies.pop()


def post(body: object, path: str = "/v1/chat/completions", *headers: str) -> bytes:
    """A request's bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = "".join(f"{line}\r\n" for line in ("content-type: application/json", *headers))
    return f"POST {path} HTTP/1.1\r\nhost: localhost\r\n{lines}content-length: {len(data)}\r\n\r\n".encode() + data


@dataclass
class Roadside:
    """Everything a test wants to touch."""

    desk: FakeDesk
    backend: Backend
    road: Road
    port: int
    clients: list[Client] = field(default_factory=list)

    async def client(self) -> Client:
        client = await Client.open(self.port)
        self.clients.append(client)
        return client

    async def ask(self, body: object, path: str = "/v1/chat/completions", *headers: str) -> Reply:
        client = await self.client()
        await client.post(body, path, *headers)
        return await client.read()

    async def raw(self, data: bytes) -> Reply:
        client = await self.client()
        await client.send(data)
        return await client.read()

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until something holds."""
        async with asyncio.timeout(10):
            while not true():
                await asyncio.sleep(0.002)


async def _models(request: Request) -> JSONResponse:
    return JSONResponse({"object": "list", "data": []})


async def _echo(request: Request) -> JSONResponse:
    return JSONResponse({"got": (await request.body()).decode()})


@contextlib.asynccontextmanager
async def roadside(
    script: Script,
    *,
    hold: bool = False,
    guard: Guard = open_guard,
    manners: Manners | None = None,
    **limits: Any,
) -> AsyncIterator[Roadside]:
    """A road in front of an engine that plays ``script``. At its end nothing may be left."""
    loop = asyncio.get_running_loop()
    async with Backend(script) as backend:
        desk = FakeDesk(port=backend.port, hold=hold)
        road = Road(desk, Limits(**limits), guard=guard, manners=manners)
        app = Starlette(routes=[Route("/v1/models", _models), Route("/echo", _echo, methods=["POST"])])
        config = RoadConfig(app, http=Front, ws="none", lifespan="off", access_log=False, log_config=None)
        config.road = road
        config.load()
        state = ServerState()
        server = await loop.create_server(lambda: Front(config, state, {}), "127.0.0.1", 0)
        side = Roadside(desk, backend, road, server.sockets[0].getsockname()[1])
        try:
            yield side
            desk.check()
            assert road.held_bytes == 0
            assert not road.exchanges
        finally:
            server.close()
            for client in side.clients:
                await client.close()
            await side.until(lambda: not road.connections())
            await road.aclose()
