"""Another protocol: bytes pass both ways after the engine's switch, or there is an error."""

import pytest

from fakes.backend import Talk
from fakes.roadside import post, roadside
from host.road.scripts import CHAT, echo


@pytest.mark.parametrize("early", [b"", b"first "])
async def test_a_websocket_passes_both_ways(early: bytes) -> None:
    async def script(talk: Talk) -> None:
        assert talk.request.header("upgrade") == "websocket"
        await talk.send(
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: x\r\n\r\nhello"
        )
        await talk.gone.wait()

    async with roadside(script, hold=True) as side:
        client = await side.client()
        await client.send(
            b"GET /v1/realtime?model=m HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
            b"sec-websocket-key: k\r\n\r\n" + early
        )
        await side.until(lambda: bool(side.desk.waiting))
        side.desk.grant()
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"sec-websocket-accept: x" in head
        assert await client.reader.readexactly(5) == b"hello"
        await client.send(b"more")
        connection = next(iter(side.backend.open))
        await side.until(lambda: bytes(connection.bytes) == early + b"more")
        client.leave()
        await side.until(lambda: not side.desk.leases)


async def test_an_engine_that_will_not_switch_is_an_error() -> None:
    async def script(talk: Talk) -> None:
        await talk.json({}, "404 Not Found")

    async with roadside(script) as side:
        reply = await side.raw(
            b"GET /upstream/m/ws HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n"
        )
        assert (reply.status, reply.json()["error"]["code"]) == (404, "no_switch")


async def test_a_websocket_behind_another_request_is_not_served_and_costs_that_one_nothing() -> None:
    switch = b"GET /v1/realtime?model=m HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n"
    async with roadside(echo, hold=True) as side:
        client = await side.client()
        await client.send(post(CHAT) + switch + b"first ")
        await side.until(lambda: bool(side.desk.waiting))
        side.desk.grant()
        assert (await client.read()).status == 200
        assert await client.ended()
        assert len(side.backend.requests) == 1
