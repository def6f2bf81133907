"""Percent and time left: whose word counts, and that both only ever move the right way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router.host.crew.progress import ALMOST, Progress, Vitals

GB = 10**9


def test_without_any_knowledge_nothing_is_claimed() -> None:
    progress = Progress()
    assert progress.percent(10) is None
    assert progress.left_s(10) is None


def test_the_engines_word_comes_first_then_bytes_then_the_clock() -> None:
    progress = Progress(history=[100.0], weights=10 * GB)
    assert progress.percent(25.0) == 25.0
    progress.measured(Vitals(0, 0, 0))
    progress.measured(Vitals(1, 5 * GB, 1 * GB))
    assert progress.percent(26.0) == 45.0
    progress.said(80.0)
    assert progress.percent(27.0) == 80.0


def test_bytes_count_from_the_first_measurement_and_end_before_the_proof() -> None:
    progress = Progress(weights=10 * GB)
    progress.measured(Vitals(0, 2 * GB, 30 * GB))
    assert progress.percent(1.0) is None
    progress.measured(Vitals(0, 2 * GB, 35 * GB))
    assert progress.percent(1.0) == 45.0
    progress.measured(Vitals(0, 50 * GB, 35 * GB))
    assert progress.percent(1.0) == 90.0


def test_libraries_are_no_weights() -> None:
    """A Python engine reads and maps gigabytes before its first byte of a small model."""
    progress = Progress(weights=1 * GB)
    progress.measured(Vitals(0, 0, 0), loading=False)
    progress.measured(Vitals(0, 3 * GB, 2 * GB), loading=False)
    assert progress.percent(1.0) is None
    progress.measured(Vitals(0, 3 * GB, 2 * GB))
    progress.measured(Vitals(0, 4 * GB, 2 * GB), loading=True)
    assert progress.percent(2.0) == 90.0


def test_an_engine_that_never_says_what_it_does_is_followed_all_the_same() -> None:
    progress = Progress(weights=100 * GB)
    progress.measured(Vitals(0, 0, 0), loading=False)
    progress.measured(Vitals(0, 50 * GB, 0), loading=False)
    assert progress.percent(1.0) == pytest.approx(41, abs=1)


@pytest.mark.parametrize(
    ("history", "expected"),
    [([10.0], 10.0), ([10.0, 12.0, 50.0], 12.0), ([500.0] * 20 + [10.0] * 7, 10.0)],
)
def test_the_median_of_the_last_loads_is_expected(history: list[float], expected: float) -> None:
    assert Progress(history).expected_s == expected


def test_the_estimate_is_corrected_by_the_present_progress() -> None:
    progress = Progress(history=[100.0])
    assert progress.left_s(0.0) == 100.0
    assert progress.left_s(40.0) == 60.0
    progress.said(50.0)
    # Half done after 80 s: the pace says 160 s, the history 100 s, half of each says 130 s.
    assert progress.left_s(80.0) == pytest.approx(50.0)


def test_a_load_that_is_late_is_never_said_to_be_over() -> None:
    progress = Progress(history=[10.0])
    assert progress.left_s(30.0) == pytest.approx(3.0)
    assert progress.percent(30.0) == ALMOST


def test_nonsense_of_an_engine_is_ignored() -> None:
    progress = Progress()
    progress.said(-1)
    progress.said(float("nan"))
    progress.said(1000)
    assert progress.percent(1.0) is None


@given(
    st.lists(st.floats(0.1, 1000), max_size=10),
    st.lists(
        st.tuples(st.floats(0, 1000), st.one_of(st.none(), st.floats(-10, 110)), st.integers(0, 20 * GB)), max_size=20
    ),
)
def test_percent_never_falls_and_time_left_is_never_negative(
    history: list[float], news: list[tuple[float, float | None, int]]
) -> None:
    progress = Progress(history, weights=10 * GB)
    last = 0.0
    for elapsed, said, read in sorted(news, key=lambda one: one[0]):
        if said is not None:
            progress.said(said)
        progress.measured(Vitals(0.0, 0, read))
        percent = progress.percent(elapsed)
        if percent is not None:
            assert last <= percent <= ALMOST
            last = percent
        left = progress.left_s(elapsed)
        assert left is None or left >= 0
        assert (left is None) == (not history)
