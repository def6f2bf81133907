import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router.core.words import ModelName, Notice, Stage
from llm_router.wire import notices

M, K = ModelName("m"), ModelName("k")


@pytest.mark.parametrize(
    ("notice", "text"),
    [
        (Notice(M, Stage.queued, 1, place=2, ahead=(K,), left_s=40), "Waiting for m: 2nd in line, after k, about 40 s"),
        (Notice(M, Stage.queued, 1), "Waiting for m: next in line"),
        (Notice(M, Stage.queued, 1, place=11), "Waiting for m: 11th in line"),
        (Notice(M, Stage.draining, 1, leaving=K), "Waiting for the answers of k to end, then m is loaded"),
        (Notice(M, Stage.draining, 1), "Waiting for the answers of others to end, then m is loaded"),
        (Notice(M, Stage.stopping, 1, leaving=K), "Stopping k to make room for m"),
        (Notice(M, Stage.starting, 1, left_s=3), "Starting m: about 3 s left"),
        (Notice(M, Stage.loading, 1), "Loading m"),
        (Notice(M, Stage.loading, 1, percent=40.4, left_s=20), "Loading m: 40 %, about 20 s left"),
        (
            Notice(M, Stage.loading, 1, percent=99, phase="capturing graphs", left_s=61),
            "Loading m: 99 %, capturing graphs, about 1 min 1 s left",
        ),
        (Notice(M, Stage.waking, 1), "Waking m"),
        (Notice(M, Stage.ready, 1), "m is ready"),
    ],
)
def test_each_stage_in_words(notice: Notice, text: str) -> None:
    assert notices.describe(notice) == text


@given(st.integers(1, 10_000))
def test_ordinals_are_english(place: int) -> None:
    text = notices.describe(Notice(M, Stage.queued, 1, place=place)).removeprefix("Waiting for m: ")
    assert text == "next in line" if place == 1 else text.startswith(str(place))
    if place % 100 in (11, 12, 13):
        assert f"{place}th" in text
    elif place > 1 and place % 10 == 2:
        assert f"{place}nd" in text


def test_durations() -> None:
    spans = (0.2, 42.4, 60, 90, 3600, 7500)
    assert [notices.duration(one) for one in spans] == ["1 s", "42 s", "1 min", "1 min 30 s", "1 h", "2 h 5 min"]


def test_the_closing_line() -> None:
    assert notices.speed(128, 2.83, 45.23, False) == "⚡ 45.2 tok/s · 128 tokens · 2.8 s"
    assert notices.speed(1, 0.1, None, True) == "⚡ ~1 token · 0.1 s"
    assert notices.ready("m", 42.1) == "m ready (42 s)"
