"""The door of the road: framing, limits, browsers, pipelining, and the parts of uvicorn that it stands on."""

import asyncio
import inspect

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fakes.backend import DONE, Talk, chunk
from fakes.roadside import post, roadside
from host.road.scripts import refusal_of, silence
from llm_router.host.road.road import Visitor
from llm_router.wire.errors import Fault
from llm_router.wire.heads import Headers


async def echo(talk: Talk) -> None:
    await talk.json({"target": talk.request.target, "body": talk.request.body.decode("latin-1")})


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
        assert refusal_of(reply) == (status, code)
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
        assert refusal_of(await client.read()) == (431, "head_too_large")
        body = post({"model": "m", "pad": "x" * 50_000})  # only the head counts
        assert (await side.raw(body)).status == 200


async def test_a_trailer_is_not_a_header() -> None:
    async with roadside(echo) as side:
        reply = await side.raw(
            b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
            b'd\r\n{"model":"m"}\r\n0\r\nx-smuggled: yes\r\n\r\n'
        )
        assert reply.status == 200
        assert side.backend.requests[0].header("x-smuggled") is None


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with roadside(echo) as side:
        client = await side.client()
        names = ["/v1/embeddings", "/v1/models", "/v1/rerank", "/v1/score"]
        requests = [post({"model": "m"}, name) for name in names if name != "/v1/models"]
        requests.insert(1, b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n")
        await client.send(b"".join(requests))
        replies = [(await client.read()).json() for _ in names]
        assert [reply.get("target", "/v1/models") for reply in replies] == names


@pytest.mark.parametrize("behind", [post({"model": "m"}), b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n"])
async def test_a_request_that_is_refused_in_its_turn_is_answered_whatever_follows(behind: bytes) -> None:
    async with roadside(echo, hold=True) as side:
        client = await side.client()
        await client.send(post({"model": "m"}) + b"GET /v1/chat/completions HTTP/1.1\r\nhost: a\r\n\r\n" + behind)
        await side.until(lambda: bool(side.desk.waiting))
        side.desk.grant()
        assert (await client.read()).status == 200
        assert refusal_of(await client.read()) == (405, "method_not_allowed")
        assert await client.ended()


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
        assert refusal_of(reply) == (403, "origin_not_allowed")
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
        assert refusal_of(reply) == (401, "invalid_key")
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
        assert refusal_of(await head.read()) == (408, "request_timeout")
        assert refusal_of(await body.read()) == (408, "request_timeout")
        assert await first.ended()
        assert await idle.ended()


async def test_too_many_connections_are_told() -> None:
    async with roadside(echo, max_connections=2) as side:
        for _ in range(2):
            await side.client()
        await side.until(lambda: side.road.connections() == 2)
        client = await side.client()
        assert refusal_of(await client.read()) == (503, "too_many_connections")


@pytest.mark.slow
async def test_one_connection_serves_a_thousand_requests_over_one_connection() -> None:
    async with roadside(echo) as side:
        client = await side.client()
        for _ in range(1000):
            await client.post({"model": "m"}, "/v1/embeddings")
            assert (await client.read()).status == 200
        assert side.backend.connections == 1


async def test_a_head_that_begins_behind_a_large_body_is_not_a_large_head() -> None:
    second = post({"model": "m"})
    async with roadside(echo, max_head=2000) as side:
        client = await side.client()
        await client.send(post({"model": "m", "pad": "x" * 50_000}) + second[:30])
        assert (await client.read()).status == 200
        await client.send(second[30:])
        assert (await client.read()).status == 200
