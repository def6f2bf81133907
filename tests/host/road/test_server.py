"""The server as the app runs it: it begins, serves both lanes, and ends without cutting what may finish."""

import asyncio
import contextlib
import resource
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from fakes.backend import DONE, Backend, Script, Talk, chunk
from fakes.desk import FakeDesk
from fakes.roadside import Client
from llm_router.host.machine.tasks import Tasks
from llm_router.host.road.road import Limits, Road
from llm_router.host.road.server import Server, make_server

STREAM = {"model": "m", "stream": True}


@contextlib.asynccontextmanager
async def serving(script: Script, **limits: Any) -> AsyncIterator[tuple[Server, FakeDesk, int, "asyncio.Task[None]"]]:
    listener = socket.create_server(("127.0.0.1", 0))
    tasks = Tasks("test")
    async with Backend(script) as backend:
        desk = FakeDesk(port=backend.port)
        server = make_server(Starlette(), Road(desk, Limits(**limits)), signals=False)
        task = tasks.spawn("server", server.serve(sockets=[listener]))
        async with asyncio.timeout(10):
            while not server.started:
                await asyncio.sleep(0.005)
            yield server, desk, listener.getsockname()[1], task
            server.should_exit = True
            await task
        desk.check()
    await tasks.aclose()


@pytest.mark.slow
async def test_it_serves_and_lets_a_running_answer_finish() -> None:
    more = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.events(chunk("a"), end=False)
        await more.wait()
        await talk.chunk(chunk("b", "stop") + DONE)
        await talk.send(b"0\r\n\r\n")

    async with serving(script) as (server, _, port, task):
        assert server.port == port
        running, idle = await Client.open(port), await Client.open(port)
        await running.post(STREAM)
        await running.read(lambda reply: bool(reply.pieces))
        await idle.send(b"GET /none HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await idle.read()).status == 404
        server.should_exit = True
        assert await idle.ended()
        assert not task.done()
        more.set()
        assert (await running.read()).text() == "ab"
        assert await running.ended()
        await idle.close()
        await running.close()


@pytest.mark.slow
async def test_what_runs_too_long_at_the_end_is_told_so() -> None:
    async def endless(talk: Talk) -> None:
        await talk.events(chunk("a"), end=False)
        await talk.gone.wait()

    async with serving(endless, grace_s=0.1) as (server, _, port, _):
        client = await Client.open(port)
        await client.post(STREAM)
        await client.read(lambda reply: bool(reply.pieces))
        server.should_exit = True
        assert (await client.read()).payloads()[-2]["error"]["code"] == "shutting_down"
        assert await client.ended()
        await client.close()


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@pytest.mark.slow
async def test_a_large_stream_passes_in_constant_memory() -> None:
    block = chunk("x" * 60_000)
    count = 5000  # 300 MB

    async def flood(talk: Talk) -> None:
        await talk.events(end=False)
        for _ in range(count):
            await talk.chunk(block)
        await talk.chunk(chunk(None, "stop") + DONE)
        await talk.send(b"0\r\n\r\n")

    async with serving(flood) as (_, desk, port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        client = Client(reader, writer)
        await client.post(STREAM)
        before = peak = got = 0
        while not desk.released or got < count * len(block):
            got += len(await reader.read(1 << 20))
            if got > 20_000_000:
                before = before or _resident()
                peak = max(peak, _resident())
        assert peak - before < 20_000_000
        await client.close()
