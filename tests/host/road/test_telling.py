"""What the client is told: news of its wait, the answer as it comes or joined, its speed, and errors in a form that fits."""

import asyncio
import json

import pytest

from fakes.backend import DONE, Talk, chunk, usage
from fakes.roadside import roadside
from host.road.scripts import CHAT, STREAM, dies, endless, ends_early, error_of, silence, stream
from llm_router.core.words import EndReason, ModelName, Notice, Outcome, Stage
from llm_router.wire.dialect import Dialect

# The wait


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


# The answer


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


async def test_a_whole_answer_has_its_speed_above_it() -> None:
    async def script(talk: Talk) -> None:
        timings = {"predicted_per_second": 20.0, "prompt_per_second": 300.5, "predicted_n": 2, "prompt_n": 3}
        await talk.json({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}, "timings": timings})

    async with roadside(script) as side:
        reply = await side.ask(CHAT)
        names = ("tokens", "tokens-per-second", "prompt-tokens", "prompt-tokens-per-second")
        assert [reply.header(f"x-llm-router-{name}") for name in names] == ["2", "20.0", "3", "300.5"]


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


# Errors


async def half_event(talk: Talk) -> None:
    await talk.events(chunk("Hel"), b'data: {"choi')


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


@pytest.mark.parametrize("script", [dies, ends_early])
async def test_a_joined_answer_that_is_not_whole_is_a_502(script: object) -> None:
    async with roadside(script) as side:  # type: ignore[arg-type]
        side.desk.dialect = Dialect(stream_only=frozenset({"/v1/chat/completions"}))
        reply = await side.ask(CHAT)
        assert (reply.status, reply.json()["error"]["code"]) == (502, "engine_broke_off")


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
