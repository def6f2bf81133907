from dataclasses import FrozenInstanceError

import pytest

from core.play import BAD_FILE, GIB, GPU0, GPU1, Play, gpus, model
from llm_router.core.events import Checked, Gone, LoadProgressed, Started, UnloadAsked
from llm_router.core.instance import State
from llm_router.core.words import InstanceId, ModelName

A, B = ModelName("a"), ModelName("b")


def test_everything_is_there() -> None:
    play = Play(model("a", 5, 1, concurrency=1, pin=True), model("b", 6, 1, load_s=30.0), devices=gpus(2))
    play.load("a#1")
    play.ask(1, "a")
    play.ask(2, "a")
    play.ask(3, "b")
    play.ask(4, "b", background=True)
    play.tell(Checked(InstanceId("b#2")))
    play.tell(Started(InstanceId("b#2")))
    play.tell(LoadProgressed(InstanceId("b#2"), "loading weights", 40.0, 18.0))
    play.until(play.now + 1.0)
    seen = play.scheduler.snapshot(play.now)
    a, b = seen.model(A), seen.model(B)
    assert a is not None
    assert b is not None
    assert (a.state, a.instance, a.leases, a.waiting, a.pin) == (State.ready, "a#1", 1, 1, True)
    assert (b.state, b.waiting, b.background, b.phase, b.percent, b.left_s) == (
        State.checking,
        1,
        1,
        "loading weights",
        40.0,
        17.0,
    )
    assert (b.load_s, b.waited_s) == (30.0, 1.0)
    one = seen.instance(InstanceId("b#2"))
    assert one is not None
    assert (one.state, one.taken, one.left_s, one.ready_at) == (State.checking, 6 * GIB, 17.0, None)
    assert [(device.id, device.taken, device.instances) for device in seen.devices] == [
        (GPU0, 11 * GIB, ("a#1", "b#2")),
        (GPU1, 0, ()),
    ]
    assert (seen.waiting, seen.leases, seen.closing, seen.finished) == (3, 1, False, False)
    assert seen.model(ModelName("nobody")) is None
    assert seen.instance(InstanceId("nobody")) is None


def test_failures_and_dirt_are_shown() -> None:
    play = Play(model("a", 5), model("b"))
    play.ask(1, "b")
    play.tell(Checked(InstanceId("b#1"), BAD_FILE))
    play.serve(2, "a", "a#2")
    play.tell(UnloadAsked(A))
    play.tell(Gone(InstanceId("a#2"), frozenset({GPU0})))
    seen = play.scheduler.snapshot(play.now)
    b = seen.model(B)
    assert b is not None
    assert (b.state, b.failure, b.failures_in_a_row, b.barred, b.retry_in_s) == (State.gone, BAD_FILE, 1, True, 290.0)
    assert seen.devices[0].dirty


def test_what_was_given_out_never_changes() -> None:
    play = Play(model("a"))
    before = play.scheduler.snapshot(0.0)
    play.serve(1, "a", "a#1")
    assert before.instances == ()
    with pytest.raises(FrozenInstanceError):
        before.waiting = 3  # type: ignore[misc]


def test_a_removed_model_is_not_shown() -> None:
    play = Play(model("a"), model("b"))
    play.ask(1, "a")
    play.load("a#1")
    play.configure(model("b"))
    seen = play.scheduler.snapshot(play.now)
    assert [one.name for one in seen.models] == ["b"]
    assert [(one.id, one.why) for one in seen.instances] == [("a#1", "removed")]
