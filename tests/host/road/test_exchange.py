"""One exchange: waiting, asking, passing on, breaking off; and never a lease that is not given back."""

import asyncio
import gc
import json
import weakref

import pytest

from fakes.backend import DONE, Talk, chunk, usage
from fakes.roadside import Reply, post, roadside
from llm_router.core.words import EndReason, ModelName, Notice, Outcome, Reason, Refusal, Stage
from llm_router.host.road import exchange
from llm_router.wire import heads, order
from llm_router.wire.dialect import Dialect
from llm_router.wire.manners import Manners

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
STREAM = {**CHAT, "stream": True}


async def echo(talk: Talk) -> None:
    await talk.json({"choices": [{"finish_reason": "stop"}], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})


async def stream(talk: Talk) -> None:
    await talk.events(chunk("Hel"), chunk("lo"), chunk(None, "stop"), DONE)


async def endless(talk: Talk) -> None:
    await talk.events(chunk("x"), end=False)
    await talk.gone.wait()


async def silence(talk: Talk) -> None:
    await talk.gone.wait()


def error_of(reply: Reply) -> dict[str, object]:
    error = reply.payloads()[-2]["error"]
    assert reply.payloads()[-1] == "[DONE]"
    assert isinstance(error, dict)
    return error


# What passes


async def test_a_json_answer_passes_byte_for_byte_with_the_routers_headers() -> None:
    raw = b'{ "choices" : [],  "usage":{"prompt_tokens":7,"completion_tokens":3} }'

    async def script(talk: Talk) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-mine: 1\r\nconnection: x-hop\r\nx-hop: 1\r\n"
        await talk.send(head + b"set-cookie: a=b\r\ncontent-length: %d\r\n\r\n" % len(raw) + raw)

    async with roadside(script) as side:
        side.desk.waited_s, side.desk.loaded_s = 1.25, 0.75
        reply = await side.ask(CHAT, "/v1/chat/completions", "x-request-id: abc")
        assert reply.body == raw
        assert reply.header("x-mine") == "1"
        assert (reply.header("x-hop"), reply.header("set-cookie")) == (None, None)
        assert reply.header("x-request-id") == "abc"
        assert reply.header("x-llm-router-model") == "m"
        assert reply.header("x-llm-router-instance") == "m#1"
        assert (reply.header("x-llm-router-waited"), reply.header("x-llm-router-loaded")) == ("1.250", "0.750")
        assert float(reply.header("x-llm-router-overhead") or "x") < 1
        exchange = side.desk.released[0]
        assert (exchange.prompt_tokens, exchange.completion_tokens, exchange.estimated) == (7, 3, False)
        assert (exchange.status, exchange.outcome, exchange.request_id) == (200, Outcome.done, "abc")


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


async def test_a_page_of_an_engine_gets_an_origin_of_its_own() -> None:
    async def page(talk: Talk) -> None:
        await talk.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi")

    async with roadside(page) as side:
        reply = await side.raw(b"GET /upstream/m/ HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (reply.header("content-security-policy") or "").startswith("sandbox ")
        assert "allow-same-origin" not in (reply.header("content-security-policy") or "")


async def test_head_has_no_body_and_keeps_the_connection_in_step() -> None:
    async def script(talk: Talk) -> None:
        body = b"" if talk.request.method == "HEAD" else b"12345"
        await talk.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n" + body)

    async with roadside(script) as side:
        client = await side.client()
        await client.send(b"HEAD /upstream/m/x HTTP/1.1\r\nhost: a\r\n\r\n")
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert b"content-length: 5" in head
        await client.send(b"GET /upstream/m/x HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await client.read()).body == b"12345"


async def test_a_stream_passes_with_its_closing_line_and_ends() -> None:
    async with roadside(stream) as side:
        reply = await side.ask(STREAM)
        assert reply.text() == "Hello"
        assert reply.header("x-accel-buffering") == "no"
        last = reply.statuses()[-1]
        assert last["done"] is True
        assert last["description"].startswith("⚡ ")
        assert reply.body.count(DONE) == 1
        assert reply.body.endswith(DONE)
        assert side.desk.released[0].estimated


async def test_the_body_ends_after_done_even_if_the_engine_does_not() -> None:
    async def script(talk: Talk) -> None:
        await talk.events(chunk("hi", "stop"), DONE, end=False)
        await talk.gone.wait()

    async with roadside(script) as side:
        client = await side.client()
        for _ in range(2):
            await client.post(STREAM)
            assert (await client.read()).complete
        assert len(side.desk.released) == 2


@pytest.mark.parametrize("wants", [False, True])
async def test_usage_is_shown_to_who_asked_and_hidden_from_who_did_not(wants: bool) -> None:
    async def script(talk: Talk) -> None:
        await talk.events(chunk("a"), chunk("b", "stop"), usage(11, 22), DONE)

    async with roadside(script) as side:
        side.desk.dialect = Dialect(ask_usage=True)
        side.desk.waited_s = 2.0
        reply = await side.ask({**STREAM, **({"stream_options": {"include_usage": True}} if wants else {})})
        found = [value["usage"] for value in reply.payloads() if value != "[DONE]" and "usage" in value]
        assert [one["completion_tokens"] for one in found] == ([22] if wants else [])
        if wants:
            assert found[0]["llm_router"]["waited_s"] == 2.0
        assert "22 tokens" in reply.statuses()[-1]["description"]
        assert side.desk.released[0].completion_tokens == 22


async def test_an_answer_for_a_program_has_no_closing_line() -> None:
    async with roadside(stream) as side:
        reply = await side.ask({**STREAM, "response_format": {"type": "json_object"}})
        assert reply.statuses() == []


async def test_a_call_for_tools_has_no_closing_line_and_goes_on() -> None:
    async def script(talk: Talk) -> None:
        await talk.events(chunk(None, "tool_calls"), DONE)

    async with roadside(script) as side:
        reply = await side.ask(STREAM)
        assert reply.statuses() == []
        assert side.desk.released[0].outcome is Outcome.continues


# Waiting


async def test_a_wait_is_told_and_ended_before_the_first_token() -> None:
    async with roadside(stream, hold=True, status_s=0.0) as side:
        side.desk.news = Notice(ModelName("m"), Stage.queued, 0.0, place=2, ahead=(ModelName("k"),))
        client = await side.client()
        began = asyncio.get_running_loop().time()
        await client.post(STREAM)
        await client.read(lambda reply: bool(reply.statuses()))
        assert asyncio.get_running_loop().time() - began < 5
        side.desk.tell(Stage.loading, percent=40.0, left_s=20.0, phase="loading weights")
        await client.read(lambda reply: len(reply.statuses()) > 1 or not reply.complete)
        side.desk.waited_s = 42.0
        side.desk.grant()
        reply = await client.read()
        said = [(one["description"], one["done"]) for one in reply.statuses()]
        assert said[0] == ("Waiting for m: 2nd in line, after k", False)
        assert said[-2] == ("m ready (42 s)", True)
        assert reply.text() == "Hello"
        assert reply.header("x-llm-router-model") == "m"


async def test_a_short_wait_leaves_no_note() -> None:
    async with roadside(stream, hold=True) as side:
        client = await side.client()
        await client.post(STREAM)
        await client.read(lambda reply: bool(reply.statuses()))
        side.desk.waited_s = 1.0
        side.desk.grant()
        statuses = (await client.read()).statuses()
        assert statuses[1] == {"description": "ready", "done": True, "hidden": True}


async def test_an_instant_wait_is_not_told_at_all() -> None:
    async with roadside(stream, hold=True, commit_s=5.0) as side:
        client = await side.client()
        await client.post(STREAM)
        await side.until(lambda: bool(side.desk.waiting))
        side.desk.grant()
        assert len((await client.read()).statuses()) == 1  # only the speed


@pytest.mark.slow
async def test_silence_is_broken_by_comments() -> None:
    async with roadside(endless, hold=True, silence_s=0.1) as side:
        client = await side.client()
        await client.post(STREAM)
        await client.read(lambda reply: b": keep-alive\n\n" in reply.body)
        side.desk.grant()
        seen = await client.read(lambda reply: b'"x"' in reply.body)
        count = seen.body.count(b": keep-alive")
        await client.read(lambda reply: reply.body.count(b": keep-alive") > count)
        client.leave()
        await side.until(lambda: not side.desk.leases)


@pytest.mark.slow
async def test_a_slow_prompt_is_told_even_without_a_wait() -> None:
    async with roadside(silence, silence_s=0.1) as side:
        client = await side.client()
        await client.post(STREAM)
        reply = await client.read(lambda reply: bool(reply.statuses()))
        assert reply.statuses()[0]["description"] == "m is reading the prompt"
        client.leave()
        await side.until(lambda: not side.desk.leases)


async def test_the_responses_api_is_opened_once_and_numbered_through() -> None:
    def event(kind: str, number: int, **more: object) -> bytes:
        value = {"type": kind, "sequence_number": number, **more}
        return f"event: {kind}\ndata: {json.dumps(value)}\n\n".encode()

    async def script(talk: Talk) -> None:
        done = {"status": "completed", "usage": {"input_tokens": 5, "output_tokens": 6}, "output": []}
        await talk.events(
            event("response.created", 0, response={"id": "r"}),
            event("response.in_progress", 1, response={"id": "r"}),
            event("response.output_text.delta", 2, delta="hi"),
            event("response.completed", 3, response=done),
        )

    async with roadside(script, hold=True) as side:
        client = await side.client()
        await client.post({"model": "m", "stream": True, "input": "x"}, "/v1/responses")
        await client.read(lambda reply: bool(reply.pieces))
        side.desk.grant()
        body = (await client.read()).body.decode()
        values = [json.loads(line[6:]) for line in body.split("\n") if line.startswith("data: ")]
        assert [value["sequence_number"] for value in values] == list(range(len(values)))
        kinds = [value["type"] for value in values]
        assert kinds.count("response.created") == 1
        assert kinds[-2:] == ["response.output_text.delta", "response.completed"]
        assert [value["event"]["data"]["done"] for value in values if "event" in value] == [False, True]
        assert side.desk.released[0].completion_tokens == 6


async def test_messages_are_opened_once_and_pinged() -> None:
    def event(kind: str, **more: object) -> bytes:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}\n\n".encode()

    async def script(talk: Talk) -> None:
        await talk.events(
            event("message_start", message={"id": "x", "usage": {"input_tokens": 9, "output_tokens": 1}}),
            event("content_block_delta", index=0, delta={"type": "text_delta", "text": "hi"}),
            event("message_delta", delta={"stop_reason": "tool_use"}, usage={"output_tokens": 4}),
            event("message_stop"),
        )

    async with roadside(script, hold=True) as side:
        client = await side.client()
        await client.post(STREAM, "/v1/messages")
        await client.read(lambda reply: bool(reply.pieces))
        side.desk.grant()
        body = (await client.read()).body.decode()
        values = [json.loads(line[6:]) for line in body.split("\n") if line.startswith("data: ")]
        kinds = [value["type"] for value in values]
        assert kinds == ["message_start", "ping", "content_block_delta", "message_delta", "message_stop"]
        assert values[3]["usage"] == {"input_tokens": 9, "output_tokens": 4}
        released = side.desk.released[0]
        assert (released.prompt_tokens, released.completion_tokens) == (9, 4)
        assert released.outcome is Outcome.continues


async def test_status_can_be_switched_off_and_be_comments() -> None:
    async with roadside(stream, hold=True, commit_s=0.0) as side:
        for mode, expected in (("none", b""), ("comment", b": Waiting for m")):
            client = await side.client()
            await client.post(STREAM, "/v1/chat/completions", f"x-router-status: {mode}")
            await side.until(lambda: bool(side.desk.waiting))
            if expected:
                await client.read(lambda reply: bool(reply.pieces))
            side.desk.grant()
            reply = await client.read()
            assert reply.statuses() == []
            assert reply.body.startswith(expected or b"data: ")
            assert reply.text() == "Hello"


@pytest.mark.slow
async def test_a_whole_answer_is_held_no_longer_than_the_limit() -> None:
    async with roadside(stream, hold=True, manners=Manners(hold_s=0.1)) as side:
        side.desk.news = Notice(ModelName("m"), Stage.loading, 3.0, percent=10.0, left_s=25.0)
        reply = await side.ask(CHAT)
        assert (reply.status, reply.header("retry-after")) == (503, "25")
        assert reply.json()["error"]["loading"]["percent"] == 10.0
        assert (len(side.desk.gone), side.desk.withdrawn) == (1, [])
        await side.ask(CHAT, "/v1/chat/completions", "x-router-task: title_generation")
        assert (len(side.desk.gone), len(side.desk.withdrawn)) == (1, 1), "nobody waits for that"


@pytest.mark.parametrize(
    ("headers", "background"),
    [(("x-router-task: title_generation",), True), (("x-router-task: ",), False), ((), True)],
)
async def test_background_requests_are_known(headers: tuple[str, ...], background: bool) -> None:
    prompt = "### Task:\nGenerate a concise, 3-5 word title"
    async with roadside(echo) as side:
        body = {"model": "m", "stream": False, "messages": [{"role": "user", "content": prompt}]}
        await side.ask(body, "/v1/chat/completions", *headers)
        assert side.desk.wishes[0].background is background


# Refusals


@pytest.mark.parametrize(
    ("reason", "after", "status"),
    [
        (Reason.queue_full, 3.0, 429),
        (Reason.load_failed, 20.0, 503),
        (Reason.load_failed, None, 503),
        (Reason.background, None, 503),
        (Reason.shutting_down, 5.0, 503),
    ],
)
async def test_a_refusal_known_at_once_is_an_http_error(reason: Reason, after: float | None, status: int) -> None:
    async with roadside(stream) as side:
        side.desk.refusal = Refusal(reason, ModelName("m"), after)
        reply = await side.ask(STREAM)
        assert (reply.status, reply.json()["error"]["code"]) == (status, reason.value.replace("load_", "model_load_"))
        assert reply.header("retry-after") == (None if after is None else str(int(after)))
        assert reply.header("x-should-retry") == ("false" if after is None else None)


async def test_a_refusal_after_a_wait_is_an_error_event_without_choices() -> None:
    async with roadside(stream, hold=True) as side:
        client = await side.client()
        await client.post(STREAM)
        await client.read(lambda reply: bool(reply.pieces))
        side.desk.refuse()
        reply = await client.read()
        assert error_of(reply)["code"] == "model_load_failed"
        assert "choices" not in reply.payloads()[-2]
        assert reply.statuses()[-1]["done"] is True


async def test_unknown_models_are_told_the_nearest() -> None:
    async with roadside(stream) as side:
        reply = await side.ask({"model": "othr"})
        assert reply.status == 404
        assert "other" in reply.json()["error"]["message"]
        reply = await side.ask({"model": "othr"}, "/v1/messages")
        assert reply.json()["error"]["type"] == "not_found_error"


async def test_without_a_model_the_default_serves_else_it_is_an_error() -> None:
    async with roadside(echo) as side:
        reply = await side.ask({"messages": []})
        assert (reply.status, reply.json()["error"]["code"]) == (400, "model_missing")
        side.desk.default = "m"
        assert (await side.ask({"messages": []})).status == 200
        assert side.backend.requests[0].json()["model"] == "m"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b'{"a":' + b"[" * 100_000, "invalid_json"),
        (b'{"model": "\xff"}', "invalid_json"),
        (b"[1]", "invalid_request"),
        (b'{"model": 5}', "invalid_request"),
        (b'{"model": "m", "stream": "yes"}', "invalid_request"),
    ],
)
async def test_bad_bodies_are_400_and_the_next_request_works(body: bytes, code: str) -> None:
    async with roadside(echo) as side:
        client = await side.client()
        await client.send(post(body))
        reply = await client.read()
        assert (reply.status, reply.json()["error"]["code"]) == (400, code)
        await client.post(CHAT)
        assert (await client.read()).status == 200


async def test_a_body_that_proves_bad_after_the_grant_gives_the_lease_back() -> None:
    async with roadside(echo) as side:
        side.desk.dialect = Dialect(model_name="x")
        reply = await side.ask(b'{"\xff":1,"model":"m"}')
        assert (reply.status, reply.json()["error"]["code"]) == (400, "invalid_json")


# The client leaves


@pytest.mark.parametrize("commit_s", [0.0, 5.0])
async def test_a_client_that_leaves_while_it_waits_is_withdrawn(commit_s: float) -> None:
    async with roadside(stream, hold=True, commit_s=commit_s) as side:
        client = await side.client()
        await client.post(STREAM)
        await side.until(lambda: bool(side.desk.waiting))
        client.leave()
        await side.until(lambda: not side.desk.waiting)
        assert side.desk.withdrawn


@pytest.mark.parametrize("script", [silence, endless])
@pytest.mark.parametrize("body", [CHAT, STREAM])
async def test_a_client_that_leaves_ends_the_generation(script: object, body: object) -> None:
    async with roadside(script) as side:  # type: ignore[arg-type]
        client = await side.client()
        await client.post(body)
        await side.until(lambda: bool(side.backend.requests))
        client.leave()
        await side.until(lambda: side.backend.left == 1 and not side.desk.leases)
        assert side.desk.released[0].outcome is Outcome.left


async def test_a_client_that_leaves_in_its_body_leaves_nothing_behind() -> None:
    async with roadside(stream, big_body=10) as side:
        for sent in (20, 120, 1000):
            client = await side.client()
            await client.send(post({"model": "m", "pad": "x" * 5000})[:sent])
            await asyncio.sleep(0)
            client.leave()
        await side.until(lambda: not side.road.connections())
        assert not side.desk.wishes


async def test_a_client_that_leaves_after_the_last_byte_is_no_loss() -> None:
    async with roadside(stream) as side:
        client = await side.client()
        await client.post(STREAM)
        await client.read()
        client.leave()
        assert side.desk.released[0].outcome is Outcome.done


# The engine breaks


async def dies(talk: Talk) -> None:
    await talk.events(chunk("Hel"), end=False)
    talk.abort()


async def ends_early(talk: Talk) -> None:
    await talk.events(chunk("Hel"))


async def half_event(talk: Talk) -> None:
    await talk.events(chunk("Hel"), b'data: {"choi')


@pytest.mark.parametrize("script", [dies, ends_early, half_event])
async def test_a_stream_that_is_not_whole_ends_with_an_error(script: object) -> None:
    async with roadside(script) as side:  # type: ignore[arg-type]
        client = await side.client()
        await client.post(STREAM)
        reply = await client.read()
        assert reply.complete
        assert str(error_of(reply)["code"]).startswith("engine_")
        assert side.desk.released[0].outcome is Outcome.failed
        await client.post(STREAM)  # the client's connection is fine
        assert (await client.read()).complete


async def test_a_stream_whose_framing_is_lost_ends_with_an_error() -> None:
    go = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.events(chunk("Hel"), end=False)
        await go.wait()
        await talk.send(b"zzz\r\n")

    async with roadside(script) as side:
        client = await side.client()
        await client.post(STREAM)
        await client.read(lambda reply: bool(reply.pieces))
        go.set()
        assert error_of(await client.read())["code"] == "engine_answered_badly"


async def test_a_truncated_json_answer_becomes_an_error_while_it_can() -> None:
    async def script(talk: Talk) -> None:
        await talk.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n{")
        talk.close()

    async with roadside(script) as side:
        reply = await side.ask(CHAT)
        assert (reply.status, reply.json()["error"]["code"]) == (502, "engine_broke_off")
        assert side.desk.released[0].outcome is Outcome.failed


@pytest.mark.parametrize("length", [b"content-length: 5000000", b"transfer-encoding: chunked"])
async def test_a_truncated_json_answer_never_looks_whole(length: bytes) -> None:
    async def script(talk: Talk) -> None:
        await talk.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n%b\r\n\r\n" % length)
        await talk.send(b"1\r\n{\r\n")
        talk.close()

    async with roadside(script) as side:
        reply = await side.ask(CHAT)
        assert not reply.complete
        assert side.desk.released[0].outcome is Outcome.failed


async def test_a_whole_answer_has_its_speed_above_it() -> None:
    async def script(talk: Talk) -> None:
        timings = {"predicted_per_second": 20.0, "prompt_per_second": 300.5, "predicted_n": 2, "prompt_n": 3}
        await talk.json({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}, "timings": timings})

    async with roadside(script) as side:
        reply = await side.ask(CHAT)
        names = ("tokens", "tokens-per-second", "prompt-tokens", "prompt-tokens-per-second")
        assert [reply.header(f"x-llm-router-{name}") for name in names] == ["2", "20.0", "3", "300.5"]


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 300_000,
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx",
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
    ],
)
async def test_an_answer_that_is_none_is_a_502(data: bytes) -> None:
    async def script(talk: Talk) -> None:
        await talk.send(data)

    async with roadside(script) as side:
        reply = await side.ask(CHAT)
        assert (reply.status, reply.json()["error"]["code"]) == (502, "engine_answered_badly")


async def test_an_engine_that_is_not_there_is_a_502_in_the_end() -> None:
    async with roadside(stream, again_s=0.0) as side:
        side.desk.port = 1
        reply = await side.ask(STREAM)
        assert (reply.status, reply.json()["error"]["code"]) == (502, "engine_unreachable")
        assert {exchange.outcome for exchange in side.desk.released} == {Outcome.failed}
        assert len(side.desk.released) == 21


async def test_a_request_that_met_a_dead_engine_waits_for_the_next() -> None:
    async with roadside(stream, again_s=0.0) as side:
        side.desk.port = 1
        side.desk.at_release = lambda: setattr(side.desk, "port", side.backend.port)
        client = await side.client()
        await client.post(STREAM)
        assert (await client.read()).text() == "Hello"


async def test_an_engine_that_dies_of_a_request_is_asked_once_more_and_not_again() -> None:
    async def dies_at_once(talk: Talk) -> None:
        talk.abort()

    async with roadside(dies_at_once, again_s=0.0) as side:
        reply = await side.ask(CHAT)
        assert (reply.status, reply.json()["error"]["code"]) == (502, "engine_broke_off")
        assert len(side.backend.requests) == 2


@pytest.mark.slow
async def test_a_client_that_leaves_between_two_tries_leaves_nothing_behind() -> None:
    async with roadside(stream, again_s=60.0) as side:
        side.desk.port = 1
        client = await side.client()
        await client.post(STREAM)
        await side.until(lambda: bool(side.desk.released))
        client.leave()
        await side.until(lambda: not side.road.exchanges)
        assert not side.desk.withdrawn


async def test_an_http_error_after_the_wait_becomes_an_event() -> None:
    async def script(talk: Talk) -> None:
        await talk.json({"detail": "context is too long"}, "400 Bad Request")

    async with roadside(script, hold=True) as side:
        client = await side.client()
        await client.post(STREAM)
        await client.read(lambda reply: bool(reply.pieces))
        side.desk.grant()
        reply = await client.read()
        assert error_of(reply)["message"] == "context is too long"
        assert reply.statuses()[-1]["done"] is True


async def test_an_http_error_of_the_engine_passes_as_it_is() -> None:
    async def script(talk: Talk) -> None:
        await talk.json({"detail": "no"}, "422 Unprocessable Entity")

    async with roadside(script) as side:
        reply = await side.ask(STREAM)
        assert (reply.status, reply.json()) == (422, {"detail": "no"})
        assert side.desk.released[0].outcome is Outcome.done


async def test_an_error_event_of_the_engine_gets_its_form_and_its_end() -> None:
    async def script(talk: Talk) -> None:
        await talk.events(chunk("x"), b'data: {"error": "out of memory"}\n\n')

    async with roadside(script) as side:
        reply = await side.ask(STREAM)
        assert error_of(reply)["message"] == "out of memory"
        assert side.desk.released[0].outcome is Outcome.failed


@pytest.mark.parametrize("reason", list(EndReason))
async def test_a_lease_taken_back_ends_with_its_cause(reason: EndReason) -> None:
    async with roadside(endless) as side:
        client = await side.client()
        await client.post(STREAM)
        await client.read(lambda reply: bool(reply.pieces))
        side.desk.end(reason)
        reply = await client.read()
        assert "ended" in str(error_of(reply)["message"]) or "broken off" in str(error_of(reply)["message"])
        await side.until(lambda: side.backend.left == 1)


async def test_a_lease_taken_back_before_the_answer_is_an_http_error() -> None:
    async with roadside(silence) as side:
        client = await side.client()
        await client.post(CHAT)
        await side.until(lambda: bool(side.backend.requests))
        side.desk.end()
        assert (await client.read()).status == 503


async def test_a_shutdown_ends_what_runs_and_what_waits() -> None:
    async with roadside(endless) as side:
        running, waiting = await side.client(), await side.client()
        await running.post(STREAM)
        await running.read(lambda reply: bool(reply.pieces))
        side.desk.hold = True
        await waiting.post(CHAT)
        await side.until(lambda: bool(side.desk.waiting))
        side.road.end_all()
        assert error_of(await running.read())["code"] == "shutting_down"
        assert (await waiting.read()).status == 503


# Joining


async def test_a_whole_answer_is_asked_for_as_a_stream_and_joined() -> None:
    async def script(talk: Talk) -> None:
        await talk.events(chunk("Hel"), chunk("lo", "stop"), usage(3, 4), DONE)

    async with roadside(script) as side:
        side.desk.dialect = Dialect(stream_only=frozenset({"/v1/chat/completions"}), ask_usage=True)
        reply = await side.ask(CHAT)
        assert side.backend.requests[0].json()["stream"] is True
        assert reply.json()["choices"][0]["message"]["content"] == "Hello"
        assert reply.json()["usage"]["completion_tokens"] == 4
        assert reply.header("x-llm-router-tokens") == "4"
        assert side.desk.released[0].completion_tokens == 4
        await side.ask({**CHAT, "n": 2})
        assert "stream" not in side.backend.requests[1].json()


@pytest.mark.parametrize("script", [dies, ends_early])
async def test_a_joined_answer_that_is_not_whole_is_a_502(script: object) -> None:
    async with roadside(script) as side:  # type: ignore[arg-type]
        side.desk.dialect = Dialect(stream_only=frozenset({"/v1/chat/completions"}))
        reply = await side.ask(CHAT)
        assert (reply.status, reply.json()["error"]["code"]) == (502, "engine_broke_off")


async def test_a_client_of_a_joined_answer_that_leaves_ends_the_generation() -> None:
    async with roadside(endless) as side:
        side.desk.dialect = Dialect(stream_only=frozenset({"/v1/chat/completions"}))
        client = await side.client()
        await client.post(CHAT)
        await side.until(lambda: bool(side.backend.requests))
        client.leave()
        await side.until(lambda: side.backend.left == 1)


# Progress


@pytest.mark.parametrize("joined", [True, False])
async def test_only_what_the_engine_says_is_progress(joined: bool) -> None:
    ping, word = asyncio.Event(), asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.events(chunk("Hel"), end=False)
        await ping.wait()
        await talk.chunk(b": ping - now\r\n\r\n")
        await word.wait()
        await talk.chunk(chunk("lo", "stop"))
        await talk.chunk(DONE)
        await talk.send(b"0\r\n\r\n")

    async with roadside(script) as side:
        side.desk.dialect = Dialect(stream_only=frozenset({"/v1/chat/completions"}))
        client = await side.client()
        await client.post(CHAT if joined else STREAM)
        await side.until(lambda: any(waiter.moved() for waiter in side.desk.leases.values()))
        (waiter,) = side.desk.leases.values()
        before = waiter.moved()
        assert before
        ping.set()
        for exchange in list(side.road.exchanges):
            exchange.tick(asyncio.get_running_loop().time() + 1000.0)  # the router says something itself
        await asyncio.sleep(0.02)
        assert waiter.moved() == before
        word.set()
        assert (await client.read()).complete
        assert (waiter.moved() or 0) > before


async def test_an_answer_that_comes_whole_cannot_be_seen_to_move() -> None:
    async with roadside(silence) as side:
        client = await side.client()
        await client.post(CHAT)
        await side.until(lambda: bool(side.backend.requests))
        (waiter,) = side.desk.leases.values()
        assert waiter.moved() is None
        client.leave()
        await side.until(lambda: not side.desk.leases)


# Flow


@pytest.mark.slow
async def test_a_slow_reader_holds_the_engine_back() -> None:
    sent = 0

    async def flood(talk: Talk) -> None:
        nonlocal sent
        await talk.events(end=False)
        block = chunk("x" * 60_000)
        while not talk.gone.is_set() and sent < 100_000_000:
            await talk.chunk(block)
            sent += len(block)
            await asyncio.sleep(0)

    async with roadside(flood) as side:
        client = await side.client()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.post(STREAM)
        before = -1
        while before != sent or sent == 0:
            before = sent
            await asyncio.sleep(0.2)
        assert 0 < sent < 50_000_000
        client.leave()
        await side.until(lambda: not side.desk.leases)


# Another protocol


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


@pytest.mark.parametrize("asked", [CHAT, STREAM])
async def test_an_exchange_that_is_over_leaves_nothing_for_the_collector(asked: dict[str, object]) -> None:
    answer, begun = asyncio.Event(), asyncio.Event()

    async def script(talk: Talk) -> None:
        begun.set()
        await answer.wait()
        await (stream(talk) if asked is STREAM else echo(talk))

    async with roadside(script) as side:
        gc.disable()
        try:
            client = await side.client()
            await client.post(asked)
            await begun.wait()
            running = weakref.ref(next(iter(side.road.exchanges)))
            answer.set()
            await client.read()
            await side.until(lambda: bool(side.desk.released))
            assert running() is None, "a cycle of references keeps it until the collector comes"
            await client.close()
        finally:
            gc.enable()


@pytest.mark.parametrize(("where", "step"), [(exchange, "hear"), (order, "target_for"), (heads, "answer_headers")])
async def test_a_bug_of_ours_ends_one_exchange_with_an_error_and_nothing_else(
    where: object, step: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def bug(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    async with roadside(echo) as side:
        with monkeypatch.context() as patch:
            patch.setattr(where, step, bug)
            reply = await side.ask(CHAT)
        assert (reply.status, reply.json()["error"]["code"]) == (500, "router_fault")
        assert "a bug" in caplog.text
        assert (await side.ask(CHAT)).status == 200
