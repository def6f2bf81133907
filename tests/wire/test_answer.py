import json

from llm_router.wire import errors
from llm_router.wire.answer import EventAnswer, PlainAnswer, Terms
from llm_router.wire.errors import Fault


def test_a_plain_body_passes_and_its_usage_is_read() -> None:
    terms = Terms()
    answer = PlainAnswer(terms, read=True)
    body = json.dumps({"usage": {"prompt_tokens": 1, "completion_tokens": 2}}).encode()
    assert answer.feed(body[:9], 1.0) + answer.feed(body[9:], 1.0) + answer.end(2.0) == body
    assert (terms.meter.prompt, terms.meter.completion, answer.done) == (1, 2, True)


def test_a_plain_body_cannot_carry_an_error() -> None:
    answer = PlainAnswer(Terms(), read=False)
    assert answer.broken(Fault(502, "x", "y")) == b""
    assert (answer.spoken, answer.failed) == (False, True)


def test_an_unknown_stream_is_aligned_and_read() -> None:
    answer = EventAnswer(Terms())
    assert answer.feed(b'data: {"content":"a"}\n\ndata: {"stop":true,"timi', 1.0) == b'data: {"content":"a"}\n\n'
    rest = answer.feed(b'ngs":{"predicted_n":4}}\n\n', 2.0)
    assert rest == b'data: {"stop":true,"timings":{"predicted_n":4}}\n\n'
    assert answer.end(3.0) == b""
    assert answer.meter.completion == 4


def test_an_unknown_stream_can_carry_an_error() -> None:
    answer = EventAnswer(Terms())
    answer.feed(b"data: half", 1.0)
    fault = errors.engine("engine_broke_off", "x")
    assert answer.broken(fault) == b"data: " + errors.openai_body(fault) + b"\n\n"
    assert answer.failed


def test_the_first_content_starts_the_clock() -> None:
    answer = EventAnswer(Terms())
    answer.feed(b'data: {"delta":{"role":"assistant","content":""}}\n\n', 1.0)
    assert answer.meter.first_at is None
    answer.feed(b'data: {"delta":{"content":"x"}}\n\n', 2.0)
    assert answer.meter.first_at == 2.0
