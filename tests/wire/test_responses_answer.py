"""Answers in the form of the responses API are what OpenAI's own SDK reads, and a broken one never looks whole."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.canned import answering
from llm_router.wire.join import joiner
from llm_router.wire.responses_answer import ResponseStream, response_answer
from llm_router.wire.sse import events, name, payload

ECHO = {"temperature": 0.5}
DONE = b"[DONE]"
USAGE = b'{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":5},"completion_tokens_details":{"reasoning_tokens":2}}}'


def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    return json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}).encode()


def call(index: int, arguments: str, tool: str | None = None, ident: str | None = None) -> dict[str, Any]:
    return {"tool_calls": [{"index": index, "id": ident, "function": {"name": tool, "arguments": arguments}}]}


def streamed(*payloads: bytes, opened: bool = False, sequence: int = 0) -> bytes:
    stream = ResponseStream("resp_1", "m", 7, ECHO, opened=opened, sequence=sequence)
    told = b"".join([stream.start(), *(stream.feed(one) for one in payloads), stream.end()])
    assert stream.complete != stream.failed
    return told


def told(stream: bytes) -> list[dict[str, Any]]:
    return [json.loads(payload(event) or b"null") for event in events(stream)]


ALL = (
    chunk({"reasoning_content": "hm"}),
    chunk({"content": "Let "}),
    chunk({"content": "me"}),
    chunk(call(0, '{"city":', "f", "c1")),
    chunk(call(0, '"Rome"}')),
    chunk({}, "tool_calls"),
    USAGE,
    DONE,
)


def test_events_in_their_order_and_numbered() -> None:
    stream = streamed(*ALL)
    found = told(stream)
    assert [event["type"].removeprefix("response.") for event in found] == [
        *("created", "in_progress"),
        *(
            "output_item.added",
            "content_part.added",
            "reasoning_text.delta",
            "reasoning_text.done",
            "content_part.done",
            "output_item.done",
        ),
        *(
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
        ),
        *("output_item.done", "output_item.added", "function_call_arguments.delta", "function_call_arguments.delta"),
        *("function_call_arguments.done", "output_item.done", "completed"),
    ]
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    assert [name(event).decode() for event in events(stream)] == [event["type"] for event in found]
    assert [event["output_index"] for event in found if event["type"] == "response.output_item.done"] == [0, 1, 2]


def test_a_start_that_was_sent_is_not_sent_again() -> None:
    found = told(streamed(chunk({"content": "a"}), chunk({}, "stop"), opened=True, sequence=4))
    assert (found[0]["type"], found[0]["sequence_number"]) == ("response.output_item.added", 4)


def test_the_end_repeats_the_request_and_counts() -> None:
    response = told(streamed(*ALL))[-1]["response"]
    assert (response["id"], response["created_at"], response["model"], response["temperature"]) == (
        "resp_1",
        7,
        "m",
        0.5,
    )
    assert response["usage"] == {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 5},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 13,
    }


@pytest.mark.parametrize(
    ("finish", "status", "why"),
    [
        ("stop", "completed", None),
        ("length", "incomplete", {"reason": "max_output_tokens"}),
        ("content_filter", "incomplete", {"reason": "content_filter"}),
    ],
)
def test_how_it_ended(finish: str, status: str, why: dict[str, str] | None) -> None:
    last = told(streamed(chunk({"content": "a"}), chunk({}, finish)))[-1]
    assert last["type"] == f"response.{status}"
    assert (last["response"]["status"], last["response"]["incomplete_details"]) == (status, why)


@pytest.mark.parametrize(
    ("payloads", "says"),
    [
        ([], "the engine broke the answer off"),
        ([chunk({"content": "a"}), DONE], "the engine broke the answer off"),
        ([b'{"error":{"message":"out of memory"}}'], "out of memory"),
    ],
)
def test_a_broken_answer_ends_with_an_error(payloads: list[bytes], says: str) -> None:
    last = told(streamed(*payloads))[-1]
    assert (last["type"], last["message"], last["error"]["message"]) == ("error", says, says)


def test_a_whole_answer_needs_a_message() -> None:
    with pytest.raises(ValueError, match=r"^cannot translate the engine's answer"):
        response_answer(b"{}", "resp_1", 7, ECHO)


WORDS = st.lists(
    st.tuples(st.sampled_from(["reasoning_content", "content"]), st.text(min_size=1, max_size=4)), max_size=6
)


@given(WORDS, st.integers(0, 2))
def test_stream_and_whole_answer_are_the_same_response(words: list[tuple[str, str]], calls: int) -> None:
    words.sort(key=lambda word: word[0] == "content")
    tools = [{"index": n, "id": f"c{n}", "function": {"name": "f", "arguments": "{}"}} for n in range(calls)]
    message = {
        **{kind: "".join(text for name, text in words if name == kind) for kind in ("reasoning_content", "content")},
        "tool_calls": tools,
    }
    whole = {
        "model": "m",
        "choices": [{"message": message, "finish_reason": "stop"}],
        "usage": json.loads(USAGE)["usage"],
    }
    payloads = [chunk({kind: text}) for kind, text in words] + [chunk({"tool_calls": [tool]}) for tool in tools]
    found = joiner("/v1/responses")
    assert found is not None
    for event in events(streamed(*payloads, chunk({}, "stop"), USAGE, DONE)):
        found.feed(payload(event) or b"")
    assert json.loads(found.result()) == json.loads(response_answer(json.dumps(whole).encode(), "resp_1", 7, ECHO))


@contextmanager
def sdk(kind: str, body: bytes) -> Iterator[openai.OpenAI]:
    """The SDK, and a server that gives it this answer."""
    with (
        answering(kind, body) as address,
        openai.OpenAI(base_url=f"{address}/v1", api_key="k", max_retries=0) as client,
    ):
        yield client


@pytest.mark.slow
def test_the_sdk_reads_the_stream() -> None:
    with sdk("text/event-stream", streamed(*ALL)) as client, client.responses.stream(model="m", input="hi") as stream:
        texts = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert texts == ["Let ", "me"]
    assert final.output_text == "Let me"
    assert [item.type for item in final.output] == ["reasoning", "message", "function_call"]
    tool = final.output[2]
    assert tool.type == "function_call"
    assert (tool.call_id, tool.name, tool.arguments) == ("c1", "f", '{"city":"Rome"}')
    assert final.usage is not None
    assert final.usage.output_tokens_details.reasoning_tokens == 2


def test_the_sdk_raises_a_broken_stream() -> None:
    body = streamed(chunk({"content": "a"}), b'{"error":{"message":"out of memory"}}')
    refused = pytest.raises(openai.APIError, match="out of memory")
    with sdk("text/event-stream", body) as client, client.responses.stream(model="m", input="hi") as stream, refused:
        stream.until_done()


def test_the_sdk_reads_a_whole_answer() -> None:
    whole = b'{"id":"c","model":"m","choices":[{"message":{"content":"Hi"},"finish_reason":"length"}],"usage":{"prompt_tokens":3,"completion_tokens":1}}'
    with sdk("application/json", response_answer(whole, "resp_1", 7, ECHO)) as client:
        answer = client.responses.create(model="m", input="hi")
    assert (answer.output_text, answer.status, answer.temperature) == ("Hi", "incomplete", 0.5)


@pytest.mark.real
@pytest.mark.slow
def test_a_translated_real_answer_says_what_the_engines_own_says(
    ask_llama: Callable[[str, dict[str, Any]], bytes],
) -> None:
    """llama.cpp speaks both APIs."""
    own = json.loads(ask_llama("/v1/responses", {"input": "hi"}))
    body = ask_llama("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]})
    ours = json.loads(response_answer(body, "resp_1", 7, {}))
    ids = {"id": ""}
    assert [{**item, **ids} for item in ours["output"]] == [{**item, **ids} for item in own["output"]]
    assert (ours["model"], ours["status"]) == (own["model"], own["status"])
    assert {key: ours["usage"][key] for key in ("input_tokens", "output_tokens", "total_tokens")} == {
        key: own["usage"][key] for key in ("input_tokens", "output_tokens", "total_tokens")
    }
