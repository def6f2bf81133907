"""A joined stream is the answer that would have come without streaming, or no answer at all."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router.wire.join import Joiner, joiner, read_arguments

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
MESSAGES = "/v1/messages"
RESPONSES = "/v1/responses"


def fed(path: str, *events: object) -> Joiner:
    found = joiner(path)
    assert found is not None
    for event in events:
        found.feed(event if isinstance(event, bytes) else json.dumps(event, ensure_ascii=False).encode())
    return found


def joined(path: str, *events: object) -> Any:
    return json.loads(fed(path, *events).result())


def chunk(delta: dict[str, Any], finish: str | None = None, index: int = 0, **top: object) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return {"id": "c1", "object": "chat.completion.chunk", "created": 7, "model": "m", "choices": [choice], **top}


def usage_chunk(**top: object) -> dict[str, Any]:
    return {"id": "c1", "object": "chat.completion.chunk", "created": 7, "model": "m", "choices": [], **top}


def test_paths_that_cannot_be_joined_have_no_joiner() -> None:
    assert joiner("/v1/embeddings") is None
    assert joiner("/chat/completions") is not None


def test_a_chat_is_put_together() -> None:
    answer = joined(
        CHAT,
        chunk({"role": "assistant", "content": None}, system_fingerprint="f"),
        chunk({"reasoning_content": "so "}),
        chunk({"reasoning_content": "it is"}),
        chunk({"content": "Hé"}),
        chunk({"content": "llo"}),
        chunk({}, "stop"),
        usage_chunk(usage={"completion_tokens": 3}, timings={"predicted_ms": 0.13366666666666668}),
        b"[DONE]",
    )
    assert answer == {
        "id": "c1",
        "object": "chat.completion",
        "created": 7,
        "model": "m",
        "system_fingerprint": "f",
        "usage": {"completion_tokens": 3},
        "timings": {"predicted_ms": 0.13366666666666668},
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": "Héllo", "reasoning_content": "so it is"},
            }
        ],
    }


def test_choices_that_interleave_are_kept_apart_and_in_order() -> None:
    answer = joined(
        CHAT,
        chunk({"content": "b"}, index=1),
        chunk({"content": "a"}, index=0),
        chunk({"content": "B"}, "length", index=1),
        usage_chunk(usage={"completion_tokens": 1}),
        chunk({"content": "A"}, "stop", index=0),
    )
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert [choice["message"]["content"] for choice in answer["choices"]] == ["aA", "bB"]
    assert [choice["finish_reason"] for choice in answer["choices"]] == ["stop", "length"]


def test_tool_calls_are_merged_by_index() -> None:
    answer = joined(
        CHAT,
        chunk({"role": "assistant", "content": ""}),
        chunk(
            {"tool_calls": [{"index": 0, "id": "x", "type": "function", "function": {"name": "f", "arguments": ""}}]}
        ),
        chunk({"tool_calls": [{"index": 0, "id": "", "type": None, "function": {"name": None, "arguments": '{"a"'}}]}),
        chunk(
            {"tool_calls": [{"index": 1, "id": "y", "type": "function", "function": {"name": "g", "arguments": "{}"}}]}
        ),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]}),
        chunk({}, "tool_calls"),
    )
    message = answer["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"] == [
        {"id": "x", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
        {"id": "y", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]


@pytest.mark.parametrize(
    ("names", "whole"),
    [
        (["look", "up"], "lookup"),
        (["lookup", "lookup"], "lookup"),
        (["lookup", ""], "lookup"),
        (["lookup", None], "lookup"),
    ],
)
def test_a_tool_name_may_come_in_pieces_or_be_repeated(names: list[str | None], whole: str) -> None:
    chunks = [chunk({"tool_calls": [{"index": 0, "function": {"name": name}}]}) for name in names]
    answer = joined(CHAT, *chunks, chunk({}, "tool_calls"))
    assert answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == whole


def test_tool_calls_without_an_index_are_told_apart_by_id() -> None:
    calls = [{"id": "x", "function": {"name": "f"}}, {"id": "y", "function": {"name": "g"}}]
    more = [{"id": "x", "function": {"arguments": "{}"}}]
    answer = joined(CHAT, chunk({"tool_calls": calls}), chunk({"tool_calls": more}), chunk({}, "tool_calls"))
    assert [call["function"] for call in answer["choices"][0]["message"]["tool_calls"]] == [
        {"name": "f", "arguments": "{}"},
        {"name": "g"},
    ]


def test_log_probabilities_get_longer() -> None:
    def at(token: str, *, finish: str | None = None) -> dict[str, Any]:
        one = chunk({"content": token}, finish)
        one["choices"][0]["logprobs"] = {"content": [{"token": token, "logprob": -0.5}], "refusal": None}
        return one

    last = chunk({}, "stop")
    last["choices"][0]["logprobs"] = None
    answer = joined(CHAT, at("a"), at("b"), last)
    assert answer["choices"][0]["logprobs"] == {
        "content": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -0.5}],
        "refusal": None,
    }


def test_a_completion_is_put_together() -> None:
    def at(text: str, finish: str | None = None) -> dict[str, Any]:
        logprobs = {"tokens": [text], "text_offset": [1]} if text else None
        choice = {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": finish}
        return {"id": "c", "object": "text_completion", "model": "m", "choices": [choice]}

    answer = joined(TEXT, b"null", at("I"), at(" am"), at("", "length"), b"[DONE]")
    assert answer == {
        "id": "c",
        "object": "text_completion",
        "model": "m",
        "choices": [
            {
                "index": 0,
                "text": "I am",
                "logprobs": {"tokens": ["I", " am"], "text_offset": [1, 1]},
                "finish_reason": "length",
            }
        ],
    }


def test_usage_on_a_chunk_with_choices_and_late_nulls() -> None:
    answer = joined(
        CHAT, chunk({"content": "x"}, usage=None), chunk({}, "stop", usage={"total_tokens": 2}), usage_chunk(usage=None)
    )
    assert answer["usage"] == {"total_tokens": 2}


def test_an_empty_answer_has_an_empty_content() -> None:
    answer = joined(CHAT, chunk({"role": None, "content": None}), chunk({}, "stop"))
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": ""}


def test_keys_that_are_not_for_an_engine_to_send_are_left_out() -> None:
    answer = joined(CHAT, chunk({"content": "x"}, "stop", event={"type": "execute"}, sources=[], type="response.x"))
    assert not {"event", "sources", "type"} & set(answer)


def test_spoken_answers_are_put_together() -> None:
    answer = joined(
        CHAT, chunk({"audio": {"id": "a", "data": "AA"}}), chunk({"audio": {"data": "BB", "expires_at": 5}}, "stop")
    )
    assert answer["choices"][0]["message"]["audio"] == {"id": "a", "data": "AABB", "expires_at": 5}


@pytest.mark.parametrize(
    "error",
    [
        {"error": {"message": "no", "type": "x"}},
        {"error": "text"},
        {"object": "error", "message": "flat", "code": 500},
    ],
)
def test_an_error_ends_the_answer(error: dict[str, Any]) -> None:
    found = fed(CHAT, chunk({"content": "x"}, "stop"), error, chunk({}, "stop"), b"[DONE]")
    assert found.error == json.dumps(error).encode()
    assert not found.complete
    with pytest.raises(ValueError, match="cannot join"):
        found.result()


@pytest.mark.parametrize("path", [CHAT, TEXT, MESSAGES, RESPONSES])
@pytest.mark.parametrize("events", [[], [b"[DONE]"], [b"{"], [b"null", b"[]", b"7"]])
def test_nothing_is_no_answer(path: str, events: list[bytes]) -> None:
    found = fed(path, *events)
    assert (found.complete, found.error) == (False, None)


def test_a_cut_stream_is_no_answer() -> None:
    assert not fed(CHAT, chunk({"content": "x"}), b"[DONE]").complete
    assert not fed(CHAT, chunk({}, "stop", index=0), chunk({"content": "x"}, index=1)).complete
    assert not fed(CHAT, chunk({"content": "x"}), chunk({}, "abort"), b"[DONE]").complete
    assert fed(CHAT, chunk({"content": "x"}, "stop")).complete, "some engines send no [DONE]"


def test_a_lost_event_is_not_covered_up() -> None:
    assert not fed(CHAT, chunk({"content": "x"}), b'{"choices":[{', chunk({}, "stop")).complete


def test_bytes_that_are_not_utf8_survive_as_replacements() -> None:
    event = b'{"choices":[{"index":0,"delta":{"content":"a\xffb"},"finish_reason":"stop"}]}'
    assert joined(CHAT, event)["choices"][0]["message"]["content"] == "a\ufffdb"


def test_messages_are_put_together() -> None:
    answer = joined(
        MESSAGES,
        {
            "type": "message_start",
            "message": {"id": "m", "content": [], "stop_reason": None, "usage": {"input_tokens": 3}},
        },
        {"type": "ping"},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "s"}},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "a"}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "b"}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "citations_delta", "citation": {"n": 1}}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "citations_delta", "citation": {"n": 2}}},
        {
            "type": "content_block_start",
            "index": 2,
            "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}},
        },
        {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"a"'}},
        {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": ":1}"}},
        {"type": "content_block_stop", "index": 2},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    )
    assert answer == {
        "id": "m",
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 3, "output_tokens": 9},
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "text", "text": "ab", "citations": [{"n": 1}, {"n": 2}]},
            {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
        ],
    }


def test_messages_and_responses_end_with_their_errors() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "no"}}
    assert fed(MESSAGES, error, {"type": "message_stop"}).error == json.dumps(error).encode()
    assert fed(RESPONSES, error, {"type": "response.completed", "response": {}}).error == json.dumps(error).encode()


@pytest.mark.parametrize("end", ["completed", "incomplete", "failed"])
def test_responses_end_with_the_whole(end: str) -> None:
    whole = {"id": "r", "output": [{"type": "message"}]}
    assert (
        joined(
            RESPONSES,
            {"type": "response.created", "response": {"id": "r"}},
            {"type": f"response.{end}", "response": whole},
        )
        == whole
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [("", {}), (' {"a":1}', {"a": 1}), ("[1]", {"raw": "[1]"}), ('{"a', {"raw": '{"a'}), ("\udcff", {"raw": "\udcff"})],
)
def test_arguments_are_an_object_whatever_the_model_wrote(text: str, value: dict[str, Any]) -> None:
    assert read_arguments(text) == value


FRAGMENTS = st.lists(st.tuples(st.sampled_from(["content", "reasoning_content", "refusal"]), st.text()), max_size=12)


@given(FRAGMENTS, st.sampled_from(["stop", "length"]))
def test_any_cutting_of_the_texts_gives_the_texts(fragments: list[tuple[str, str]], finish: str) -> None:
    answer = joined(CHAT, *(chunk({key: text}) for key, text in fragments), chunk({}, finish))
    message = answer["choices"][0]["message"]
    for key in {key for key, _ in fragments}:
        assert message[key] == "".join(text for name, text in fragments if name == key)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "choices",
                    "delta",
                    "index",
                    "tool_calls",
                    "function",
                    "name",
                    "content",
                    "type",
                    "message",
                    "usage",
                    "content_block",
                    "finish_reason",
                    "logprobs",
                    "id",
                    "role",
                    "response",
                    "error",
                    "arguments",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
EVENTS = st.sampled_from(
    ["message_start", "content_block_start", "content_block_delta", "message_delta", "message_stop"]
)


@given(st.sampled_from([CHAT, TEXT, MESSAGES, RESPONSES]), st.lists(JSON | st.binary(max_size=8), max_size=4), EVENTS)
def test_no_event_whatsoever_makes_it_fail(path: str, events: list[Any], kind: str) -> None:
    found = fed(path, *events, *({**event, "type": kind} for event in events if isinstance(event, dict)))
    if found.complete:
        json.loads(found.result())


def test_deep_nesting_is_a_lost_event() -> None:
    assert not fed(CHAT, b'{"choices":' + b"[" * 100_000, chunk({}, "stop")).complete


UNSTEADY = {"id", "created", "created_at", "completed_at", "timings"}


def steady(answer: Any) -> Any:
    """The answer without what differs between two runs: ids, times, and how much of the prompt was cached."""
    if isinstance(answer, dict):
        if "input_tokens" in answer and "cache_read_input_tokens" in answer:
            answer = {**answer, "input_tokens": answer["input_tokens"] + answer.pop("cache_read_input_tokens")}
        hidden = UNSTEADY | {"cached_tokens"}
        return {key: steady(value) for key, value in answer.items() if key not in hidden}
    return [steady(one) for one in answer] if isinstance(answer, list) else answer


HELLO = [{"role": "user", "content": "hi"}]


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"messages": HELLO}),
        (CHAT, {"messages": HELLO, "max_tokens": 3, "logprobs": True, "top_logprobs": 2}),
        (CHAT, {"messages": HELLO, "max_tokens": 3, "n": 2}),
        (TEXT, {"prompt": "hi", "max_tokens": 3, "logprobs": 2}),
        (TEXT, {"prompt": ["hi", "ho"], "max_tokens": 2}),
        (MESSAGES, {"messages": HELLO, "max_tokens": 30}),
        (RESPONSES, {"input": "hi"}),
    ],
)
def test_a_real_stream_joins_to_the_real_answer(
    path: str,
    body: dict[str, Any],
    ask_llama: Callable[[str, dict[str, Any]], bytes],
    split_stream: Callable[[bytes], list[bytes]],
) -> None:
    whole = json.loads(ask_llama(path, body))
    usage = {"stream_options": {"include_usage": True}} if path in {CHAT, TEXT} else {}
    events = split_stream(ask_llama(path, {**body, **usage, "stream": True}))
    answer = joined(path, *events)
    assert steady(answer) == steady(whole)
    assert set(whole) - set(answer) <= {"completed_at"}, "which its own last event of a response lacks"
