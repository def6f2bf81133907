from core.play import CRASH, GPU0, Play, checked, gpus, granted, model, refused, started, stopped
from llm_router.core.commands import Finish, Prove, Stop
from llm_router.core.events import (
    Adopted,
    Checked,
    Configured,
    Parked,
    PinAsked,
    Proved,
    ShutdownAsked,
    Sickened,
    Started,
    StartFailed,
    UnloadAsked,
)
from llm_router.core.words import Failure, FailureKind, InstanceId, ModelName, TicketId

A, A1 = ModelName("a"), InstanceId("a#1")


def test_what_did_not_change_keeps_running() -> None:
    play = Play(model("a", priority=1), model("b"))
    play.serve(1, "a", "a#1")
    assert play.configure(model("a", priority=2), model("b", revision="2")) == []
    assert granted(play.ask(2, "a")) == [2]


def test_a_changed_model_is_stopped_when_its_answers_are_over() -> None:
    play = Play(model("a"))
    play.ask(1, "a")
    play.load("a#1")
    assert stopped(play.configure(model("a", revision="2"))) == []
    assert stopped(play.release(1)) == ["a#1"]


def test_a_load_of_an_old_revision_is_called_off_and_begun_anew() -> None:
    play = Play(model("a"))
    play.ask(1, "a")
    play.tell(Checked(A1))
    assert stopped(play.configure(model("a", revision="2"))) == ["a#1"]
    assert checked(play.gone("a#1")) == ["a#2"]


def test_a_change_forgets_failures_a_reload_without_one_does_not() -> None:
    play = Play(model("a"))
    play.ask(1, "a")
    play.tell(Checked(A1, Failure(FailureKind.missing_file, "cannot find it")))
    play.configure(model("a"))
    assert refused(play.ask(2, "a")) == {2: "load_failed"}
    play.configure(model("a", revision="2"))
    assert checked(play.ask(3, "a")) == ["a#2"]


def test_a_removed_model_refuses_and_leaves_and_may_come_back() -> None:
    play = Play(model("a", concurrency=1), model("b"))
    play.ask(1, "a")
    play.load("a#1")
    play.ask(2, "a")
    assert refused(play.configure(model("b"))) == {2: "unknown_model"}
    assert refused(play.ask(3, "a")) == {3: "unknown_model"}
    play.configure(model("a"), model("b"))
    play.ask(4, "a")
    assert stopped(play.release(1)) == ["a#1"]
    assert checked(play.gone("a#1")) == ["a#2"]


def test_a_pin_by_hand_lasts_until_the_next_reload() -> None:
    play = Play(model("a", 12), model("b", 12))
    assert checked(play.tell(PinAsked(A, pin=True))) == ["a#1"]
    play.load("a#1")
    assert refused(play.ask(1, "b")) == {1: "load_failed"}
    play.configure(model("a", 12), model("b", 12))
    assert checked(play.ask(2, "b", 60.0)) == ["b#2"]


def test_unloading_a_load_stops_it_and_a_plan_is_dropped() -> None:
    play = Play(model("a"))
    play.ask(1, "a")
    assert refused(play.tell(UnloadAsked(A))) == {1: "unloaded"}
    assert play.states() == {}
    play.ask(2, "a")
    play.tell(Checked(InstanceId("a#2")))
    assert stopped(play.tell(UnloadAsked(A))) == ["a#2"]


def test_unloading_while_it_drains_for_another_is_final() -> None:
    play = Play(model("a", parkable=True, size=12, parked=1), model("b", 12))
    play.ask(1, "a")
    play.load("a#1")
    play.ask(2, "b")
    play.until(100.0)
    play.tell(Checked(InstanceId("b#2")))
    assert play.states()["a#1"] == "draining"
    play.tell(UnloadAsked(A))
    assert play.release(1) == [Stop(A1)]


def test_an_adopted_engine_serves_once_it_is_proved() -> None:
    play = Play(model("a", default=True))
    assert play.states() == {"a#1": "planned"}
    assert play.tell(Adopted(InstanceId("a#9"), A, (GPU0,))) == [Prove(InstanceId("a#9"))]
    assert play.states() == {"a#9": "checking"}
    play.ask(1, "a")
    assert granted(play.tell(Proved(InstanceId("a#9")))) == [1]
    seen = play.scheduler.snapshot(play.now).model(A)
    assert seen is not None
    assert seen.load_s is None


def test_an_adopted_engine_that_proves_bad_is_replaced() -> None:
    play = Play(model("a", default=True))
    play.tell(Adopted(A1, A, (GPU0,)))
    play.tell(Adopted(InstanceId("a#9"), A, (GPU0,)))
    assert stopped(play.tell(StartFailed(InstanceId("a#9"), CRASH))) == ["a#9"]
    assert checked(play.gone("a#9") + play.until(5.0)) == ["a#10"]


def test_shutdown_of_an_idle_router_is_done_at_once() -> None:
    play = Play(model("a"))
    assert play.tell(ShutdownAsked()) == [Finish()]
    assert refused(play.ask(1, "a")) == {1: "shutting_down"}
    assert play.tell(ShutdownAsked()) == []


def test_what_is_found_while_closing_is_stopped() -> None:
    play = Play(model("a"))
    play.serve(1, "a", "a#1")
    play.tell(ShutdownAsked())
    assert stopped(play.tell(Adopted(InstanceId("a#9"), A, (GPU0,)))) == ["a#9"]
    assert play.gone("a#1") == []
    assert play.gone("a#9") == [Finish()]


def test_engines_that_are_kept_stay_ready_and_parked() -> None:
    play = Play(model("a", 12, parked=1, parkable=True), model("b", 12))
    play.serve(1, "a", "a#1")
    play.ask(2, "b")
    play.tell(Checked(InstanceId("b#2")))
    play.tell(Parked(A1))
    play.load("b#2")
    play.release(2)
    assert play.tell(ShutdownAsked(keep_engines=True)) == [Finish()]
    assert play.states() == {"a#1": "parked", "b#2": "ready"}


def test_more_devices_let_who_waits_come() -> None:
    play = Play(model("a", 12, 1), model("b", 12, 1))
    play.ask(1, "a")
    play.load("a#1")
    play.ask(2, "b")
    said = play.tell(Configured((model("a", 12, 1), model("b", 12, 1)), gpus(2)))
    assert checked(said) == ["b#2"]
    assert started(play.tell(Checked(InstanceId("b#2")))) == ["b#2"]
    assert play.tell(Started(InstanceId("b#2"))) == [Prove(InstanceId("b#2"))]
    assert granted(play.tell(Proved(InstanceId("b#2")))) == [2]
    assert play.scheduler.notice(TicketId(2), play.now) is None


def test_a_failure_of_an_old_revision_says_nothing_about_the_new_one() -> None:
    play = Play(model("a"))
    play.ask(1, "a")
    play.load("a#1")
    play.configure(model("a", revision="2"))
    play.tell(Sickened(A1, CRASH))
    play.release(1)
    assert checked(play.gone("a#1")) == []
    assert checked(play.ask(2, "a")) == ["a#2"]
