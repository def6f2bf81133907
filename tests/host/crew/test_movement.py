"""What counts as a sign of work between two measurements, and what does not."""

import pytest

from llm_router.host.crew.movement import MOVED_BYTES, MOVED_CPU, Movement
from llm_router.host.crew.progress import Vitals

STILL = Vitals(5.0, 10**9, 10**9)


def after(vitals: Vitals | None, seconds: float = 10.0) -> Movement:
    movement = Movement(0.0)
    assert not movement.measured(STILL, 1.0), "one measurement shows nothing"
    shows = movement.measured(vitals, 1.0 + seconds)
    assert movement.moved == (1.0 + seconds if shows else 0.0)
    return movement


@pytest.mark.parametrize(
    "vitals",
    [
        Vitals(5.0 + 11 * MOVED_CPU, 10**9, 10**9),
        Vitals(5.0, 10**9 + 11 * MOVED_BYTES, 10**9),
        Vitals(5.0, 10**9 - 11 * MOVED_BYTES, 10**9),
        Vitals(5.0, 10**9, 10**9 + 11 * MOVED_BYTES),
        Vitals(5.0, 10**9, 10**9, gpu=True),
    ],
    ids=["processor", "memory taken", "memory given back", "reading", "GPU"],
)
def test_each_sign_counts_as_work_and_not_as_a_word(vitals: Vitals) -> None:
    movement = after(vitals)
    assert movement.moved == 11.0
    assert movement.said == 0.0


@pytest.mark.parametrize(
    "vitals",
    [
        STILL,
        None,
        Vitals(5.0 + 9 * MOVED_CPU, 10**9, 10**9),
        Vitals(5.0, 10**9 + 9 * MOVED_BYTES, 10**9),
        Vitals(5.0, 10**9, 10**9 + 9 * MOVED_BYTES),
        Vitals(1.0, 10**9, 10**8),
    ],
    ids=["nothing", "nobody can tell", "a little computing", "a little memory", "a little reading", "a child has died"],
)
def test_the_little_that_every_server_does_is_no_work(vitals: Vitals | None) -> None:
    assert after(vitals).moved == 0.0


def test_a_word_is_both() -> None:
    movement = Movement(0.0)
    movement.says(7.0)
    assert (movement.said, movement.moved) == (7.0, 7.0)


def test_what_was_computed_at_rest_does_not_count() -> None:
    movement = after(STILL)
    movement.rests()
    assert not movement.measured(Vitals(500.0, 0, 0), 12.0)
    assert movement.measured(Vitals(501.0, 0, 0), 13.0)
