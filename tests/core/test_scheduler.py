"""Each happening with each state has an answer; what concerns requests, instances and the deadline."""

import sys
from collections.abc import Callable

import pytest

from core.play import BAD_FILE, CRASH, GPU0, Play, checked, gpus, granted, model, refused, started, stopped
from llm_router.core.commands import End, Grant, Stop
from llm_router.core.events import (
    Adopted,
    Arrived,
    Checked,
    Cleaned,
    Configured,
    Event,
    Exited,
    Gone,
    LoadProgressed,
    Parked,
    ParkFailed,
    PinAsked,
    Progressed,
    Proved,
    Released,
    ShutdownAsked,
    Sickened,
    Started,
    StartFailed,
    UnloadAsked,
    WakeFailed,
    Withdrawn,
    Woken,
)
from llm_router.core.instance import State
from llm_router.core.scheduler import Scheduler
from llm_router.core.words import (
    EndReason,
    Footprint,
    InstanceId,
    ModelName,
    Outcome,
    Settings,
    TicketId,
)

ID = InstanceId("a#1")
NEWS: dict[str, Event] = {
    "checked": Checked(ID),
    "check failed": Checked(ID, BAD_FILE),
    "started": Started(ID),
    "progressed": LoadProgressed(ID, "loading weights", 10.0),
    "proved": Proved(ID),
    "start failed": StartFailed(ID, CRASH),
    "exited": Exited(ID, CRASH),
    "gone": Gone(ID),
    "parked": Parked(ID),
    "park failed": ParkFailed(ID),
    "woken": Woken(ID),
    "wake failed": WakeFailed(ID, CRASH),
    "sickened": Sickened(ID, CRASH),
}

#: Where news leads; everything else changes nothing. What is cleared with room to spare starts at once.
ANSWERS: dict[tuple[str, str], str] = {
    ("planned", "checked"): "starting",
    ("planned", "check failed"): "gone",
    ("starting", "started"): "checking",
    ("starting", "start failed"): "stopping",
    ("starting", "exited"): "stopping",
    ("checking", "proved"): "ready",
    ("checking", "start failed"): "stopping",
    ("checking", "exited"): "stopping",
    ("ready", "exited"): "stopping",
    ("ready", "sickened"): "stopping",
    ("draining", "exited"): "stopping",
    ("parking", "parked"): "parked",
    ("parking", "park failed"): "stopping",
    ("parking", "exited"): "stopping",
    ("parked", "exited"): "stopping",
    ("called", "exited"): "stopping",
    ("waking", "woken"): "ready",
    ("waking", "wake failed"): "stopping",
    ("waking", "exited"): "stopping",
    ("stopping", "gone"): "gone",
}


def _planned() -> Play:
    play = Play(model("a", 12, parked=1, parkable=True), model("b", 12))
    play.ask(1, "a")
    return play


def _cleared() -> Play:
    play = Play(model("a", 12), model("b", 12), settings=Settings(quantum_min_s=0.0, quantum_max_s=0.0))
    play.scheduler.book.serial = 1
    play.serve(8, "b", "b#2")
    play.ask(9, "b")
    play.scheduler.book.serial = 0
    play.ask(1, "a")
    play.tell(Checked(ID))
    return play


def _starting() -> Play:
    play = _planned()
    play.tell(Checked(ID))
    return play


def _checking() -> Play:
    play = _starting()
    play.tell(Started(ID))
    return play


def _ready() -> Play:
    play = _checking()
    play.tell(Proved(ID), 10.0)
    play.release(1)
    return play


def _draining() -> Play:
    play = _ready()
    play.ask(2, "a")
    play.tell(UnloadAsked(ModelName("a")))
    return play


def _parking() -> Play:
    play = _ready()
    play.ask(2, "b")
    play.tell(Checked(InstanceId("b#2")))
    return play


def _parked() -> Play:
    play = _parking()
    play.tell(Parked(ID))
    play.load("b#2")
    return play


def _called() -> Play:
    play = _parked()
    play.release(2)
    play.ask(3, "b")
    play.ask(4, "a")
    play.until(play.now + 130.0)
    return play


def _waking() -> Play:
    play = _parked()
    play.release(2)
    play.ask(3, "a")
    play.gone("b#2")
    return play


def _stopping() -> Play:
    play = _ready()
    play.tell(UnloadAsked(ModelName("a")))
    return play


STAGES: dict[str, Callable[[], Play]] = {
    "planned": _planned,
    "cleared": _cleared,
    "starting": _starting,
    "checking": _checking,
    "ready": _ready,
    "draining": _draining,
    "parking": _parking,
    "parked": _parked,
    "called": _called,
    "waking": _waking,
    "stopping": _stopping,
}


@pytest.mark.parametrize("news", NEWS)
@pytest.mark.parametrize("state", STAGES)
def test_each_happening_has_an_answer_in_each_state(state: str, news: str) -> None:
    play = STAGES[state]()
    assert play.states()[ID] == state
    play.tell(NEWS[news])
    assert play.states().get(ID, "gone") == ANSWERS.get((state, news), state)


def test_every_state_is_on_stage() -> None:
    assert {state.value for state in State} - {"gone"} == set(STAGES)


def test_news_of_unknown_things_is_ignored() -> None:
    play = _ready()
    for event in (
        Proved(InstanceId("a#99")),
        Released(TicketId(99)),
        Withdrawn(TicketId(99)),
        Progressed(TicketId(99)),
        UnloadAsked(ModelName("nobody")),
        PinAsked(ModelName("nobody"), pin=True),
        Cleaned(GPU0),
    ):
        assert play.tell(event) == []
    assert play.states() == {"a#1": "ready"}


def test_a_request_for_an_unknown_model_is_refused() -> None:
    assert refused(Play().ask(1, "nobody")) == {1: "unknown_model"}


def test_a_full_queue_refuses_with_a_time_to_come_back() -> None:
    play = Play(model("a"), settings=Settings(queue_limit=2))
    play.ask(1, "a")
    play.ask(2, "a")
    said = play.ask(3, "a")
    assert refused(said) == {3: "queue_full"}
    assert granted(play.load("a#1")) == [1, 2]


def test_patience_ends_a_wait_and_the_load_for_it() -> None:
    play = Play(model("a"))
    play.ask(1, "a", patience_s=5.0)
    play.tell(Checked(ID), 1.0)
    said = play.until(6.0)
    assert refused(said) == {1: "waited_too_long"}
    assert stopped(said) == ["a#1"]


def test_the_longest_wait_does_not_count_the_switch() -> None:
    play = Play(model("a", concurrency=1), settings=Settings(max_wait_s=20.0))
    play.ask(1, "a")
    play.ask(2, "a")
    assert granted(play.load("a#1", 100.0)) == [1]
    assert play.until(119.9) == []
    assert refused(play.until(121.0)) == {2: "waited_too_long"}


def test_concurrency_is_a_limit() -> None:
    play = Play(model("a", concurrency=2))
    for ticket in (1, 2, 3):
        play.ask(ticket, "a")
    assert granted(play.load("a#1")) == [1, 2]
    assert granted(play.release(1)) == [3]


def test_a_client_that_leaves_frees_its_place() -> None:
    play = Play(model("a"))
    play.ask(1, "a")
    play.ask(2, "a")
    play.tell(Withdrawn(TicketId(1)))
    assert granted(play.load("a#1")) == [2]


def test_a_working_answer_ends_the_row_of_failures() -> None:
    play = Play(model("a"), settings=Settings(starts_in_a_row=2))
    play.serve(1, "a", "a#1")
    for number in (1, 2, 3):
        play.tell(Exited(InstanceId(f"a#{number}"), CRASH))
        play.gone(f"a#{number}")
        play.ask(10 * number, "a", play.now + 3.0)
        play.load(f"a#{number + 1}")
        play.release(10 * number)
    assert play.states() == {"a#4": "ready"}


def test_an_answer_that_failed_does_not() -> None:
    play = Play(model("a"), settings=Settings(starts_in_a_row=2))
    play.ask(1, "a")
    play.load("a#1")
    play.tell(Released(TicketId(1), Outcome.failed))
    play.tell(Exited(ID, CRASH))
    play.gone("a#1")
    play.ask(2, "a", play.now + 3.0)
    play.load("a#2")
    play.tell(Exited(InstanceId("a#2"), CRASH))
    play.tell(Released(TicketId(2), Outcome.failed))
    play.gone("a#2")
    assert refused(play.ask(3, "a")) == {3: "load_failed"}


def test_an_answer_outlives_its_instance() -> None:
    play = Play(model("a"))
    play.ask(1, "a")
    play.load("a#1")
    assert play.tell(Exited(ID, CRASH)) == [Stop(ID, polite=False)]
    play.gone("a#1")
    assert play.scheduler.snapshot(play.now).leases == 1
    play.tell(Released(TicketId(1), Outcome.failed))
    assert play.scheduler.snapshot(play.now).leases == 0


def test_what_was_measured_lets_two_live_together() -> None:
    play = Play(model("a"), model("b"))
    play.ask(1, "a")
    play.tell(Checked(ID))
    play.tell(Started(ID))
    play.tell(Proved(ID, Footprint(5 * 2**30)), 10.0)
    play.release(1)
    play.ask(2, "b")
    play.tell(Checked(InstanceId("b#2")))
    # Beta's own size is unknown: it is alone on the machine, once. After that both are known.
    play.gone("a#1")
    play.tell(Started(InstanceId("b#2")))
    play.tell(Proved(InstanceId("b#2"), Footprint(6 * 2**30)), 20.0)
    play.release(2)
    said = play.ask(3, "a")
    assert checked(said) == ["a#3"]
    assert started(play.tell(Checked(InstanceId("a#3")))) == ["a#3"]
    assert play.states() == {"b#2": "ready", "a#3": "starting"}


def test_a_model_that_takes_no_device_never_waits_for_room() -> None:
    play = Play(model("a"), model("small", devices=0))
    play.serve(1, "a", "a#1")
    play.ask(2, "small")
    assert started(play.tell(Checked(InstanceId("small#2")))) == ["small#2"]


def test_who_may_not_push_others_out_is_refused() -> None:
    play = Play(model("a"), model("b", on_demand=False))
    play.serve(1, "a", "a#1")
    assert refused(play.ask(2, "b")) == {2: "not_on_demand"}
    play.tell(UnloadAsked(ModelName("a")))
    play.gone("a#1")
    assert checked(play.ask(3, "b")) == ["b#2"]


def test_pinned_models_are_in_nobodys_reach() -> None:
    play = Play(model("a", 12, pin=True), model("b", 12))
    play.load("a#1")
    said = play.ask(1, "b")
    assert refused(said) == {1: "load_failed"}
    assert "a is pinned" in str(said)
    play.tell(PinAsked(ModelName("a"), pin=False))
    play.ask(2, "b", 20.0)
    assert stopped(play.tell(Checked(InstanceId("b#2")))) == ["a#1"]


def test_preload_takes_free_room_and_pushes_nobody_out() -> None:
    play = Play(model("a", 12, preload=True), model("b", 12, preload=True), model("c", 3, preload=True))
    play.load("a#1")
    play.load("c#2")
    play.until(10_000.0)
    assert play.states() == {"a#1": "ready", "c#2": "ready"}


def test_loads_on_disjoint_devices_go_at_once_and_on_one_device_in_turn() -> None:
    play = Play(model("a", 5, 1), model("b", 5, (GPU0,)), model("c", 12, 1), devices=gpus(2))
    play.ask(1, "a")
    play.ask(2, "b")
    play.ask(3, "c")
    assert started(play.tell(Checked(InstanceId("a#1")))) == ["a#1"]
    assert started(play.tell(Checked(InstanceId("b#2")))) == []
    assert started(play.tell(Checked(InstanceId("c#3")))) == ["c#3"]
    play.tell(Started(ID))
    assert started(play.tell(Proved(ID))) == ["b#2"]


def test_an_idle_model_waits_with_its_stop_while_another_loads_on_its_device() -> None:
    play = Play(model("a", 5, idle_s=30.0), model("b", 5))
    play.serve(1, "a", "a#1")
    play.ask(2, "b", 35.0)
    play.tell(Checked(InstanceId("b#2")))
    play.tell(Started(InstanceId("b#2")))
    assert stopped(play.until(60.0)) == []
    assert stopped(play.tell(Proved(InstanceId("b#2")))) == ["a#1"]


def test_an_idle_model_that_can_be_parked_is_parked() -> None:
    play = Play(model("a", 5, parkable=True, idle_s=30.0))
    play.serve(1, "a", "a#1")
    play.until(41.0)
    assert play.states() == {"a#1": "parking"}


def test_a_drain_ends_what_stands_still_once() -> None:
    play = Play(model("a"), model("b"), settings=Settings(stall_s=10.0, drain_timeout_s=0.0))
    play.ask(1, "a")
    play.load("a#1")
    play.tell(UnloadAsked(ModelName("a")))
    play.tell(Progressed(TicketId(1)), 15.0)
    assert play.until(24.9) == []
    assert play.until(26.0) == [End(TicketId(1), EndReason.stalled)]
    assert play.until(1000.0) == []


def test_a_default_that_was_asked_away_for_nothing_stays() -> None:
    """A client leaves while the resident drains for it: the resident goes on serving."""
    play = Play(model("a"), model("b"), settings=Settings(quantum_max_s=5.0))
    play.ask(1, "a")
    play.load("a#1")
    play.ask(2, "b")
    play.until(20.0)
    play.tell(Checked(InstanceId("b#2")))
    assert play.states()["a#1"] == "draining"
    assert play.ask(3, "a") == []
    assert play.tell(Withdrawn(TicketId(2))) == [Grant(TicketId(3), ID)]


def test_adopted_numbers_are_never_used_again_and_extras_are_stopped() -> None:
    play = Play(model("a", 5))
    play.serve(1, "a", "a#1")
    assert play.tell(Adopted(InstanceId("a#40"), ModelName("a"), (GPU0,))) == [Stop(InstanceId("a#40"))]
    play.gone("a#40")
    play.tell(UnloadAsked(ModelName("a")))
    play.gone("a#1")
    assert checked(play.ask(2, "a")) == ["a#41"]


def test_shutdown_ends_long_answers_at_the_drain_limit() -> None:
    play = Play(model("a"), settings=Settings(drain_timeout_s=30.0, stall_s=60.0))
    play.ask(1, "a")
    play.load("a#1")
    play.tell(ShutdownAsked())
    assert play.until(100.0) == [End(TicketId(1), EndReason.drain_timeout)]


def test_a_reload_with_other_devices_refuses_what_fits_no_more() -> None:
    play = Play(model("a", 5, 2), devices=gpus(2))
    play.tell(Configured((model("a", 5, 2, revision="2"),), gpus(1)))
    assert refused(play.ask(1, "a")) == {1: "load_failed"}


@pytest.mark.parametrize("settled", [100])
def test_a_step_costs_the_same_however_many_wait(settled: int) -> None:
    """Counted in calls, not in seconds: a machine's mood must not decide."""
    calls = {waiting: _calls(waiting, settled) for waiting in (10, 2000)}
    assert calls[2000] < calls[10] * 1.1


def _calls(waiting: int, settled: int) -> int:
    scheduler = Scheduler()
    names = [ModelName(f"m{number}") for number in range(5)]
    scheduler.step(Configured(tuple(model(name, concurrency=1) for name in names), gpus(1)), 0.0)
    ticket = 0

    def arrive() -> None:
        nonlocal ticket
        ticket += 1
        scheduler.step(Arrived(TicketId(ticket), names[ticket % 5], patience_s=500.0), 1.0)

    for _ in range(waiting):
        arrive()
    count = 0

    def profile(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        for number in range(settled):
            arrive()
            scheduler.step(Withdrawn(TicketId(ticket - number % 7)), 1.0)
    finally:
        sys.setprofile(None)
    return count
