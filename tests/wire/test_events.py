import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router.wire import sse
from llm_router.wire.answer import Terms
from llm_router.wire.events import MessagesAnswer, ResponsesAnswer
from llm_router.wire.paths import Api
from llm_router.wire.status import face


def event(kind: str, **more: object) -> bytes:
    return sse.named(kind.encode(), json.dumps({"type": kind, **more}).encode())


def values(out: bytes) -> list[Any]:
    return [json.loads(text) for text in map(sse.payload, sse.events(out)) if text is not None]


RESPONSES = [
    event("response.created", sequence_number=0, response={}),
    event("response.in_progress", sequence_number=1, response={}),
    event("response.output_text.delta", sequence_number=2, delta="hi", logprobs=[]),
    event(
        "response.completed",
        sequence_number=3,
        response={"usage": {"input_tokens": 1, "output_tokens": 2}, "output": []},
    ),
]
MESSAGES = [
    event("message_start", message={"usage": {"input_tokens": 7, "output_tokens": 1}}),
    event("content_block_delta", index=0, delta={"type": "text_delta", "text": "hi"}),
    event("ping"),
    event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 9}),
    event("message_stop"),
]


def responses(opened: bool = False) -> ResponsesAnswer:
    terms = Terms(face=face(Api.responses, "event", "id", "m", 1), opened=opened)
    if opened and terms.face is not None:
        terms.face.opening("x")
    return ResponsesAnswer(terms)


def messages(opened: bool = False) -> MessagesAnswer:
    return MessagesAnswer(Terms(face=face(Api.messages, "event", "id", "m", 1), opened=opened))


def test_unopened_streams_pass_byte_for_byte_and_are_read() -> None:
    one, two = responses(), messages()
    assert b"".join(one.feed(block, 1.0) for block in RESPONSES) == b"".join(RESPONSES)
    assert b"".join(two.feed(block, 1.0) for block in MESSAGES) == b"".join(MESSAGES)
    assert (one.done, one.meter.completion, two.done, two.meter.completion, two.meter.prompt) == (True, 2, True, 9, 7)


def test_an_opened_response_goes_on_counting() -> None:
    out = values(responses(opened=True).feed(b"".join(RESPONSES), 1.0))
    assert [(value["type"], value["sequence_number"]) for value in out] == [
        ("response.output_text.delta", 2),
        ("response.completed", 3),
    ]


def test_an_opened_message_keeps_the_count_of_its_prompt() -> None:
    out = values(messages(opened=True).feed(b"".join(MESSAGES), 1.0))
    assert [value["type"] for value in out] == ["content_block_delta", "ping", "message_delta", "message_stop"]
    assert out[2]["usage"] == {"input_tokens": 7, "output_tokens": 9}


def test_an_event_to_obey_is_taken_out_of_responses() -> None:
    hostile = event("response.output_text.delta", delta="x", event={"type": "execute"})
    (value,) = values(responses().feed(hostile, 1.0))
    assert "event" not in value


@pytest.mark.parametrize(("make", "blocks"), [(responses, RESPONSES), (messages, MESSAGES)])
def test_without_its_end_it_is_an_error(make: Any, blocks: list[bytes]) -> None:
    answer = make()
    answer.feed(b"".join(blocks[:-1]), 1.0)
    assert answer.end(2.0).startswith(b"event: error\n")
    assert answer.failed


@pytest.mark.parametrize("make", [responses, messages])
def test_an_error_of_the_engine_is_the_end(make: Any) -> None:
    answer = make()
    block = event("error", error={"message": "x"})
    assert answer.feed(block, 1.0) == block
    assert answer.end(2.0) == b""
    assert answer.failed


def test_calls_for_tools_are_seen() -> None:
    one, two = responses(), messages()
    one.feed(event("response.completed", response={"output": [{"type": "function_call"}]}), 1.0)
    two.feed(event("message_delta", delta={"stop_reason": "tool_use"}), 1.0)
    assert one.continues
    assert two.continues


@given(st.lists(st.integers(0, 600), max_size=12), st.booleans(), st.booleans())
def test_however_it_is_cut_the_client_gets_the_same(cuts: list[int], opened: bool, which: bool) -> None:
    make: Any = responses if which else messages
    stream = b"".join(RESPONSES if which else MESSAGES)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    whole, cut = make(opened), make(opened)
    pieces = [stream[begin:end] for begin, end in itertools.pairwise(edges)]
    assert b"".join(cut.feed(piece, 1.0) for piece in pieces) == whole.feed(stream, 1.0)
    assert cut.done
