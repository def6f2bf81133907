"""Answers in Anthropic's form are what its own SDK reads, and a broken answer never looks whole."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import anthropic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.canned import answering
from llm_router.wire.anthropic_answer import MessageStream, error_answer, message_answer
from llm_router.wire.join import Joiner, joiner
from llm_router.wire.sse import events, payload


def chunk(delta: dict[str, Any], finish: str | None = None, **extra: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, **extra}
    return json.dumps({"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}).encode()


def call(index: int | None, **fields: Any) -> dict[str, Any]:
    ident = {"id": fields.pop("id")} if "id" in fields else {}
    at = {} if index is None else {"index": index}
    return {"tool_calls": [{**at, **ident, "type": "function", "function": fields}]}


USAGE = b'{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":5}}}'
DONE = b"[DONE]"


def streamed(*payloads: bytes, stops: tuple[str, ...] = (), opened: bool = False) -> bytes:
    stream = MessageStream("msg_1", "m", stops, opened=opened)
    told = b"".join([stream.start(), *(stream.feed(one) for one in payloads), stream.end()])
    assert stream.complete != stream.failed
    return told


def told(stream: bytes) -> list[dict[str, Any]]:
    return [json.loads(payload(event) or b"null") for event in events(stream)]


def joined(stream: bytes) -> Joiner:
    found = joiner("/v1/messages")
    assert found is not None
    for event in events(stream):
        found.feed(payload(event) or b"")
    return found


def message(*payloads: bytes, **options: Any) -> Any:
    return json.loads(joined(streamed(*payloads, **options)).result())


def test_text_in_the_order_the_sdk_wants() -> None:
    stream = told(
        streamed(
            chunk({"role": "assistant", "content": None}),
            chunk({"content": "Hé"}),
            chunk({"content": "y"}),
            chunk({}, "stop"),
            USAGE,
            DONE,
        )
    )
    assert [event["type"] for event in stream] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert stream[2]["delta"] == {"type": "text_delta", "text": "Hé"}
    assert stream[-2] == {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"input_tokens": 4, "output_tokens": 4, "cache_read_input_tokens": 5},
    }


def test_every_event_is_named_as_its_type() -> None:
    for event in events(streamed(chunk({"content": "a"}), chunk({}, "stop"))):
        name, data = event.decode().strip().split("\n")
        assert name == "event: " + json.loads(data.removeprefix("data: "))["type"]


def test_a_start_that_was_sent_is_not_sent_again() -> None:
    assert told(streamed(chunk({"content": "a"}), chunk({}, "stop"), opened=True))[0]["type"] == "content_block_start"


def test_thinking_then_text_then_tools() -> None:
    answer = message(
        chunk({"reasoning": "h"}),
        chunk({"reasoning_content": "m"}),
        chunk({"content": "so"}),
        chunk(call(0, id="a", name="f", arguments="")),
        chunk(call(0, arguments='{"x"')),
        chunk(call(1, id="b", name="g", arguments="{")),
        chunk(call(0, arguments=":1}")),
        chunk(call(1, arguments="}")),
        chunk({}, "tool_calls"),
        DONE,
    )
    assert answer["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": ""},
        {"type": "text", "text": "so"},
        {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
        {"type": "tool_use", "id": "b", "name": "g", "input": {}},
    ]
    assert answer["stop_reason"] == "tool_use"


def test_blocks_never_overlap() -> None:
    stream = told(
        streamed(
            chunk(call(0, id="a", name="f")),
            chunk(call(1, id="b", name="g")),
            chunk(call(2, id="c", name="h")),
            chunk({"content": "t"}),
            chunk({}, "stop"),
        )
    )
    opened: list[int] = []
    for event in stream:
        match event["type"]:
            case "content_block_start":
                opened.append(event["index"])
                assert len(opened) == 1
            case "content_block_stop":
                assert opened.pop() == event["index"]
    assert not opened
    assert [event["index"] for event in stream if event["type"] == "content_block_start"] == [0, 1, 2, 3]


def test_whole_calls_without_an_index() -> None:
    answer = message(
        chunk(call(None, name="f", arguments="{}")), chunk(call(None, name="g", arguments="{}")), chunk({}, "stop")
    )
    assert [(block["name"], block["id"]) for block in answer["content"]] == [
        ("f", "msg_1_tool_0"),
        ("g", "msg_1_tool_1"),
    ]
    assert answer["stop_reason"] == "tool_use"


def test_a_call_that_goes_on_after_its_end_is_an_error() -> None:
    stream = streamed(
        chunk(call(0, id="a", name="f")), chunk({"content": "t"}), chunk(call(0, arguments="{}")), chunk({}, "stop")
    )
    assert told(stream)[-1]["type"] == "error"


@pytest.mark.parametrize(
    ("finish", "extra", "reason"),
    [
        ("stop", {}, "end_turn"),
        ("length", {}, "max_tokens"),
        ("content_filter", {}, "refusal"),
        ("stop", {"stop_reason": "END"}, "stop_sequence"),
        ("stop", {"matched_stop": "END"}, "stop_sequence"),
        ("stop", {"matched_stop": 2}, "end_turn"),
    ],
)
def test_why_it_stopped(finish: str, extra: dict[str, Any], reason: str) -> None:
    answer = message(chunk({"content": "a"}), chunk({}, finish, **extra), DONE, stops=("END",))
    assert answer["stop_reason"] == reason
    assert answer["stop_sequence"] == ("END" if reason == "stop_sequence" else None)
    whole = {"choices": [{"message": {"content": "a"}, "finish_reason": finish, **extra}]}
    assert json.loads(message_answer(json.dumps(whole).encode(), ("END",)))["stop_reason"] == reason


@pytest.mark.parametrize(
    ("payloads", "says"),
    [
        ([], "broke the answer off"),
        ([chunk({"content": "a"})], "broke the answer off"),
        ([chunk({"content": "a"}), DONE], "broke the answer off"),
        ([chunk({}, "abort"), DONE], "broke the answer off"),
        ([b'{"error":{"message":"out of memory","code":500}}', chunk({}, "stop"), DONE], "out of memory"),
        ([b'{"error":"text"}'], "text"),
        ([b'{"object":"error","message":"flat"}'], "flat"),
        ([b'{"error":{"code":7}}'], '{"code":7}'),
        ([b"{", chunk({}, "stop")], "cannot be read"),
    ],
)
def test_a_broken_answer_ends_with_an_error(payloads: list[bytes], says: str) -> None:
    stream = streamed(*payloads)
    last = told(stream)[-1]
    assert (last["type"], last["error"]["type"]) == ("error", "api_error")
    assert says in last["error"]["message"]
    assert not joined(stream).complete


@pytest.mark.parametrize(
    "whole", [b"{", b"[]", b"{}", b'{"choices":[{"message":{"content":"a"},"finish_reason":"abort"}]}']
)
def test_what_is_no_whole_answer_is_not_translated(whole: bytes) -> None:
    with pytest.raises(ValueError, match=r"^cannot translate the engine's answer"):
        message_answer(whole)


@pytest.mark.parametrize(
    ("status", "body", "kind", "says"),
    [
        (400, b'{"error":{"message":"too long","type":"x"}}', "invalid_request_error", "too long"),
        (404, b'{"object":"error","message":"no such"}', "not_found_error", "no such"),
        (503, b'{"detail":"No models are currently loaded."}', "overloaded_error", "No models are currently loaded."),
        (422, b'{"detail":[{"loc":["body"]}]}', "api_error", '[{"loc":["body"]}]'),
        (500, b"", "api_error", "no reason"),
        (500, b"Internal Server Error\xff", "api_error", "Internal Server Error\ufffd"),
    ],
)
def test_errors_in_anthropics_form(status: int, body: bytes, kind: str, says: str) -> None:
    error = json.loads(error_answer(status, body))
    assert error["type"] == "error"
    assert error["error"]["type"] == kind
    assert says in error["error"]["message"]


WORDS = st.lists(
    st.tuples(st.sampled_from(["content", "reasoning_content", "tool"]), st.text(max_size=5)).filter(
        lambda word: word[1]
    ),
    max_size=8,
)


@given(WORDS)
def test_stream_and_whole_answer_are_the_same_message(words: list[tuple[str, str]]) -> None:
    """As engines write them: thinking, then text, then calls."""
    order = ["reasoning_content", "content", "tool"]
    words.sort(key=lambda word: order.index(word[0]))
    calls = [
        {"id": f"t{n}", "function": {"name": "f", "arguments": json.dumps({"a": said})}}
        for n, (kind, said) in enumerate(words)
        if kind == "tool"
    ]
    payloads = [chunk({kind: said}) for kind, said in words if kind != "tool"]
    payloads += [chunk({"tool_calls": [{"index": n, **one}]}) for n, one in enumerate(calls)]
    whole = {
        "id": "msg_1",
        "model": "m",
        "choices": [
            {
                "finish_reason": "stop",
                "message": {
                    **{kind: "".join(said for name, said in words if name == kind) for kind in order[:2]},
                    "tool_calls": calls,
                },
            }
        ],
        "usage": json.loads(USAGE)["usage"],
    }
    streamed_one = message(*payloads, chunk({}, "stop"), USAGE, DONE)
    assert streamed_one == json.loads(message_answer(json.dumps(whole).encode()))


JSON = st.recursive(
    st.none() | st.integers(-2, 2) | st.sampled_from(["a", "stop", "abort"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                [
                    "choices",
                    "delta",
                    "message",
                    "content",
                    "tool_calls",
                    "function",
                    "name",
                    "arguments",
                    "index",
                    "id",
                    "usage",
                    "finish_reason",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)
DELTAS = st.builds(lambda delta: {"choices": [{"delta": delta}]}, JSON)


@given(st.lists(JSON | DELTAS, max_size=5))
def test_no_chunk_makes_it_fail_or_end_twice(chunks: list[Any]) -> None:
    stream = told(streamed(*(json.dumps(one).encode() for one in chunks)))
    ends = [event["type"] for event in stream if event["type"] in {"message_stop", "error"}]
    assert len(ends) == 1
    assert stream[-1]["type"] == ends[0]
    for one in chunks:
        with suppress(ValueError):
            message_answer(json.dumps(one).encode())


@contextmanager
def sdk(kind: str, body: bytes, status: int = 200) -> Iterator[anthropic.Anthropic]:
    """The SDK, and a server that gives it this answer."""
    with (
        answering(kind, body, status) as address,
        anthropic.Anthropic(base_url=address, api_key="k", max_retries=0) as client,
    ):
        yield client


ASKED: Any = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.slow
def test_the_sdk_reads_the_stream() -> None:
    body = streamed(
        chunk({"reasoning_content": "hm"}),
        chunk({"content": "Let "}),
        chunk({"content": "me"}),
        chunk(call(0, id="a", name="f", arguments='{"city":')),
        chunk(call(0, arguments='"Rome"}')),
        chunk({}, "tool_calls"),
        USAGE,
        DONE,
    )
    with sdk("text/event-stream", body) as client, client.messages.stream(**ASKED) as stream:
        assert "".join(stream.text_stream) == "Let me"
        final = stream.get_final_message()
    assert [block.type for block in final.content] == ["thinking", "text", "tool_use"]
    tool = final.content[2]
    assert tool.type == "tool_use"
    assert (tool.id, tool.name, tool.input) == ("a", "f", {"city": "Rome"})
    assert final.stop_reason == "tool_use"
    assert (final.usage.input_tokens, final.usage.output_tokens, final.usage.cache_read_input_tokens) == (4, 4, 5)


def test_the_sdk_raises_a_broken_stream() -> None:
    body = streamed(chunk({"content": "a"}), b'{"error":{"message":"out of memory"}}')
    refused = pytest.raises(anthropic.APIStatusError, match="out of memory")
    with sdk("text/event-stream", body) as client, client.messages.stream(**ASKED) as stream, refused:
        stream.until_done()


def test_the_sdk_reads_a_whole_answer_and_an_error() -> None:
    whole = b'{"id":"c","model":"m","choices":[{"message":{"content":"Hi"},"finish_reason":"length"}],"usage":{"prompt_tokens":3,"completion_tokens":1}}'
    with sdk("application/json", message_answer(whole)) as client:
        answer = client.messages.create(**ASKED)
    assert answer.content[0].type == "text"
    assert (answer.content[0].text, answer.stop_reason, answer.usage.input_tokens) == ("Hi", "max_tokens", 3)
    error = error_answer(503, b'{"detail":"No models are currently loaded."}')
    refused = pytest.raises(anthropic.APIStatusError, match="No models are currently loaded")
    with sdk("application/json", error, 503) as client, refused as raised:
        client.messages.create(**ASKED)
    assert raised.value.type == "overloaded_error"


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("tokens", [3, 30])
def test_a_translated_real_answer_is_the_engines_own(
    tokens: int, ask_llama: Callable[[str, dict[str, Any]], bytes], split_stream: Callable[[bytes], list[bytes]]
) -> None:
    """llama.cpp speaks both APIs: what it says as messages is what we make of its chat completion."""
    asked = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": tokens}

    def steady(body: bytes) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(body)
        usage = answer["usage"]
        prompt = usage["input_tokens"] + usage.get("cache_read_input_tokens", 0)
        return {**answer, "id": "", "usage": (prompt, usage["output_tokens"])}

    own = steady(ask_llama("/v1/messages", asked))
    assert steady(message_answer(ask_llama("/v1/chat/completions", asked))) == own
    usage = {"stream_options": {"include_usage": True}}
    chunks = split_stream(ask_llama("/v1/chat/completions", {**asked, **usage, "stream": True}))
    stream = MessageStream("msg_1", "alpha")
    assert steady(joined(b"".join(stream.feed(one) for one in chunks)).result()) == own
