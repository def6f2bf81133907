"""Connections to instances: kept, retried, given up; asked through by the router's own questions."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from fakes.backend import Backend, Script, Talk
from llm_router.engines.engine import Answer, Question
from llm_router.host.road.asking import Asker
from llm_router.host.road.connection import Sending, Trouble
from llm_router.host.road.upstream import Pools
from llm_router.wire.heads import Headers

GET = Question("GET", "/health")
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@contextlib.asynccontextmanager
async def pools(script: Script) -> AsyncIterator[tuple[Pools, Backend]]:
    async with Backend(script) as backend:
        one = Pools()
        yield one, backend
        await one.aclose()


async def ok(talk: Talk) -> None:
    await talk.send(OK)


async def ask(one: Pools, backend: Backend, question: Question = GET) -> Answer:
    return await Asker(one).ask("127.0.0.1", backend.port, question)


async def test_a_question_gets_its_answer_on_a_kept_connection() -> None:
    async with pools(ok) as (one, backend):
        for _ in range(3):
            answer = await ask(one, backend)
            assert (answer.status, answer.body, answer.headers) == (200, b"ok", {"content-length": "2"})
        assert backend.connections == 1


async def test_a_question_carries_its_body_and_headers() -> None:
    async with pools(ok) as (one, backend):
        await ask(one, backend, Question("POST", "/x", b"{}", (("Authorization", "Bearer k"),)))
        seen = backend.requests[0]
        assert (seen.method, seen.target, seen.body) == ("POST", "/x", b"{}")
        assert (seen.header("authorization"), seen.header("content-type")) == ("Bearer k", "application/json")


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
        b"",
    ],
)
async def test_a_question_never_raises(data: bytes) -> None:
    async def script(talk: Talk) -> None:
        await talk.send(data)
        talk.close()

    async with pools(script) as (one, backend):
        answer = await ask(one, backend)
        assert answer.status == 0
        assert answer.body


async def test_nobody_there_and_nobody_speaking() -> None:
    async def silence(talk: Talk) -> None:
        await talk.gone.wait()

    async with pools(silence) as (one, backend):
        assert (await Asker(one).ask("127.0.0.1", 1, GET)).status == 0
        answer = await ask(one, backend, Question("GET", "/", timeout_s=0.05))
        assert (answer.status, answer.body) == (0, b"no answer within 0.1 s")
        async with asyncio.timeout(5):
            while not backend.left:
                await asyncio.sleep(0.002)


async def test_an_endless_answer_to_a_question_is_given_up() -> None:
    async def flood(talk: Talk) -> None:
        await talk.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while not talk.gone.is_set():
            await talk.send(b"x" * 100_000)
            await asyncio.sleep(0)

    async with pools(flood) as (one, backend):
        answer = await ask(one, backend)
        assert answer.status == 0
        assert b"longer" in answer.body


async def test_a_body_that_ends_with_the_connection_is_whole() -> None:
    async def script(talk: Talk) -> None:
        await talk.send(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        talk.close()

    async with pools(script) as (one, backend):
        assert (await ask(one, backend)).body == b"all of it"


async def test_an_answer_may_be_announced() -> None:
    async def script(talk: Talk) -> None:
        await talk.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK)

    async with pools(script) as (one, backend):
        for _ in range(2):
            answer = await ask(one, backend)
            assert (answer.status, answer.body) == (200, b"ok")
            assert "link" not in answer.headers
        assert backend.connections == 1


async def test_a_connection_that_was_closed_while_idle_is_replaced_once() -> None:
    closing = False

    async def script(talk: Talk) -> None:
        if closing and backend.connections == 1:
            talk.abort()  # a race that every server with a keep-alive limit has: the request meets the close
        else:
            await talk.send(OK)

    async with pools(script) as (one, backend):
        assert (await ask(one, backend)).status == 200
        closing = True
        assert (await ask(one, backend)).status == 200
        assert (backend.connections, len(backend.requests)) == (2, 3)


async def test_an_engine_that_is_gone_after_it_had_the_request_broke_it_off() -> None:
    """It may have died of it, so it must not look like one that was never reached."""
    dying = False

    async def script(talk: Talk) -> None:
        if dying:
            backend.close()
            talk.abort()
        else:
            await talk.send(OK)

    async with pools(script) as (one, backend):
        assert (await ask(one, backend)).status == 200
        dying = True
        spy = Spy("")
        spy.sending = Sending(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"", spy)
        one.send("127.0.0.1", backend.port, spy.sending)
        await spy.over.wait()
        assert spy.heard == ["failed: engine_broke_off"]
        never = Spy("")
        never.sending = Sending(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"", never)
        one.send("127.0.0.1", backend.port, never.sending)
        await never.over.wait()
        assert never.heard == ["failed: engine_unreachable"]


async def test_a_fresh_connection_that_is_closed_is_not_tried_again() -> None:
    async def script(talk: Talk) -> None:
        talk.abort()

    async with pools(script) as (one, backend):
        assert (await ask(one, backend)).status == 0
        assert len(backend.requests) == 1


@pytest.mark.parametrize("more", [OK, b"stray"])
async def test_a_connection_that_is_out_of_step_is_not_used_again(more: bytes) -> None:
    async def script(talk: Talk) -> None:
        await talk.send(OK + more)

    async with pools(script) as (one, backend):
        for _ in range(2):
            assert (await ask(one, backend)).body == b"ok"
        assert backend.connections == 2


async def test_bytes_on_an_idle_connection_end_it() -> None:
    later = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.send(OK)
        if not later.is_set():
            await later.wait()
            await talk.send(OK)
            await talk.gone.wait()

    async with pools(script) as (one, backend):
        await ask(one, backend)
        later.set()
        async with asyncio.timeout(5):
            while not backend.left:
                await asyncio.sleep(0.002)
        assert (await ask(one, backend)).status == 200
        assert backend.connections == 2


async def test_connection_close_is_believed() -> None:
    async def script(talk: Talk) -> None:
        await talk.send(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok")

    async with pools(script) as (one, backend):
        for _ in range(2):
            assert (await ask(one, backend)).status == 200
        assert backend.connections == 2


async def test_an_answer_before_the_body_is_read_passes_but_the_connection_does_not_stay() -> None:
    async with pools(ok) as (one, backend):
        backend.greedy = False
        assert (await ask(one, backend, Question("POST", "/x", b"x" * 30_000_000))).status == 200
        backend.greedy = True
        assert (await ask(one, backend)).status == 200
        assert backend.connections == 2


async def test_an_instance_that_leaves_loses_its_idle_connections() -> None:
    async with pools(ok) as (one, backend):
        await ask(one, backend)
        one.close("127.0.0.1", backend.port)
        async with asyncio.timeout(5):
            while backend.open:
                await asyncio.sleep(0.002)


class Spy:
    """A receiver that leaves or aborts where it is told to."""

    def __init__(self, at: str) -> None:
        self.at = at
        self.heard: list[str] = []
        self.sending: Sending | None = None
        self.over = asyncio.Event()

    def _hear(self, word: str) -> None:
        self.heard.append(word)
        assert self.sending is not None
        if word == self.at:
            self.sending.leave()
            self.over.set()
        elif f"abort {word}" == self.at:
            self.sending.abort()
            self.over.set()

    def answered(self, status: int, headers: Headers, length: int | None) -> None:
        self._hear("answered")

    def received(self, data: bytes) -> None:
        self._hear("received")

    def completed(self) -> None:
        self._hear("completed")
        self.over.set()

    def failed(self, trouble: Trouble) -> None:
        self._hear(f"failed: {trouble.code}")
        self.over.set()


@pytest.mark.parametrize(
    ("at", "heard", "connections"),
    [
        ("", ["answered", "received", "completed"], 1),
        ("answered", ["answered"], 1),
        ("received", ["answered", "received"], 1),
        ("abort answered", ["answered"], 2),
        ("abort received", ["answered", "received"], 2),
    ],
)
async def test_who_leaves_hears_nothing_more(at: str, heard: list[str], connections: int) -> None:
    async with pools(ok) as (one, backend):
        spy = Spy(at)
        spy.sending = Sending(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"", spy)
        one.send("127.0.0.1", backend.port, spy.sending)
        async with asyncio.timeout(5):
            await spy.over.wait()
        assert (await ask(one, backend)).status == 200
        assert spy.heard == heard
        assert backend.connections == connections


async def test_who_aborts_before_the_connection_is_there_hears_nothing() -> None:
    async with pools(ok) as (one, backend):
        spy = Spy("")
        spy.sending = Sending(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"", spy)
        one.send("127.0.0.1", backend.port, spy.sending)
        spy.sending.abort()
        assert (await ask(one, backend)).status == 200
        assert spy.heard == []
        assert len(backend.requests) == 1


@pytest.mark.slow
async def test_an_answer_that_nobody_waits_for_does_not_keep_its_connection_for_ever() -> None:
    async def script(talk: Talk) -> None:
        await talk.events(b"data: x\n\n", end=False)
        await talk.gone.wait()

    async with pools(script) as (one, backend):
        spy = Spy("received")
        spy.sending = Sending(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"", spy)
        one.send("127.0.0.1", backend.port, spy.sending)
        async with asyncio.timeout(5):
            await spy.over.wait()
            while not backend.left:
                await asyncio.sleep(0.01)
