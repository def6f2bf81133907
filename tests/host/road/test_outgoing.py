"""What the engine gets: the request as the client meant it, in the engine's dialect, without what is the router's own."""

import pytest

from fakes.roadside import roadside
from host.road.scripts import CHAT, echo, stream
from llm_router.wire.dialect import Dialect


async def test_what_is_the_routers_own_does_not_reach_the_engine() -> None:
    async with roadside(echo) as side:
        own = ("authorization", "x-api-key", "x-conversation-id", "x-router-task", "x-llm-router-status", "cookie")
        hop = ("te", "proxy-authorization", "keep-alive", "accept-encoding")
        headers = [f"{name}: 1" for name in (*own, *hop)]
        await side.ask(CHAT, "/v1/chat/completions", "connection: x-mine", "x-mine: 1", "x-kept: 1", *headers)
        names = [name for name, _ in side.backend.requests[0].headers]
        assert sorted(names) == ["content-length", "content-type", "host", "x-kept", "x-request-id"]


async def test_the_dialect_is_spoken() -> None:
    async with roadside(stream) as side:
        side.desk.dialect = Dialect(
            model_name="/models/m", headers=(("authorization", "Bearer k"),), drop=frozenset({"top_k"}), ask_usage=True
        )
        body = b'{"model":"m","model":"alias","stream":true,"top_k":3,"temperature": 1.0,"stream_options":{"x":1}}'
        await side.ask(body)
        seen = side.backend.requests[0]
        assert seen.header("authorization") == "Bearer k"
        assert seen.json() == {
            "model": "/models/m",
            "stream": True,
            "temperature": 1.0,
            "stream_options": {"x": 1, "include_usage": True},
        }
        assert b'"temperature":1.0' in seen.body
        assert seen.body.count(b'"model"') == 1


async def test_a_body_that_needs_no_change_is_not_touched() -> None:
    async with roadside(echo) as side:
        body = b'{ "model":"m" ,\n "messages" : [ ] }'
        await side.ask(body)
        assert side.backend.requests[0].body == body


async def test_the_engine_sees_the_model_that_the_router_used() -> None:
    async with roadside(echo) as side:
        await side.ask(b'{"model":"other","mod\\u0065l":"m"}')
        assert side.desk.wishes[0].model == "m"
        assert side.backend.requests[0].body == b'{"model":"m"}'


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/chat/completions", "/v1/chat/completions"),
        ("/v1/embeddings?x=1", "/v1/embeddings?x=1"),
        ("/tokenize", "/tokenize"),
        ("/v1/audio/speech", "/v1/audio/speech"),
    ],
)
async def test_paths_that_engines_serve_pass(path: str, target: str) -> None:
    async with roadside(echo) as side:
        assert (await side.ask({"model": "m"}, path)).status == 200
        assert side.backend.requests[0].target == target


async def test_a_form_names_its_model_and_it_is_changed_in_place() -> None:
    form = b'--B\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n\x00\x01\r\n--B\r\n'
    form += b'content-disposition: form-data; name="model"\r\n\r\nalias\r\n--B--\r\n'
    async with roadside(echo) as side:
        side.desk.dialect = Dialect(model_name="whisper-1")
        head = b"POST /v1/audio/transcriptions HTTP/1.1\r\nhost: a\r\ncontent-type: multipart/form-data; boundary=B\r\n"
        reply = await side.raw(head + b"content-length: %d\r\n\r\n" % len(form) + form)
        assert reply.status == 200
        assert side.backend.requests[0].body == form.replace(b"alias", b"whisper-1")


async def test_a_query_names_its_model() -> None:
    async with roadside(echo) as side:
        side.desk.dialect = Dialect(model_name="e/m")
        reply = await side.raw(b"GET /v1/audio/voices?model=alias&x=%20 HTTP/1.1\r\nhost: a\r\n\r\n")
        assert reply.status == 200
        assert side.backend.requests[0].target == "/v1/audio/voices?model=e%2Fm&x=%20"


@pytest.mark.parametrize("name", ["m", "org/name", "org%2Fname"])
async def test_upstream_reaches_an_engine_raw(name: str) -> None:
    async with roadside(echo) as side:
        side.desk.dialect = Dialect(model_name="changed", drop=frozenset({"x"}))
        body = b'{"model":"whatever","x":1}'
        reply = await side.ask(body, f"/upstream/{name}/slots/1?a=b")
        assert reply.status == 200
        seen = side.backend.requests[0]
        assert (seen.target, seen.body) == ("/slots/1?a=b", body)
