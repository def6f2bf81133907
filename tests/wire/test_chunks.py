import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.backend import DONE, chunk, usage
from llm_router.wire import sse
from llm_router.wire.answer import Terms
from llm_router.wire.chunks import ChunkAnswer
from llm_router.wire.paths import Api
from llm_router.wire.status import face


def terms(**more: Any) -> Terms:
    return Terms(face=face(Api.chat, "event", "id", "m", 1), **{"closing": False, **more})


def event(value: object) -> bytes:
    return b"data: %b\n\n" % json.dumps(value).encode()


def play(blocks: list[bytes], **more: Any) -> tuple[ChunkAnswer, bytes]:
    answer = ChunkAnswer(terms(**more))
    out = b"".join(answer.feed(block, float(at)) for at, block in enumerate(blocks) if not answer.done)
    return answer, out + (b"" if answer.done else answer.end(99.0))


def values(out: bytes) -> list[Any]:
    texts = [sse.payload(one) for one in sse.events(out)]
    return [json.loads(text) for text in texts if text is not None and text != b"[DONE]"]


def test_ordinary_chunks_pass_byte_for_byte() -> None:
    blocks = [
        chunk("a"),
        b'data: {"choices":[{"delta":{"content":"[DONE] \\u0065 \\"usage\\""}}] }\n\n',
        chunk("b", "stop"),
        DONE,
    ]
    answer, out = play(blocks)
    assert out == b"".join(blocks)
    assert (answer.done, answer.failed) == (True, False)


@pytest.mark.parametrize("key", ["event", "selected_model_id", "sources", "type"])
def test_what_an_engine_must_not_say_is_taken_out(key: str) -> None:
    hostile = json.loads(chunk("x")[6:]) | {key: {"type": "execute", "data": {"code": "alert(1)"}}}
    for text in (json.dumps(hostile), json.dumps(hostile).replace(key, "".join(f"\\u{ord(c):04x}" for c in key))):
        _, out = play([b"data: %b\n\n" % text.encode(), chunk(None, "stop")])
        assert key not in values(out)[0]
        assert values(out)[0]["choices"][0]["delta"]["content"] == "x"


def test_nulls_that_lose_letters_are_taken_out() -> None:
    value = {"choices": [{"index": 0, "delta": None, "finish_reason": None}], "timings": None}
    _, out = play([event(value), chunk(None, "stop")])
    assert values(out)[0] == {"choices": [{"index": 0, "delta": {}, "finish_reason": None}]}


def test_named_events_and_pings_do_not_reach_the_client() -> None:
    _, out = play([b"event: status\n" + chunk("x"), b": ping - 2026\r\n\r\n", b"retry: 3\n\n", chunk(None, "stop")])
    assert b"event: status" not in out
    assert b"ping" not in out
    assert b"retry" not in out
    assert len(values(out)) == 2


def test_tool_calls_pass_untouched() -> None:
    call = {
        "choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "type": "function"}]}, "finish_reason": None}]
    }
    blocks = [event(call), chunk(None, "tool_calls"), DONE]
    answer, out = play(blocks, closing=True)
    assert out == b"".join(blocks)
    assert answer.continues


def test_usage_beside_a_choice_is_taken_out_alone() -> None:
    blocks = [chunk("a"), chunk(None, "stop", usage={"prompt_tokens": 1, "completion_tokens": 5})]
    answer, out = play(blocks, hide_usage=True)
    assert [list(value)[-1] for value in values(out)] == ["choices", "choices"]
    assert answer.meter.completion == 5


def test_usage_that_was_asked_for_gets_our_figures_once() -> None:
    _, out = play([chunk("a"), chunk("b", "stop"), usage(), DONE], wants_usage=True, waited_s=1.5, loaded_s=0.5)
    figures = values(out)[-1]["usage"]["llm_router"]
    assert figures == {"waited_s": 1.5, "loaded_s": 0.5, "first_token_s": 0.0, "decode_s": 1.0, "tokens_per_s": 1.0}


def test_timings_are_read_and_passed() -> None:
    timed = chunk(None, "stop", timings={"predicted_n": 7, "predicted_per_second": 70.0, "predicted_ms": 100})
    answer, out = play([chunk("a"), timed, DONE], closing=True)
    assert timed in out
    assert "⚡ 70.0 tok/s · 7 tokens · 0.1 s" in values(out)[-1]["event"]["data"]["description"]
    assert not answer.meter.estimated


def test_the_end_is_supplied_where_the_engine_forgets_it() -> None:
    _, out = play([chunk("a"), chunk(None, "stop")])
    assert out.endswith(DONE)


@pytest.mark.parametrize(
    ("blocks", "choices"),
    [([], 1), ([chunk("a")], 1), ([chunk("a", "stop"), b"data: {"], 2), ([chunk("a", "stop")], 2)],
)
def test_a_stream_without_its_end_is_an_error(blocks: list[bytes], choices: int) -> None:
    answer, out = play(blocks, choices=choices)
    assert answer.failed
    assert values(out)[-1]["error"]["code"] == "engine_broke_off"
    assert out.endswith(DONE)


@pytest.mark.parametrize(
    ("error", "message"),
    [("text", "text"), ({"message": "m", "code": 5}, "m"), (["x"], '["x"]')],
)
def test_errors_of_engines_in_any_form(error: object, message: str) -> None:
    answer, out = play([event({"error": error})], closing=True)
    assert answer.failed
    assert values(out)[0]["error"]["message"] == message
    assert out.endswith(DONE)
    assert out.count(DONE) == 1


def test_an_error_that_is_null_is_none() -> None:
    answer, _ = play([event({"choices": [], "error": None}), chunk(None, "stop")])
    assert not answer.failed


def test_after_the_end_nothing_passes() -> None:
    _, out = play([chunk(None, "stop") + DONE + chunk("late"), chunk("later")])
    assert b"late" not in out


def test_garbage_passes_as_what_it_is() -> None:
    garbage = b'data: {"usage": nonsense\n\n'
    _, out = play([garbage, chunk(None, "stop")])
    assert garbage in out


STREAM = b"".join(
    [
        chunk("Hé", event={"type": "execute"}),
        b": ping\n\n",
        chunk("l").replace(b"\n\n", b"\r\n\r\n"),
        chunk("lo", timings=None),
        chunk(None, "stop"),
        usage(3, 4),
        DONE,
    ]
)


@given(st.lists(st.integers(0, len(STREAM)), max_size=30), st.booleans())
def test_however_it_is_cut_the_client_gets_the_same(cuts: list[int], hide: bool) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[begin:end] for begin, end in itertools.pairwise(edges)]
    whole, cut = (play(blocks, hide_usage=hide, closing=False)[1] for blocks in ([STREAM], pieces))
    assert cut == whole
