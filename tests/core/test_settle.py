"""What follows from the state when several things meet; and that settling ends."""

import pytest

from core.play import CRASH, GPU0, GPU1, Play, checked, gpus, granted, model, refused, started, stopped
from llm_router.core.commands import Check, End, Park, Start, Stop, Wake
from llm_router.core.events import (
    Adopted,
    Checked,
    Cleaned,
    ForgiveAsked,
    Gone,
    Parked,
    PinAsked,
    Progressed,
    Proved,
    Released,
    ShutdownAsked,
    Sickened,
    Started,
    StartFailed,
    UnloadAsked,
    Withdrawn,
    Woken,
)
from llm_router.core.instance import Instance
from llm_router.core.rules import Rules
from llm_router.core.words import EndReason, Footprint, InstanceId, ModelName, Settings, TicketId

A, B = ModelName("a"), ModelName("b")
A1, B2, C3 = InstanceId("a#1"), InstanceId("b#2"), InstanceId("c#3")


def test_a_settling_without_end_says_so() -> None:
    class Fickle(Rules):
        """An idle engine is sent away and called back in turns."""

        def may_be_reprieved(self, inst: Instance) -> bool:
            return True

    play = Play(model("a", idle_s=5.0), rules=Fickle())
    play.serve(1, "a", "a#1")
    play.ask(2, "a", background=True)
    with pytest.raises(RuntimeError, match=r"cannot settle at 15: .*a#1"):
        play.until(20.0)


def draining() -> Play:
    """Alpha answers ticket 1 and drains for beta (ticket 2); gamma waits too (ticket 3)."""
    play = Play(model("a"), model("b"), model("c"), settings=Settings(quantum_max_s=5.0))
    play.ask(1, "a")
    play.load("a#1")
    play.ask(2, "b")
    play.ask(3, "c")
    play.until(20.0)
    play.tell(Checked(B2))
    assert play.states() == {"a#1": "draining", "b#2": "cleared"}
    return play


def test_a_drain_is_handed_over_when_its_plan_is_dropped() -> None:
    play = draining()
    assert play.tell(Withdrawn(TicketId(2))) == [Check(C3, ModelName("c"), (GPU0,))]
    assert play.states()["a#1"] == "draining"
    # R14 holds for the heir too: nobody is stopped before it is checked.
    assert play.release(1) == []
    assert play.tell(Checked(C3)) == [Stop(A1)]


def test_a_sleeper_that_cannot_wake_where_it_sleeps_starts_elsewhere() -> None:
    play = Play(model("a", 12, 1, parked=1, parkable=True), model("b", 12, (GPU0,)), devices=gpus(2))
    play.serve(1, "a", "a#1")
    play.ask(2, "b")
    play.tell(Checked(B2))
    play.tell(Parked(A1))
    play.load("b#2")
    play.release(2)
    play.tell(PinAsked(B, pin=True))
    assert play.ask(3, "a") == [Stop(A1)]
    assert play.gone("a#1") == [Check(InstanceId("a#3"), A, (GPU1,))]


def test_what_sleeps_in_the_way_is_stopped() -> None:
    play = Play(model("a", 12, parked=1, parkable=True), model("b", 12), model("c", 16))
    play.serve(1, "a", "a#1")
    play.ask(2, "b")
    assert play.tell(Checked(B2)) == [Park(A1)]
    play.tell(Parked(A1))
    play.load("b#2")
    play.release(2)
    play.ask(3, "c")
    assert set(play.tell(Checked(C3))) == {Stop(A1), Stop(B2)}
    play.gone("a#1")
    assert play.gone("b#2") == [Start(C3, ModelName("c"), (GPU0,))]


def test_waking_makes_room_as_starting_does() -> None:
    play = Play(model("a", 12, parked=1, parkable=True), model("b", 12))
    play.serve(1, "a", "a#1")
    play.ask(2, "b")
    play.tell(Checked(B2))
    play.tell(Parked(A1))
    play.load("b#2")
    play.release(2)
    assert play.ask(3, "a") == [Stop(B2)]
    assert play.gone("b#2") == [Wake(A1)]
    assert granted(play.tell(Woken(A1))) == [3]


def test_who_may_not_push_out_does_not_wait_for_a_turn_either() -> None:
    play = Play(model("a"), model("b", on_demand=False))
    play.ask(1, "a")
    play.load("a#1")
    assert refused(play.ask(2, "b")) == {2: "not_on_demand"}


def test_lost_memory_is_waited_for() -> None:
    play = Play(model("a", 5), model("b", 5))
    play.serve(1, "a", "a#1")
    play.tell(UnloadAsked(A))
    play.tell(Gone(A1, frozenset({GPU0})))
    assert play.ask(2, "b") == []
    assert play.until(100.0) == []
    assert checked(play.tell(Cleaned(GPU0))) == ["b#2"]


def test_a_resident_that_is_asked_during_the_check_has_its_turn() -> None:
    play = Play(model("a", load_s=10.0), model("b", load_s=10.0), settings=Settings(quantum_factor=1.0))
    play.serve(1, "a", "a#1")
    play.ask(2, "b")
    assert granted(play.ask(3, "a")) == [3]
    assert play.tell(Checked(B2)) == []
    assert play.until(19.9) == []
    play.until(20.0)
    assert play.states() == {"a#1": "draining", "b#2": "cleared"}
    assert stopped(play.release(3)) == ["a#1"]


def test_a_plan_whose_device_is_lost_is_made_anew_elsewhere() -> None:
    play = Play(
        model("a", 8, (GPU0,)), model("c", 4, (GPU0,)), model("d", 13, (GPU1,)), model("b", 9, 1), devices=gpus(2)
    )
    for ticket, name, instance in ((1, "a", "a#1"), (2, "c", "c#2"), (3, "d", "d#3")):
        play.ask(ticket, name)
        play.load(instance)
    play.release(3)
    play.until(10_000.0)
    play.ask(4, "b")
    play.until(play.now + 130.0)
    where = [command.devices for command in play.said if isinstance(command, Check) and command.model == "b"]
    assert where == [(GPU1,)]
    play = Play(model("a", 8, (GPU0,)), model("c", 4, (GPU0,)), model("b", 9, 1), devices=gpus(1))
    for ticket, name, instance in ((1, "a", "a#1"), (2, "c", "c#2")):
        play.ask(ticket, name)
        play.load(instance)
    play.release(2)
    play.ask(3, "b")
    play.until(play.now + 130.0)
    play.tell(Checked(InstanceId("b#3")))
    assert play.states() == {"a#1": "draining", "c#2": "ready", "b#3": "cleared"}
    play.tell(UnloadAsked(ModelName("c")))
    play.tell(Gone(InstanceId("c#2"), frozenset({GPU0})))
    assert play.states() == {"a#1": "ready"}
    assert checked(play.tell(Cleaned(GPU0))) == ["b#4"]


def test_an_end_is_asked_for_once_each() -> None:
    play = Play(model("a"), settings=Settings(stall_s=10.0, drain_timeout_s=0.0))
    play.ask(1, "a")
    play.ask(2, "a")
    play.load("a#1")
    play.tell(UnloadAsked(A))
    play.tell(Progressed(TicketId(2)), 15.0)
    assert play.until(20.0) == [End(TicketId(1), EndReason.stalled)]
    assert play.until(100.0) == [End(TicketId(2), EndReason.stalled)]


def test_progress_told_at_the_last_moment_saves_all_of_whom_it_tells() -> None:
    play = Play(model("a"), settings=Settings(stall_s=10.0, drain_timeout_s=0.0))
    for number in (1, 2, 3):
        play.ask(number, "a")
    play.load("a#1")
    play.tell(UnloadAsked(A))
    late = play.scheduler.step(Progressed(TicketId(1), (TicketId(3),)), play.now + 11.0)
    assert [command for command in late if isinstance(command, End)] == [End(TicketId(2), EndReason.stalled)]


def test_in_a_line_the_overdue_go_before_the_important() -> None:
    play = Play(model("a", concurrency=1), settings=Settings(max_wait_s=100.0))
    play.ask(1, "a")
    play.load("a#1")
    play.ask(2, "a")
    play.ask(3, "a", priority=5)
    assert granted(play.release(1)) == [3]
    play.ask(4, "a", priority=5)
    play.until(61.0)
    assert granted(play.release(3)) == [2]


def test_a_default_waits_for_the_guest_to_be_idle() -> None:
    play = Play(model("a", default=True), model("b"), settings=Settings(quantum_max_s=100.0))
    play.load("a#1")
    play.until(50.0)
    play.ask(1, "b")
    play.tell(Checked(B2))
    play.gone("a#1")
    play.tell(Started(B2))
    play.tell(Proved(B2))
    play.release(1, 60.0)
    assert checked(play.until(159.9)) == []
    assert checked(play.until(160.0)) == ["a#3"]


def test_a_pin_comes_as_soon_as_the_others_are_idle() -> None:
    play = Play(model("a"), model("b"), model("c", default=True))
    play.load("c#1")
    play.ask(1, "a", 20.0)
    play.tell(Checked(InstanceId("a#2")))
    play.gone("c#1")
    play.tell(Started(InstanceId("a#2")))
    play.tell(Proved(InstanceId("a#2")))
    assert checked(play.tell(PinAsked(B, pin=True))) == []
    assert checked(play.release(1)) == ["b#3"]
    assert stopped(play.tell(Checked(InstanceId("b#3")))) == ["a#2"]


def test_nobodys_errand_pushes_a_default_out() -> None:
    play = Play(model("a", default=True), model("b"))
    play.load("a#1")
    assert play.tell(PinAsked(B, pin=True)) == []
    assert play.until(10_000.0) == []


def test_a_sleeping_engine_of_an_old_revision_is_stopped_even_when_called() -> None:
    for called in (False, True):
        play = Play(model("a", 12, parked=1, parkable=True), model("b", 12), settings=Settings(quantum_max_s=5.0))
        play.serve(1, "a", "a#1")
        play.ask(2, "b")
        play.tell(Checked(B2))
        play.tell(Parked(A1))
        play.load("b#2")
        if called:
            play.ask(3, "a")
            play.until(play.now + 10.0)
            assert play.states()["a#1"] == "called"
        assert Stop(A1) in play.configure(model("a", 12, parked=1, parkable=True, revision="2"), model("b", 12))


def test_kept_engines_go_back_to_ready_when_their_answers_are_over() -> None:
    play = draining()
    play.tell(ShutdownAsked(keep_engines=True))
    assert play.states() == {"a#1": "draining"}
    play.release(1)
    assert play.states() == {"a#1": "ready"}
    assert play.scheduler.snapshot(play.now).finished


def test_a_sick_engine_is_sick_once() -> None:
    play = Play(model("a"))
    play.ask(1, "a")
    play.load("a#1")
    play.tell(Sickened(A1, CRASH))
    play.tell(Sickened(A1, CRASH))
    seen = play.scheduler.snapshot(play.now).model(A)
    assert seen is not None
    assert seen.failures_in_a_row == 1


def test_forgiving_ends_a_pause() -> None:
    play = Play(model("a"), settings=Settings(backoff_s=100.0))
    play.ask(1, "a")
    play.tell(Checked(A1))
    play.tell(StartFailed(A1, CRASH))
    assert checked(play.gone("a#1")) == []
    assert checked(play.tell(ForgiveAsked(A))) == ["a#2"]


def test_what_an_engine_takes_asleep_may_be_measured() -> None:
    play = Play(model("a", parkable=True), model("b", 12))
    play.ask(1, "a")
    play.tell(Checked(A1))
    play.tell(Started(A1))
    play.tell(Proved(A1, Footprint(12 * 2**30, 2**30)))
    play.tell(Released(TicketId(1)))
    play.ask(2, "b")
    assert play.tell(Checked(B2)) == [Park(A1)]


def test_an_adopted_engine_nobody_waits_for_is_proved_all_the_same() -> None:
    play = Play(model("a"))
    play.tell(Adopted(A1, A, (GPU0,)))
    assert play.until(100.0) == []
    play.tell(Proved(A1))
    assert play.states() == {"a#1": "ready"}


def test_a_removed_model_is_forgotten_when_its_engine_is_gone() -> None:
    play = Play(model("a"), model("b"))
    play.serve(1, "a", "a#1")
    play.configure(model("b"))
    play.gone("a#1")
    assert list(play.scheduler.book.lines) == [B]
    play.configure()
    assert list(play.scheduler.book.lines) == []
    play.tell(Adopted(InstanceId("x#9"), ModelName("x"), ()))
    play.gone("x#9")
    assert list(play.scheduler.book.lines) == []


def test_unloading_what_is_not_loaded_keeps_it_so() -> None:
    play = Play(model("a", preload=True), model("b"), settings=Settings(max_wait_s=0.0))
    play.tell(UnloadAsked(A))
    assert play.states() == {}
    assert play.tell(UnloadAsked(A)) == []
    assert started(play.until(1000.0)) == []


def test_without_a_longest_wait_nobody_is_refused_for_waiting() -> None:
    play = Play(model("a", concurrency=1), settings=Settings(max_wait_s=0.0))
    play.ask(1, "a")
    play.load("a#1")
    play.ask(2, "a")
    assert play.until(1e6) == []
    assert play.scheduler.deadline() is None


def test_stale_expiries_in_the_middle_are_cleared_away() -> None:
    play = Play(model("a", concurrency=1))
    play.ask(1, "a")
    play.load("a#1")
    play.ask(2, "a", patience_s=10.0)
    for ticket in range(3, 1000):
        play.ask(ticket, "a", patience_s=1000.0)
        play.tell(Withdrawn(TicketId(ticket)))
    assert len(play.scheduler.book.expiries) < 100
    assert refused(play.until(25.0)) == {2: "waited_too_long"}


def test_an_unknown_load_ahead_leaves_no_estimate() -> None:
    play = Play(model("a"), model("b", load_s=5.0))
    play.ask(1, "a")
    play.tell(Checked(A1))
    play.ask(2, "b")
    notice = play.scheduler.notice(TicketId(2), play.now)
    assert notice is not None
    assert (notice.ahead, notice.left_s) == (("a",), None)


def test_a_call_nobody_waits_for_lets_the_sleeper_sleep_and_the_resident_stay() -> None:
    play = Play(model("a", 12, parked=1, parkable=True), model("b", 12), settings=Settings(quantum_max_s=5.0))
    play.serve(1, "a", "a#1")
    play.ask(2, "b")
    play.tell(Checked(B2))
    play.tell(Parked(A1))
    play.load("b#2")
    play.ask(3, "a")
    play.until(play.now + 10.0)
    assert play.states() == {"a#1": "called", "b#2": "draining"}
    play.tell(Withdrawn(TicketId(3)))
    assert play.states() == {"a#1": "parked", "b#2": "ready"}
