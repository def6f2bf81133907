"""What is understood of a request before anybody waits: its model, its key, its rules, its kind."""

import json

import pytest
from msgspec.structs import replace

from fakes.backend import DONE, Talk, chunk
from fakes.roadside import Reply, roadside
from llm_router.core.words import EndReason, Failure, FailureKind, ModelName, Outcome, Reason, Refusal
from llm_router.host.road.road import Guard, Visitor, open_guard
from llm_router.wire import lines
from llm_router.wire.dialect import Dialect
from llm_router.wire.errors import Fault
from llm_router.wire.heads import Headers
from llm_router.wire.manners import ClientManners, Manners, ModelManners
from llm_router.wire.params import Rules

HI = [{"role": "user", "content": "hi"}]
CHAT = {"model": "m", "messages": HI}
STREAM = {**CHAT, "stream": True}
TITLE = "x-router-task: title_generation"
CHATS_ONLY = Dialect(serves=frozenset({"/v1/chat/completions", "/v1/completions", "/v1/embeddings"}))


async def echo(talk: Talk) -> None:
    message = {"role": "assistant", "content": "Hello"}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    await talk.json(
        {"id": "c", "model": "m", "choices": [{"finish_reason": "stop", "message": message}], "usage": usage}
    )


async def stream(talk: Talk) -> None:
    await talk.events(chunk("Hel"), chunk("lo"), chunk(None, "stop"), DONE)


def visiting(**more: object) -> Guard:
    def guard(path: str, headers: Headers, peer: str) -> Visitor | Fault:
        return replace(open_guard(path, headers, peer), **more)

    return guard


# Rules over requests


async def test_what_was_changed_is_told() -> None:
    manners = Manners(models={"m": ModelManners(rules=Rules.of({"temperature": 0.5}, {"top_p": 0.9}, ["seed"]))})
    async with roadside(echo, manners=manners) as side:
        reply = await side.ask({**CHAT, "num_ctx": 9, "seed": 1, "temperature": 2})
        assert side.backend.requests[0].json() == {**CHAT, "temperature": 0.5, "top_p": 0.9}
        assert reply.header("x-llm-router-changed") == "drop num_ctx, drop seed, force temperature, default top_p"
        reply = await side.ask({"model": "other", "messages": HI, "seed": 1})
        assert reply.header("x-llm-router-changed") is None


async def test_our_lines_do_not_reach_the_engine_and_a_raw_request_is_left_alone() -> None:
    said = lines.before(lines.ready("m", 4.0), last=True) + "Hello"
    body = {**CHAT, "messages": [{"role": "assistant", "content": said}]}
    async with roadside(echo) as side:
        await side.ask(body)
        await side.ask(body, "/upstream/m/v1/chat/completions")
        contents = [seen.json()["messages"][0]["content"] for seen in side.backend.requests]  # type: ignore[index]
        assert contents == ["Hello", said]


# Who may have what


async def test_a_key_is_kept_to_its_models() -> None:
    async with roadside(echo, guard=visiting(models=("alias", "org/name"))) as side:
        assert (await side.ask(CHAT)).status == 200
        reply = await side.ask({**CHAT, "model": "other"})
        assert (reply.status, reply.json()["error"]["code"]) == (403, "model_not_allowed")
        assert "it may use alias or org/name" in reply.json()["error"]["message"]
        reply = await side.ask({"model": "other", "max_tokens": 1, "messages": HI}, "/v1/messages")
        assert reply.json()["error"]["type"] == "permission_error"


async def test_a_key_says_how_it_is_told_and_that_nobody_waits() -> None:
    async with roadside(stream, guard=visiting(status="content", background=True)) as side:
        reply = await side.ask(STREAM)
        assert "⚡" in reply.text()
        assert side.desk.wishes[0].background


@pytest.mark.parametrize("operator", [True, False])
async def test_only_an_operator_sees_the_end_of_a_log(operator: bool) -> None:
    async with roadside(echo, guard=visiting(operator=operator)) as side:
        failure = Failure(FailureKind.crashed, "it crashed", ("secret line",))
        side.desk.refusal = Refusal(Reason.load_failed, ModelName("m"), None, failure)
        reply = await side.ask(CHAT)
        assert reply.json()["error"]["failure"]["cause"] == "it crashed"
        assert (b"secret line" in reply.body) is operator
        assert reply.header("x-should-retry") == "false"


async def test_a_client_is_known_by_its_name() -> None:
    import re

    manners = Manners(clients=(ClientManners(re.compile("Roo"), status="off"),))
    async with roadside(stream, manners=manners) as side:
        assert not (await side.ask(STREAM, "/v1/chat/completions", "user-agent: RooCode/3")).statuses()
        assert (await side.ask(STREAM, "/v1/chat/completions", "user-agent: curl/8")).statuses()


# Requests that nobody waits for


@pytest.mark.parametrize("policy", ["ride", "steer", "refuse"])
async def test_what_becomes_of_a_title_for_a_model_that_is_not_loaded(policy: str) -> None:
    async with roadside(echo, manners=Manners(background=policy)) as side:
        side.desk.loaded = ("other", "org/name")
        reply = await side.ask(CHAT, "/v1/chat/completions", TITLE)
        if policy == "refuse":
            assert (reply.status, reply.json()["error"]["code"]) == (503, "background_refused")
            assert reply.header("x-should-retry") == "false"
            assert side.desk.wishes == []
            return
        served = "m" if policy == "ride" else "other"
        assert [(wish.model, wish.background) for wish in side.desk.wishes] == [(served, True)]
        assert side.backend.requests[0].json()["model"] == served
        assert reply.header("x-llm-router-model") == served
        assert reply.header("x-llm-router-steered") == (None if policy == "ride" else "m")


async def test_only_what_may_be_steered_is() -> None:
    manners = Manners(background="steer", models={"org/name": ModelManners(chats=False)})
    async with roadside(echo, manners=manners, guard=visiting(models=("m", "org/name"))) as side:
        side.desk.loaded = ("org/name", "other")
        await side.ask(CHAT, "/v1/chat/completions", TITLE)  # one makes vectors only, the other is not allowed
        side.desk.loaded = ("other", "m")
        await side.ask(CHAT, "/v1/chat/completions", TITLE)  # its own is loaded
        side.desk.loaded = ("other",)
        await side.ask(CHAT)  # somebody waits
        await side.ask({"model": "m", "input": "x"}, "/v1/embeddings", TITLE)
        assert [wish.model for wish in side.desk.wishes] == ["m"] * 4


# Whole answers over a long wait


@pytest.mark.slow
@pytest.mark.parametrize("end", ["answer", "error", "leave"])
async def test_spaces_keep_a_whole_answer_alive_where_that_is_wanted(end: str) -> None:
    async with roadside(echo, hold=True, silence_s=0.0, manners=Manners(keep_alive=True)) as side:
        client = await side.client()
        await client.post(CHAT)
        reply = await client.read(lambda reply: len(reply.pieces) > 1)
        assert reply.header("x-llm-router-keep-alive") == "whitespace"
        assert reply.body.strip() == b""
        if end == "leave":
            client.leave()
            await side.until(lambda: bool(side.desk.withdrawn))
            return
        if end == "answer":
            side.desk.grant()
        else:
            side.desk.refuse(Reason.too_long)
        reply = await client.read()
        assert (reply.status, reply.complete) == (200, True)
        value = reply.json()
        if end == "answer":
            assert value["choices"][0]["message"]["content"] == "Hello"
        else:
            assert value["error"]["code"] == "waited_too_long"


@pytest.mark.slow
async def test_a_stream_and_an_unruly_client_get_no_spaces() -> None:
    import re

    rule = ClientManners(re.compile("^strict"), keep_alive=False)
    async with roadside(echo, hold=True, silence_s=0.0, manners=Manners(keep_alive=True, clients=(rule,))) as side:
        client = await side.client()
        await client.post(CHAT, "/v1/chat/completions", "user-agent: strict/1")
        await side.until(lambda: bool(side.desk.waiting))
        for front in side.road._fronts:
            front.tick(1e9)
        side.desk.grant()
        assert (await client.read()).body.startswith(b"{")


# Other APIs on an engine that has only chat completions


async def test_messages_are_translated_both_ways() -> None:
    async with roadside(echo) as side:
        side.desk.dialect = CHATS_ONLY
        reply = await side.ask({"model": "m", "max_tokens": 9, "messages": HI, "container": "x"}, "/v1/messages")
        seen = side.backend.requests[0]
        assert (seen.target, seen.json()["messages"]) == ("/v1/chat/completions", HI)
        value = reply.json()
        assert (value["type"], value["content"]) == ("message", [{"type": "text", "text": "Hello"}])
        assert value["usage"] == {"input_tokens": 3, "output_tokens": 2}
        assert reply.header("x-llm-router-changed") == "drop container"
        assert reply.header("x-llm-router-tokens") == "2"


async def test_tokens_are_estimated_without_an_engine_that_can_count() -> None:
    async with roadside(echo) as side:
        side.desk.dialect = CHATS_ONLY
        reply = await side.ask({"model": "m", "max_tokens": 9, "messages": HI}, "/v1/messages/count_tokens")
        assert reply.json()["input_tokens"] > 0
        assert side.backend.requests == []


async def test_responses_are_translated_both_ways() -> None:
    async with roadside(echo) as side:
        side.desk.dialect = CHATS_ONLY
        value = (await side.ask({"model": "m", "input": "hi"}, "/v1/responses")).json()
        assert value["output"][0]["content"][0]["text"] == "Hello"
        assert value["usage"]["total_tokens"] == 5


async def test_a_translated_whole_answer_may_have_been_asked_for_as_a_stream() -> None:
    async with roadside(stream) as side:
        side.desk.dialect = replace(CHATS_ONLY, stream_only=frozenset({"/v1/chat/completions"}))
        value = (await side.ask({"model": "m", "max_tokens": 9, "messages": HI}, "/v1/messages")).json()
        assert value["content"] == [{"type": "text", "text": "Hello"}]
        value = (await side.ask({**CHAT, "stream": False}, "/api/chat")).json()
        assert value["message"]["content"] == "Hello"
        assert all(seen.json()["stream"] for seen in side.backend.requests)


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/v1/messages", {"type": "error", "error": {"type": "invalid_request_error", "message": "no", "code": "c"}}),
        ("/api/chat", {"error": "no", "code": "c"}),
    ],
)
async def test_an_engines_refusal_takes_the_clients_form(path: str, shape: object) -> None:
    async def script(talk: Talk) -> None:
        await talk.json({"error": {"message": "no", "code": "c"}}, "400 Bad Request")

    async with roadside(script) as side:
        side.desk.dialect = CHATS_ONLY
        reply = await side.ask({**CHAT, "max_tokens": 9, "stream": False}, path)
        assert (reply.status, reply.json()) == (400, shape)
        assert side.desk.released[0].outcome is Outcome.done


async def test_a_whole_answer_that_is_none_is_a_fault_of_the_engine() -> None:
    async def script(talk: Talk) -> None:
        await talk.json({"choices": []})

    async with roadside(script) as side:
        side.desk.dialect = CHATS_ONLY
        reply = await side.ask({**CHAT, "max_tokens": 9}, "/v1/messages")
        assert (reply.status, reply.json()["error"]["code"]) == (502, "engine_answered_badly")
        assert side.desk.released[0].outcome is Outcome.failed


# Ollama's clients


def ndjson(reply: Reply) -> list[dict[str, object]]:
    return [json.loads(line) for line in reply.body.splitlines()]


async def test_ollama_streams_by_itself_and_may_write_latest() -> None:
    async with roadside(stream) as side:
        reply = await side.ask({"model": "alias:latest", "messages": HI, "keep_alive": "10m"}, "/api/chat")
        assert reply.header("content-type") == "application/x-ndjson"
        said = ndjson(reply)
        assert "".join(line["message"]["content"] for line in said) == "Hello"  # type: ignore[index]
        assert said[-1]["done"] is True
        assert side.backend.requests[0].json()["model"] == "m"
        assert side.desk.wishes[0].keep_s == 600.0


async def test_ollama_embeds() -> None:
    async def script(talk: Talk) -> None:
        await talk.json({"data": [{"index": 0, "embedding": [1.0, 2.0]}], "usage": {"prompt_tokens": 4}})

    async with roadside(script) as side:
        value = (await side.ask({"model": "m", "input": "x", "options": {"num_ctx": 9}}, "/api/embed")).json()
        assert value["embeddings"] == [[1.0, 2.0]]
        assert side.backend.requests[0].target == "/v1/embeddings"
        assert (await side.ask({"model": "m", "prompt": "x"}, "/api/embeddings")).json() == {"embedding": [1.0, 2.0]}


async def test_a_request_for_nothing_loads_or_lets_go() -> None:
    async with roadside(echo) as side:
        value = (await side.ask({"model": "m"}, "/api/generate")).json()
        assert (value["done_reason"], value["response"]) == ("load", "")
        value = (await side.ask({"model": "m", "keep_alive": 0}, "/api/generate")).json()
        assert value["done_reason"] == "unload"
        assert len(side.desk.wishes) == 1, "what is not loaded is not loaded in order to go"
        side.desk.loaded = ("m",)
        await side.ask({"model": "m", "keep_alive": 0}, "/api/generate")
        assert side.desk.wishes[1].keep_s == 0
        assert side.backend.requests == []


async def test_ollamas_errors_are_texts() -> None:
    async with roadside(echo) as side:
        assert (
            (await side.ask({"model": "nobody", "messages": HI}, "/api/chat")).json()["error"].startswith("cannot find")
        )
        reply = await side.ask({"messages": HI}, "/api/chat")
        assert (reply.status, "name one" in reply.json()["error"]) == (400, True)
        reply = await side.ask({"model": "m", "messages": HI, "keep_alive": "soon"}, "/api/chat")
        assert "keep_alive" in reply.json()["error"]


async def test_a_lease_taken_back_ends_a_translated_stream_with_its_form_of_an_error() -> None:
    async def endless(talk: Talk) -> None:
        await talk.events(chunk("x"), end=False)
        await talk.gone.wait()

    async with roadside(endless) as side:
        client = await side.client()
        await client.post(CHAT, "/api/chat")
        await client.read(lambda reply: bool(reply.pieces))
        side.desk.end(EndReason.stalled)
        assert "error" in ndjson(await client.read())[-1]
