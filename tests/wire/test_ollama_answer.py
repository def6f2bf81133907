"""Lines and answers in Ollama's form say what the engine said, counted in its own words."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router.wire.ollama import Form
from llm_router.wire.ollama_answer import OllamaStream, error_answer, error_body, loaded, moment, vectors, whole_answer

DONE = b"[DONE]"
START = 1_790_000_000.0
TIMINGS = {"prompt_n": 4, "cache_n": 2, "prompt_per_second": 8.0, "predicted_n": 3, "predicted_ms": 250.0}


def chunk(delta: dict[str, Any], finish: str | None = None, **extra: Any) -> bytes:
    return json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish, **extra}]}).encode()


def usage(**more: Any) -> bytes:
    return json.dumps({"choices": [], "usage": {"prompt_tokens": 6, "completion_tokens": 3}, **more}).encode()


def lines(*payloads: bytes, form: Form = Form.chat, load_s: float = 0.0) -> list[dict[str, Any]]:
    """The lines of a stream whose events come half a second apart."""
    stream = OllamaStream(form, "m", START, load_s)
    told = [stream.feed(one, START + load_s + (n + 1) / 2) for n, one in enumerate(payloads)]
    told.append(stream.end(START + 100))
    assert stream.complete != stream.failed
    text = b"".join(told)
    assert text.endswith(b"\n")
    return [json.loads(line) for line in text.splitlines()]


def test_a_chat_line_by_line() -> None:
    told = lines(
        chunk({"role": "assistant", "content": None}),
        chunk({"content": "Hé"}),
        chunk({"content": "y"}),
        chunk({}, "stop"),
        usage(),
        DONE,
    )
    assert told == [
        {
            "model": "m",
            "created_at": "2026-09-21T14:13:21Z",
            "message": {"role": "assistant", "content": "Hé"},
            "done": False,
        },
        {
            "model": "m",
            "created_at": "2026-09-21T14:13:21.500000Z",
            "message": {"role": "assistant", "content": "y"},
            "done": False,
        },
        {
            "model": "m",
            "created_at": "2026-09-21T14:13:23Z",
            "message": {"role": "assistant", "content": ""},
            "done": True,
            "done_reason": "stop",
            "total_duration": 3_000_000_000,
            "load_duration": 0,
            "prompt_eval_count": 6,
            "prompt_eval_duration": 1_000_000_000,
            "eval_count": 3,
            "eval_duration": 500_000_000,
        },
    ]


def test_the_engines_own_times_are_taken() -> None:
    last = lines(chunk({"content": "a"}), chunk({}, "length"), usage(timings=TIMINGS), DONE, load_s=7.0)[-1]
    assert last["done_reason"] == "length"
    assert last["load_duration"] == 7_000_000_000
    assert last["total_duration"] == 9_000_000_000
    assert (last["prompt_eval_count"], last["prompt_eval_duration"]) == (6, 500_000_000), (
        "four tokens read, two from the cache"
    )
    assert (last["eval_count"], last["eval_duration"]) == (3, 250_000_000)


def test_tokens_are_counted_where_the_engine_does_not() -> None:
    last = lines(chunk({"content": "a"}), chunk({"content": "b"}), chunk({}, "stop"))[-1]
    assert last["eval_count"] == 2
    assert "prompt_eval_count" not in last


def test_thinking_has_its_own_field() -> None:
    told = lines(chunk({"reasoning_content": "hm"}), chunk({"content": "a"}), chunk({}, "stop"))
    assert told[0]["message"] == {"role": "assistant", "content": "", "thinking": "hm"}


def test_tool_calls_come_whole_before_the_end() -> None:
    told = lines(
        chunk({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x"'}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]}),
        chunk({"tool_calls": [{"index": 1, "function": {"name": "g", "arguments": "nonsense"}}]}),
        chunk({}, "tool_calls"),
        DONE,
    )
    assert [line["done"] for line in told] == [False, True]
    assert told[0]["message"]["tool_calls"] == [
        {"id": "a", "function": {"name": "f", "arguments": {"x": 1}}},
        {"function": {"name": "g", "arguments": {"raw": "nonsense"}}},
    ]


def test_generate_has_a_response() -> None:
    told = lines(chunk({"content": "a", "reasoning": "hm"}), chunk({}, "stop"), form=Form.generate)
    assert (told[0]["response"], told[0]["thinking"]) == ("a", "hm")
    assert (told[-1]["response"], told[-1]["done"]) == ("", True)
    raw = b'{"choices":[{"index":0,"text":"b","finish_reason":"stop"}]}'
    assert [line["response"] for line in lines(raw, form=Form.generate)] == ["b", ""]


def test_probabilities_stand_beside_their_text() -> None:
    tokens = [{"token": "a", "logprob": -0.5, "top_logprobs": []}]
    told = lines(chunk({"content": "a"}, logprobs={"content": tokens}), chunk({}, "stop"))
    assert told[0]["logprobs"] == tokens


@pytest.mark.parametrize(
    ("payloads", "says"),
    [
        ([], "the engine broke the answer off"),
        ([chunk({"content": "a"}), DONE], "the engine broke the answer off"),
        ([chunk({}, "abort"), DONE], "the engine broke the answer off"),
        ([b'{"error":{"message":"out of memory"}}', chunk({}, "stop")], "out of memory"),
        ([b'{"object":"error","message":"flat"}'], "flat"),
        ([b"{"], "the engine sent an event that cannot be read"),
    ],
)
def test_a_broken_answer_ends_with_an_error(payloads: list[bytes], says: str) -> None:
    told = lines(*payloads)
    assert told[-1] == {"error": says}
    assert not any(line.get("done") for line in told)


def test_a_whole_answer() -> None:
    calls = [{"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}]
    message = {"role": "assistant", "content": "Hi", "reasoning_content": "hm", "tool_calls": calls}
    body = {
        "choices": [{"message": message, "finish_reason": "tool_calls"}],
        "usage": {"prompt_tokens": 6, "completion_tokens": 3},
        "timings": TIMINGS,
    }
    assert json.loads(whole_answer(Form.chat, json.dumps(body).encode(), "m", START, START + 3, 1.0)) == {
        "model": "m",
        "created_at": moment(START + 3),
        "message": {
            "role": "assistant",
            "content": "Hi",
            "thinking": "hm",
            "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": {"x": 1}}}],
        },
        "done": True,
        "done_reason": "stop",
        "total_duration": 3_000_000_000,
        "load_duration": 1_000_000_000,
        "prompt_eval_count": 6,
        "prompt_eval_duration": 500_000_000,
        "eval_count": 3,
        "eval_duration": 250_000_000,
    }
    text = b'{"choices":[{"text":"b","finish_reason":"length"}]}'
    plain = json.loads(whole_answer(Form.generate, text, "m", START, START))
    assert (plain["response"], plain["done_reason"]) == ("b", "length")


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"{}", b'{"choices":[{"text":"b","finish_reason":"abort"}]}', b'{"choices":[{"text":"b"}]}']
)
def test_what_is_no_whole_answer_is_not_translated(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"^cannot translate the engine's answer"):
        whole_answer(Form.chat, body, "m", START, START)


def test_vectors_in_order() -> None:
    body = json.dumps(
        {"data": [{"index": 1, "embedding": [2.5]}, {"index": 0, "embedding": [1.5]}], "usage": {"prompt_tokens": 4}}
    ).encode()
    assert json.loads(vectors(Form.embed, body, "m", START, START + 1)) == {
        "model": "m",
        "embeddings": [[1.5], [2.5]],
        "total_duration": 1_000_000_000,
        "load_duration": 0,
        "prompt_eval_count": 4,
    }
    assert json.loads(vectors(Form.embeddings, body, "m", START, START)) == {"embedding": [1.5]}
    with pytest.raises(ValueError, match=r"holds no embedding"):
        vectors(Form.embed, b'{"data":7}', "m", START, START)


def test_a_load_alone_is_told() -> None:
    assert json.loads(loaded(Form.chat, "m", START)) == {
        "model": "m",
        "created_at": moment(START),
        "message": {"role": "assistant", "content": ""},
        "done": True,
        "done_reason": "load",
    }
    gone = json.loads(loaded(Form.generate, "m", START, unloaded=True))
    assert (gone["response"], gone["done_reason"]) == ("", "unload")
    assert json.loads(loaded(Form.embed, "m", START))["embeddings"] == []
    assert json.loads(loaded(Form.embeddings, "m", START)) == {"embedding": []}


def test_errors() -> None:
    assert error_body("no") == b'{"error":"no"}\n'
    assert json.loads(error_answer(b'{"detail":"No models are currently loaded."}')) == {
        "error": "No models are currently loaded."
    }


WORDS = st.lists(
    st.tuples(st.sampled_from(["content", "reasoning_content"]), st.text(min_size=1, max_size=4)), max_size=8
)


@given(WORDS, st.sampled_from([Form.chat, Form.generate]))
def test_the_lines_hold_the_whole_text(words: list[tuple[str, str]], form: Form) -> None:
    told = lines(*(chunk({kind: text}) for kind, text in words), chunk({}, "stop"), form=form)
    bodies = [line["message"] if form is Form.chat else line for line in told]
    key = "content" if form is Form.chat else "response"
    assert "".join(body[key] for body in bodies) == "".join(text for kind, text in words if kind == "content")
    assert "".join(body.get("thinking", "") for body in bodies) == "".join(
        text for kind, text in words if kind != "content"
    )
    assert [line["done"] for line in told].count(True) == 1


JSON = st.recursive(
    st.none() | st.integers(-2, 2) | st.sampled_from(["a", "stop", "abort"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                [
                    "choices",
                    "delta",
                    "text",
                    "content",
                    "tool_calls",
                    "function",
                    "name",
                    "arguments",
                    "usage",
                    "timings",
                    "finish_reason",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(st.lists(JSON | st.builds(lambda delta: {"choices": [{"delta": delta}]}, JSON), max_size=4))
def test_no_chunk_makes_it_fail_or_end_twice(chunks: list[Any]) -> None:
    told = lines(*(json.dumps(one).encode() for one in chunks))
    assert sum(bool(line.get("done")) or "error" in line for line in told) == 1


@pytest.mark.real
@pytest.mark.slow
def test_a_real_stream_line_by_line(
    ask_llama: Callable[[str, dict[str, Any]], bytes], split_stream: Callable[[bytes], list[bytes]]
) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": True, "stream_options": {"include_usage": True}}
    told = lines(*split_stream(ask_llama("/v1/chat/completions", body)))
    assert "".join(line["message"]["content"] for line in told) == "I am alpha, a demo model, é 🙂 done."
    assert (told[-1]["eval_count"], told[-1]["prompt_eval_count"]) == (10, 6)
    assert 0 < told[-1]["eval_duration"] < 1_000_000_000
