"""The router's own questions: whole answers, and answers that are heard while they grow."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from fakes.backend import Backend, Script, Talk
from llm_router.engines.engine import Answer, Question
from llm_router.host.road.asking import _ANSWER_LIMIT, Asker
from llm_router.host.road.upstream import Pools

HOST = "127.0.0.1"
LOAD = Question("POST", "/v1/model/load", b"{}", stream=True)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@contextlib.asynccontextmanager
async def asker(script: Script) -> AsyncIterator[tuple[Asker, Backend]]:
    async with Backend(script) as backend:
        pools = Pools()
        yield Asker(pools), backend
        await pools.aclose()


async def heard(one: Asker, backend: Backend, question: Question = LOAD) -> list[Answer]:
    async with asyncio.timeout(5):
        return [answer async for answer in one.stream(HOST, backend.port, question)]


async def test_a_stream_is_heard_piece_by_piece_and_whole_at_the_end() -> None:
    more = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.send(HEAD + chunk(b"data: 1\r\n\r\n"))
        await more.wait()
        await talk.send(chunk(b"data: 2\r\n\r\n") + b"0\r\n\r\n")

    async with asker(script) as (one, backend), contextlib.aclosing(one.stream(HOST, backend.port, LOAD)) as answers:
        first = await anext(answers)
        assert (first.status, first.body, first.complete) == (200, b"data: 1\r\n\r\n", False)
        more.set()
        *_, last = [answer async for answer in answers]
        assert (last.body, last.complete) == (b"data: 1\r\n\r\ndata: 2\r\n\r\n", True)
        assert last.headers["content-type"] == "text/event-stream"


async def test_who_has_heard_enough_closes_the_connection() -> None:
    async def script(talk: Talk) -> None:
        await talk.send(HEAD + chunk(b"data: no\n\n"))
        await talk.gone.wait()

    async with asker(script) as (one, backend):
        async with contextlib.aclosing(one.stream(HOST, backend.port, LOAD)) as answers:
            assert (await anext(answers)).body == b"data: no\n\n"
        async with asyncio.timeout(5):
            while backend.open:
                await asyncio.sleep(0.002)


@pytest.mark.parametrize("said", [b"", HEAD + chunk(b"data: 1\n\n")])
async def test_a_stream_that_does_not_end_in_time_is_silence(said: bytes) -> None:
    async def script(talk: Talk) -> None:
        await talk.send(said)
        await talk.gone.wait()

    async with asker(script) as (one, backend):
        last = (await heard(one, backend, Question("POST", "/", b"{}", timeout_s=0.1, stream=True)))[-1]
        assert (last.status, last.body) == (0, b"no answer within 0.1 s")


@pytest.mark.parametrize("said", [b"nonsense", HEAD + b"5\r\nab", b""])
async def test_a_stream_that_breaks_is_no_answer(said: bytes) -> None:
    async def script(talk: Talk) -> None:
        await talk.send(said)
        talk.close()

    async with asker(script) as (one, backend):
        last = (await heard(one, backend))[-1]
        assert last.status == 0
        assert last.body


async def test_an_answer_that_does_not_stop_is_none() -> None:
    async def script(talk: Talk) -> None:
        await talk.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (2 * _ANSWER_LIMIT))
        with contextlib.suppress(ConnectionError):
            await talk.send(b"x" * (2 * _ANSWER_LIMIT))

    async with asker(script) as (one, backend):
        answer = await one.ask(HOST, backend.port, Question("GET", "/"))
        assert (answer.status, answer.body) == (0, b"the answer is longer than 4194304 bytes")


async def test_nobody_there_is_said_and_not_raised() -> None:
    pools = Pools()
    (answer,) = [one async for one in Asker(pools).stream(HOST, 1, LOAD)]
    assert answer.status == 0
    assert b"cannot reach the engine at 127.0.0.1:1" in answer.body
    await pools.aclose()
