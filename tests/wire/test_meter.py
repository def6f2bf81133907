import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router.wire.meter import Meter, Tail


def test_openai_usage() -> None:
    meter = Meter()
    meter.usage(b'{"prompt_tokens":7,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":5}}')
    assert (meter.prompt, meter.completion, meter.cached, meter.estimated) == (7, 3, 5, False)


def test_anthropic_usage_comes_in_two_parts() -> None:
    meter = Meter()
    meter.usage(b'{"input_tokens":7,"output_tokens":1,"cache_read_input_tokens":2}')
    meter.usage(b'{"output_tokens":30}')
    assert (meter.prompt, meter.completion, meter.cached) == (7, 30, 2)


def test_tabbyapi_tells_its_speed_or_that_it_does_not_know() -> None:
    meter = Meter()
    meter.usage(
        b'{"completion_tokens":9,"completion_tokens_per_sec":45.2,"completion_time":0.2,"prompt_tokens_per_sec":900}'
    )
    assert (meter.per_second(), meter.seconds(), meter.prompt_per_s) == (45.2, 0.2, 900.0)
    meter = Meter()
    meter.usage(b'{"completion_tokens":9,"completion_tokens_per_sec":"Indeterminate"}')
    assert meter.per_second() is None


def test_llamacpps_timings_count_the_cache_to_the_prompt() -> None:
    meter = Meter()
    meter.timings(
        b'{"cache_n":5,"prompt_n":1,"predicted_n":3,"predicted_ms":1500,"predicted_per_second":2,"prompt_per_second":30}'
    )
    assert (meter.prompt, meter.cached, meter.completion) == (6, 5, 3)
    assert (meter.per_second(), meter.seconds(), meter.prompt_per_s) == (2.0, 1.5, 30.0)


def test_without_the_engines_word_pieces_are_counted_and_marked() -> None:
    meter = Meter()
    for at in range(11):
        meter.moved(10.0 + at / 10, 1)
    assert (meter.tokens, meter.estimated) == (11, True)
    assert round(meter.per_second() or 0, 6) == 10.0
    once = Meter()
    once.moved(1.0, 5)
    assert (once.per_second(), once.seconds()) == (None, None)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.dictionaries(st.text(), x)))
def test_nonsense_does_no_harm(value: object) -> None:
    meter = Meter()
    for raw in (json.dumps(value).encode(), json.dumps({"completion_tokens": value, "predicted_ms": value}).encode()):
        meter.usage(raw)
        meter.timings(raw)
    assert meter.completion is None


def _tail(body: bytes, size: int) -> tuple[Meter, bool]:
    meter, tail = Meter(), Tail()
    for at in range(0, len(body), size):
        tail.feed(body[at : at + size])
    return meter, tail.read(meter)


def test_the_end_of_a_large_answer_is_enough() -> None:
    usage = {"usage": {"prompt_tokens": 1, "completion_tokens": 2, "details": {"x": {}}}, "timings": {"predicted_n": 3}}
    for pad in (10, 200_000):
        body = json.dumps({"data": "x" * pad, **usage}).encode()
        for size in (7000, 1_000_000):
            meter, _ = _tail(body, size)
            assert (meter.prompt, meter.completion) == (1, 3)


def test_an_answer_that_asks_for_tools() -> None:
    assert _tail(b'{"choices":[{"finish_reason":"tool_calls"}]}', 99)[1]
    assert _tail(b'{"stop_reason":"tool_use"}', 99)[1]
    assert not _tail(b'{"choices":[{"finish_reason":"stop"}]}', 99)[1]
    assert not _tail(b"<html>", 99)[1]


@pytest.mark.parametrize(
    "usage",
    [
        b'{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}',
        b'{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10,"prompt_tokens_details":null}',
        b'{"completion_tokens":3.0,"prompt_tokens":7,"completion_tokens":3}',
    ],
)
def test_a_usage_says_the_same_whichever_way_it_is_read(usage: bytes) -> None:
    meter = Meter()
    meter.usage(usage)
    assert (meter.prompt, meter.completion, meter.cached) == (7, 3, None)


def test_what_is_no_count_does_not_replace_one() -> None:
    meter = Meter(prompt=7, completion=3)
    meter.usage(b'{"prompt_tokens":-1,"completion_tokens":true}')
    assert (meter.prompt, meter.completion) == (7, 3)


def test_the_speed_of_reading_is_the_engines_or_what_was_seen() -> None:
    meter = Meter(prompt=100, cached=20, first_at=12.0)
    assert meter.prompt_rate(10.0) == 40.0
    assert meter.prompt_rate(11.999) is None, "too short to be measured"
    assert Meter(prompt=100, prompt_per_s=7.0).prompt_rate(10.0) == 7.0
    assert Meter(prompt=100).prompt_rate(10.0) is None
    assert Meter(first_at=12.0).prompt_rate(10.0) is None
