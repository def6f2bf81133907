"""From a line of a log to phase and percent of the whole load."""

from llm_router.engines.marks import LOADING, WARMING, Mark, read_marks

MARKS = (
    Mark(r"ready on http", WARMING, 100.0, near=True),
    Mark(r"bar (?P<percent>\d+)%", LOADING, 10.0, 60.0),
    Mark(r"begin", LOADING),
)


def test_a_bar_goes_from_low_to_high() -> None:
    fact = read_marks(MARKS, "bar 50%")
    assert fact is not None
    assert (fact.phase, fact.percent, fact.near) == (LOADING, 35.0, False)


def test_a_mark_may_know_no_percent_and_a_line_no_mark() -> None:
    fact = read_marks(MARKS, "begin http://127.0.0.1:1")
    assert fact is not None
    assert fact.percent is None
    # Only a line that says that it listens tells a port.
    assert fact.port is None
    assert read_marks(MARKS, "nothing") is None


def test_the_port_of_a_ready_line() -> None:
    fact = read_marks(MARKS, "ready on http://127.0.0.1:8000")
    assert fact is not None
    assert fact.near
    assert fact.port == 8000
