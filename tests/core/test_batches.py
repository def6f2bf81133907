"""Whose turn it is, in the scheduler's own words: by what is checked, granted and stopped when."""

from math import inf
from typing import Any

import pytest

from core.play import BAD_FILE, Play, checked, granted, model, refused, stopped
from llm_router.core.events import Checked, Released
from llm_router.core.words import InstanceId, ModelName, Outcome, Settings, TicketId


def busy(**settings: Any) -> Play:
    """Alpha answers ticket 1 since 10 s; a switch to beta costs 10 s."""
    play = Play(
        model("a", load_s=10.0), model("b", load_s=10.0), model("c", load_s=10.0), settings=Settings(**settings)
    )
    play.ask(1, "a")
    play.load("a#1")
    return play


def test_a_turn_lasts_as_the_switch_costs_within_limits() -> None:
    for settings, end in (
        ({"quantum_factor": 1.5}, 35.0),
        ({"quantum_factor": 1.5, "quantum_max_s": 12.0}, 32.0),
        ({"quantum_factor": 0.1, "quantum_min_s": 7.0}, 27.0),
    ):
        play = busy(**settings)
        play.ask(2, "b", 20.0)
        assert checked(play.until(end - 0.001)) == []
        assert checked(play.until(end)) == ["b#2"]


def test_a_turn_that_is_over_ends_the_grants() -> None:
    play = busy(quantum_factor=1.0)
    play.ask(2, "b", 20.0)
    assert granted(play.ask(3, "a", 29.0)) == [3]
    play.until(30.0)
    assert granted(play.ask(4, "a")) == []


def test_a_failed_check_gives_the_turn_back() -> None:
    play = busy(quantum_factor=1.0)
    play.ask(2, "b", 20.0)
    play.until(30.0)
    play.ask(4, "a")
    said = play.tell(Checked(InstanceId("b#2"), BAD_FILE))
    assert (refused(said), granted(said)) == ({2: "load_failed"}, [4])


def test_nobody_is_one_who_never_came() -> None:
    play = busy()
    claim = play.scheduler._settle.batches.claim(play.scheduler.book.lines[ModelName("b")])
    assert (claim.wanted, claim.number, claim.arrived, claim.overdue) == (False, inf, inf, False)
    play.ask(2, "b", 20.0, background=True)
    claim = play.scheduler._settle.batches.claim(play.scheduler.book.lines[ModelName("b")])
    assert (claim.wanted, claim.number, claim.arrived, claim.overdue) == (False, inf, inf, False)


def test_an_idle_model_yields_at_once() -> None:
    play = busy()
    play.release(1, 20.0)
    assert checked(play.ask(2, "b")) == ["b#2"]


def test_who_waits_longest_is_next() -> None:
    play = busy()
    play.ask(2, "c", 20.0)
    play.ask(3, "b", 21.0)
    assert checked(play.release(1)) == ["c#2"]


def test_the_important_are_next_and_need_not_wait_for_a_whole_turn() -> None:
    play = busy(quantum_min_s=3.0)
    play.ask(2, "c", 20.0)
    play.ask(3, "b", 21.0, priority=1)
    assert checked(play.until(23.9)) == []
    assert checked(play.until(24.0)) == ["b#2"]


def test_the_important_do_not_yield_to_the_others_until_those_are_overdue() -> None:
    play = Play(
        model("a", load_s=10.0, concurrency=1),
        model("b", load_s=10.0),
        settings=Settings(max_wait_s=100.0, quantum_max_s=5.0),
    )
    play.ask(1, "a", priority=1)
    play.load("a#1")
    play.ask(2, "b")
    for ticket in range(3, 30):
        play.ask(ticket, "a", priority=1)
    assert checked(play.until(59.0)) == []
    assert checked(play.until(61.0)) == ["b#2"]


@pytest.mark.parametrize(
    ("outcome", "lingers"), [(Outcome.continues, True), (Outcome.done, False), (Outcome.left, False)]
)
def test_a_model_lingers_for_a_caller_that_asks_for_tools(outcome: Outcome, lingers: bool) -> None:
    play = busy()
    play.ask(2, "b", 11.0)
    said = play.tell(Released(TicketId(1), outcome), 12.0)
    assert checked(said) == ([] if lingers else ["b#2"])
    assert checked(play.until(14.0)) == (["b#2"] if lingers else [])


def test_a_model_lingers_for_a_caller_that_came_back_before() -> None:
    play = busy()
    play.release(1, 11.0)
    play.ask(2, "a", 12.0)
    play.ask(3, "b", 12.5)
    assert checked(play.release(2, 13.0)) == []
    assert checked(play.until(15.0)) == ["b#2"]


def test_who_came_before_is_served_before_within_the_longest_turn() -> None:
    play = Play(
        model("a", load_s=10.0, concurrency=1),
        model("b", load_s=10.0),
        settings=Settings(quantum_factor=1.0, quantum_max_s=40.0),
    )
    play.ask(1, "a")
    play.load("a#1")
    play.ask(2, "a")
    play.ask(3, "b", 11.0)
    assert checked(play.until(50.9)) == []
    assert checked(play.until(51.0)) == ["b#2"]


def test_small_models_do_not_keep_a_large_one_out_for_ever() -> None:
    play = Play(model("a", 6), model("b", 6), model("c", 6), model("big", 16), settings=Settings(quantum_max_s=20.0))
    for ticket, name, instance in ((1, "a", "a#1"), (2, "b", "b#2")):
        play.ask(ticket, name)
        play.load(instance)
    play.ask(3, "big")
    play.until(40.0)
    assert [name for name in checked(play.said) if name.startswith("big")] == ["big#3"]
    assert checked(play.ask(4, "c")) == []
    assert stopped(play.tell(Checked(InstanceId("big#3")))) == []
    assert stopped(play.release(1)) == ["a#1"]
