"""Bodies on their way in: in pieces or into one buffer, within the limits for one and for all."""

import asyncio
import contextlib
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.backend import Talk
from fakes.roadside import post, roadside
from host.road.scripts import echo, refusal_of, silence


async def length(talk: Talk) -> None:
    await talk.json({"length": len(talk.request.body), "sum": sum(talk.request.body)})


async def test_a_chunked_body_that_grows_too_large_is_refused() -> None:
    async with roadside(echo, max_body=4096) as side:
        client = await side.client()
        await client.send(b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(5):
            await client.send(b"400\r\n" + b"x" * 1024 + b"\r\n")
        assert refusal_of(await client.read()) == (413, "body_too_large")


async def test_a_refused_upload_can_still_read_its_error() -> None:
    async with roadside(echo, max_body=1000) as side:
        client = await side.client()
        await client.send(
            b"POST /v1/messages HTTP/1.1\r\nhost: a\r\ncontent-length: 4000000\r\n\r\n" + b"x" * 4_000_000
        )
        reply = await client.read()
        assert (reply.status, reply.json()["error"]["type"]) == (413, "request_too_large")


async def test_bodies_come_by_length_by_chunks_and_large() -> None:
    body = json.dumps({"model": "m", "pad": "x" * 600_000}).encode()
    async with roadside(length) as side:
        client = await side.client()
        for _ in range(2):  # the connection goes on after a body that was received past the parser
            await client.send(post(body, "/v1/embeddings"))
            got = (await client.read()).json()
            sent = side.backend.requests[-1].json()
            assert got["length"] > 600_000
            assert sent == json.loads(body)
        pieces = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:7], body[7:90_000], body[90_000:]))
        await client.send(
            b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n"
        )
        assert (await client.read()).status == 200
        assert side.backend.requests[-1].json() == json.loads(body)


async def test_what_follows_a_large_body_is_not_lost() -> None:
    large = post({"model": "m", "pad": "x" * 300_000}, "/v1/embeddings")
    async with roadside(length) as side:
        client = await side.client()
        await client.send(large + post({"model": "m"}, "/v1/embeddings"))
        assert (await client.read()).json()["length"] > 300_000
        assert (await client.read()).json()["length"] < 100


async def test_a_large_body_that_begins_behind_another_request_is_whole() -> None:
    large = post({"model": "m", "pad": "x" * 300_000}, "/v1/embeddings")
    async with roadside(length, hold=True) as side:
        client = await side.client()
        await client.send(post({"model": "m"}, "/v1/embeddings") + large[:2000])
        await side.until(lambda: bool(side.desk.waiting))
        side.desk.hold = False
        side.desk.grant()
        assert (await client.read()).json()["length"] < 100
        await client.send(large[2000:])
        assert (await client.read()).json()["length"] > 300_000


async def test_expect_continue_is_answered_before_the_body() -> None:
    async with roadside(echo) as side:
        client = await side.client()
        await client.send(
            b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 13\r\n\r\n"
        )
        assert await client.reader.readexactly(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b'{"model":"m"}')
        assert (await client.read()).status == 200
        assert side.backend.requests[0].header("expect") is None


async def test_a_body_that_is_refused_is_not_asked_for() -> None:
    async with roadside(echo, max_body=10) as side:
        reply = await side.raw(
            b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 13\r\n\r\n"
        )
        assert reply.status == 413


async def test_waiting_bodies_are_bounded() -> None:
    async with roadside(silence, hold=True, waiting_bytes=500_000, big_body=1000) as side:
        first = await side.client()
        await first.post({"model": "m", "pad": "x" * 300_000})
        await side.until(lambda: bool(side.desk.waiting))
        assert refusal_of(await side.ask({"model": "m", "pad": "x" * 300_000})) == (503, "too_much_waiting")
        first.leave()
        await side.until(lambda: not side.desk.waiting)
        assert side.road.held_bytes == 0


async def test_bodies_that_are_only_claimed_take_nobodys_place() -> None:
    async with roadside(echo, waiting_bytes=500_000, big_body=1000) as side:
        claim = b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\ncontent-length: 400000\r\n\r\n"
        for _ in range(5):
            await (await side.client()).send(claim + b"{" * 1000)
        await side.until(lambda: side.road.held_bytes == 5000)
        assert (await side.ask({"model": "m", "pad": "x" * 300_000}, "/v1/embeddings")).status == 200
        for client in side.clients:
            client.leave()
        await side.until(lambda: side.road.held_bytes == 0)


async def test_large_bodies_that_come_further_than_there_is_room_are_refused_on_the_way() -> None:
    async with roadside(silence, hold=True, waiting_bytes=500_000, big_body=1000) as side:
        claim = b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\ncontent-length: 400000\r\n\r\n"
        first, second = [await side.client() for _ in range(2)]
        await first.send(claim + b"{" * 2000)
        await second.send(claim + b"{" * 2000)
        await side.until(lambda: side.road.held_bytes == 4000)
        await first.send(b"{" * 300_000)
        await side.until(lambda: side.road.held_bytes == 304_000)
        with contextlib.suppress(ConnectionError):
            await second.send(b"{" * 300_000)
        assert refusal_of(await second.read()) == (503, "too_much_waiting")
        await side.until(lambda: side.road.held_bytes == 302_000)
        first.leave()
        await side.until(lambda: side.road.held_bytes == 0)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(1, 5000), max_size=12), large=st.booleans())
def test_however_a_request_is_cut_the_engine_sees_the_same(cuts: list[int], large: bool) -> None:
    body = json.dumps({"model": "alias", "pad": "é" * (3000 if large else 3)}).encode()
    data = post(body, "/v1/embeddings", "x-keep: 1") * 2

    async def play() -> None:
        async with roadside(length, big_body=2000) as side:
            client = await side.client()
            at = 0
            for cut in [*sorted(set(cuts)), len(data)]:
                await client.send(data[at:cut])
                at = max(at, cut)
                await asyncio.sleep(0)
            for _ in range(2):
                assert (await client.read()).status == 200
            assert [seen.json() for seen in side.backend.requests] == [json.loads(body)] * 2

    asyncio.run(play())
