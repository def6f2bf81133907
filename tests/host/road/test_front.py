"""The door of the road: framing, limits, browsers, pipelining, and the parts of uvicorn that it stands on."""

import asyncio
import contextlib
import inspect
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fakes.backend import DONE, Talk, chunk
from fakes.roadside import Reply, post, roadside
from llm_router.host.road.road import Visitor
from llm_router.wire.errors import Fault
from llm_router.wire.heads import Headers


async def echo(talk: Talk) -> None:
    await talk.json({"target": talk.request.target, "body": talk.request.body.decode("latin-1")})


async def length(talk: Talk) -> None:
    await talk.json({"length": len(talk.request.body), "sum": sum(talk.request.body)})


async def silence(talk: Talk) -> None:
    await talk.gone.wait()


def error_of(reply: Reply) -> tuple[int, str]:
    error = reply.json()["error"]
    assert error["message"].startswith("cannot ")
    return reply.status, error["code"]


def test_the_inside_parts_of_uvicorn_are_there() -> None:
    """The fast lane leans on these; a new uvicorn that moves them must be noticed here, not by users."""
    source = inspect.getsource(HttpToolsProtocol)
    for part in (
        "self.cycle.disconnected = True",
        "self.cycle.message_event.set()",
        "self._start_asgi_task(self.cycle, app)",
        "self.pipeline.appendleft((self.cycle, app))",
        "existing_cycle.response_complete",
        "on_response=self.on_response_complete",
        "self.cycle.keep_alive = False",
        "lenient_data_after_close=True",
    ):
        assert part in source, part
    names = ("_start_asgi_task", "_should_upgrade", "handle_websocket_upgrade", "on_response_complete", "shutdown")
    assert all(callable(getattr(HttpToolsProtocol, name)) for name in names)


async def test_pages_and_model_requests_share_a_connection() -> None:
    async with roadside(echo) as side:
        client = await side.client()
        for _ in range(2):
            await client.send(b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n")
            assert (await client.read()).json() == {"object": "list", "data": []}
            await client.post({"model": "m"})
            assert (await client.read()).json()["target"] == "/v1/chat/completions"
        await client.send(b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi")
        assert (await client.read()).json() == {"got": "hi"}


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (b"nonsense\r\n\r\n", 400, "bad_request"),
        (b"POST /v1/embeddings HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}", 400, "bad_request"),
        (b"GET /v1/models HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400, "bad_request"),
        (b"GET /v1/models\r\nhost: a\r\n\r\n", 505, "http_version"),
        (b"GET /v1/models HTTP/1.1\r\nhost: a\r\nx: a\r\n b\r\n\r\n", 400, "bad_request"),
        (
            b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\n{}",
            400,
            "bad_request",
        ),
        (
            b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
            400,
            "bad_request",
        ),
        (b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", 400, "bad_request"),
        (b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n{}", 400, "bad_request"),
        (b"GET /v1/models HTTP/1.1\r\nhost: a\r\n" + b"x: y\r\n" * 200 + b"\r\n", 431, "head_too_large"),
        (b"GET /v1/models HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 70_000, 431, "head_too_large"),
        (b"GET /" + b"y" * 20_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n", 414, "uri_too_long"),
        (b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\ncontent-length: 5000\r\n\r\n{", 413, "body_too_large"),
        (b"GET /v1/chat/completions HTTP/1.1\r\nhost: a\r\n\r\n", 405, "method_not_allowed"),
        (b"GET * HTTP/1.1\r\nhost: a\r\n\r\n", 400, "bad_request"),
    ],
)
async def test_bad_requests_get_a_clear_error_and_hurt_nobody_else(
    request_bytes: bytes, status: int, code: str
) -> None:
    async with roadside(echo, max_body=4096) as side:
        reply = await side.raw(request_bytes)
        assert error_of(reply) == (status, code)
        assert await side.clients[0].ended()
        assert (await side.ask({"model": "m"})).status == 200


@pytest.mark.parametrize("split", [0, 9000])
async def test_a_large_head_is_refused_whole_or_in_pieces(split: int) -> None:
    data = b"GET /v1/models HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 20_000 + b"\r\n\r\n"
    async with roadside(echo, max_head=10_000) as side:
        client = await side.client()
        await client.send(data[:split])
        await asyncio.sleep(0)
        await client.send(data[split:])
        assert error_of(await client.read()) == (431, "head_too_large")
        body = post({"model": "m", "pad": "x" * 50_000})  # only the head counts
        assert (await side.raw(body)).status == 200


async def test_a_chunked_body_that_grows_too_large_is_refused() -> None:
    async with roadside(echo, max_body=4096) as side:
        client = await side.client()
        await client.send(b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(5):
            await client.send(b"400\r\n" + b"x" * 1024 + b"\r\n")
        assert error_of(await client.read()) == (413, "body_too_large")


async def test_a_refused_upload_can_still_read_its_error() -> None:
    async with roadside(echo, max_body=1000) as side:
        client = await side.client()
        await client.send(
            b"POST /v1/messages HTTP/1.1\r\nhost: a\r\ncontent-length: 4000000\r\n\r\n" + b"x" * 4_000_000
        )
        reply = await client.read()
        assert (reply.status, reply.json()["error"]["type"]) == (413, "request_too_large")


async def test_a_trailer_is_not_a_header() -> None:
    async with roadside(echo) as side:
        reply = await side.raw(
            b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
            b'd\r\n{"model":"m"}\r\n0\r\nx-smuggled: yes\r\n\r\n'
        )
        assert reply.status == 200
        assert side.backend.requests[0].header("x-smuggled") is None


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


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with roadside(echo) as side:
        client = await side.client()
        names = ["/v1/embeddings", "/v1/models", "/v1/rerank", "/v1/score"]
        requests = [post({"model": "m"}, name) for name in names if name != "/v1/models"]
        requests.insert(1, b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n")
        await client.send(b"".join(requests))
        replies = [(await client.read()).json() for _ in names]
        assert [reply.get("target", "/v1/models") for reply in replies] == names


async def test_a_thousand_pipelined_errors_do_not_exhaust_the_stack() -> None:
    async with roadside(echo, hold=True) as side:
        client = await side.client()
        await client.send(post({"model": "m"}) + post({"model": "none"}) * 1000)
        await side.until(lambda: bool(side.desk.waiting))
        side.desk.grant()
        assert (await client.read()).status == 200
        assert [(await client.read()).status for _ in range(1000)] == [404] * 1000


@pytest.mark.slow
@pytest.mark.parametrize("rudely", [False, True])
async def test_who_leaves_with_requests_in_the_pipe_is_missed(rudely: bool) -> None:
    """Nothing is read while they wait their turn, so nobody tells that the client is gone."""
    async with roadside(silence, hold=True) as side:
        client = await side.client()
        await client.send(post({"model": "m"}) * 3)
        await side.until(lambda: bool(side.desk.waiting))
        if rudely:
            client.leave()
        else:
            await client.close()
        await side.until(lambda: not side.desk.waiting)
        assert not side.backend.requests


@pytest.mark.slow
async def test_who_leaves_while_another_protocol_waits_for_its_engine_is_missed() -> None:
    async with roadside(silence, hold=True) as side:
        client = await side.client()
        await client.send(
            b"GET /upstream/m/ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nearly"
        )
        await side.until(lambda: bool(side.desk.waiting))
        await client.close()
        await side.until(lambda: not side.desk.waiting)


async def test_garbage_behind_a_request_ends_the_connection_after_its_answer() -> None:
    async with roadside(echo, hold=True) as side:
        client = await side.client()
        await client.send(post({"model": "m"}) + b"\x00garbage\r\n\r\n")
        await side.until(lambda: bool(side.desk.waiting))
        side.desk.grant()
        assert (await client.read()).status == 200
        assert await client.ended()


async def test_old_clients_get_a_plain_body_and_the_end() -> None:
    async def stream(talk: Talk) -> None:
        await talk.events(chunk("hi"), chunk(None, "stop"), DONE)

    async with roadside(stream) as side:
        body = b'{"model":"m","stream":true}'
        reply = await side.raw(b"POST /v1/chat/completions HTTP/1.0\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        assert reply.header("transfer-encoding") is None
        assert reply.header("connection") == "close"
        assert reply.body.endswith(DONE)
        assert await side.clients[0].ended()


async def test_connection_close_is_kept_to() -> None:
    async with roadside(echo) as side:
        reply = await side.ask({"model": "m"}, "/v1/embeddings", "connection: close")
        assert (reply.status, reply.header("connection")) == (200, "close")
        assert await side.clients[0].ended()


async def test_a_browser_on_this_machine_may_ask_and_read() -> None:
    async with roadside(echo) as side:
        client = await side.client()
        await client.send(
            b"OPTIONS /v1/chat/completions HTTP/1.1\r\nhost: a\r\norigin: http://localhost:3000\r\n"
            b"access-control-request-method: POST\r\naccess-control-request-headers: authorization\r\n\r\n"
        )
        reply = await client.read()
        assert reply.status == 204
        assert reply.header("access-control-allow-origin") == "http://localhost:3000"
        assert reply.header("access-control-allow-headers") == "authorization"
        await client.post({"model": "m"}, "/v1/chat/completions", "origin: http://localhost:3000")
        reply = await client.read()
        assert (reply.status, reply.header("access-control-allow-origin")) == (200, "http://localhost:3000")
        assert side.backend.requests[0].header("origin") is None


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost.evil.example"])
async def test_a_foreign_page_cannot_use_the_router(origin: str) -> None:
    async with roadside(echo) as side:
        reply = await side.ask({"model": "m"}, "/v1/chat/completions", f"origin: {origin}")
        assert error_of(reply) == (403, "origin_not_allowed")
        assert not side.backend.requests


async def test_a_configured_origin_is_let_in() -> None:
    async with roadside(echo, origins=("https://chat.example",)) as side:
        reply = await side.ask({"model": "m"}, "/v1/chat/completions", "origin: https://chat.example")
        assert reply.status == 200


async def test_the_guard_is_asked_before_the_body_is_read() -> None:
    def guard(path: str, headers: Headers, peer: str) -> Visitor | Fault:
        if (b"authorization", b"Bearer good") in headers:
            return Visitor("key:good", 7)
        return Fault(401, "invalid_key", "cannot let you in: the key is wrong", "authentication_error", retry=False)

    async with roadside(echo, guard=guard) as side:
        reply = await side.raw(b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\ncontent-length: 9000\r\n\r\n")
        assert error_of(reply) == (401, "invalid_key")
        reply = await side.ask({"model": "m"}, "/v1/embeddings", "authorization: Bearer good")
        assert reply.status == 200
        assert (side.desk.wishes[0].caller, side.desk.wishes[0].priority) == ("key:good", 7)
        assert side.backend.requests[0].header("authorization") is None


@pytest.mark.slow
async def test_slow_heads_and_bodies_and_idle_connections_are_ended() -> None:
    async with roadside(echo, first_s=0.2, head_s=0.2, body_s=0.2, idle_s=0.2) as side:
        head, body, first, idle = [await side.client() for _ in range(4)]
        await head.send(b"GET /v1/models HTTP/1.1\r\nhost: ")
        await body.send(b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n{")
        await idle.post({"model": "m"})
        assert (await idle.read()).status == 200
        assert error_of(await head.read()) == (408, "request_timeout")
        assert error_of(await body.read()) == (408, "request_timeout")
        assert await first.ended()
        assert await idle.ended()


async def test_too_many_connections_are_told() -> None:
    async with roadside(echo, max_connections=2) as side:
        for _ in range(2):
            await side.client()
        await side.until(lambda: side.road.connections() == 2)
        client = await side.client()
        assert error_of(await client.read()) == (503, "too_many_connections")


async def test_waiting_bodies_are_bounded() -> None:
    async with roadside(silence, hold=True, waiting_bytes=500_000, big_body=1000) as side:
        first = await side.client()
        await first.post({"model": "m", "pad": "x" * 300_000})
        await side.until(lambda: bool(side.desk.waiting))
        assert error_of(await side.ask({"model": "m", "pad": "x" * 300_000})) == (503, "too_much_waiting")
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
        assert error_of(await second.read()) == (503, "too_much_waiting")
        await side.until(lambda: side.road.held_bytes == 302_000)
        first.leave()
        await side.until(lambda: side.road.held_bytes == 0)


@pytest.mark.slow
async def test_one_connection_serves_a_thousand_requests_over_one_connection() -> None:
    async with roadside(echo) as side:
        client = await side.client()
        for _ in range(1000):
            await client.post({"model": "m"}, "/v1/embeddings")
            assert (await client.read()).status == 200
        assert side.backend.connections == 1


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
