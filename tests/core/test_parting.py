import pytest

from core.play import Play, checked, granted, model, refused, stopped
from llm_router.core.events import Checked, LoadProgressed, Proved, Started, Withdrawn
from llm_router.core.words import InstanceId, Settings, TicketId

A1, B2 = InstanceId("a#1"), InstanceId("b#2")


def loading(**more: object) -> Play:
    play = Play(model("a", **more), model("b"))  # type: ignore[arg-type]
    play.ask(1, "a")
    play.tell(Checked(A1))
    play.tell(Started(A1))
    return play


def leave(play: Play, ticket: int = 1) -> list[str]:
    return stopped(play.tell(Withdrawn(TicketId(ticket))))


def test_a_load_without_history_or_progress_is_stopped() -> None:
    play = loading()
    play.until(60.0)
    assert leave(play) == ["a#1"]


def test_a_load_that_is_more_than_half_done_goes_on() -> None:
    play = loading(load_s=100.0)
    play.tell(LoadProgressed(A1, "loading weights", 49.0, 60.0))
    assert leave(play) == ["a#1"]
    play = loading(load_s=100.0)
    play.tell(LoadProgressed(A1, "loading weights", 50.0, 60.0))
    assert leave(play) == []
    play = loading(load_s=100.0)
    play.until(51.0)
    assert leave(play) == []


def test_a_load_that_is_cheap_to_finish_goes_on() -> None:
    play = loading(load_s=100.0)
    play.tell(LoadProgressed(A1, "loading weights", 10.0, 7.0))
    play.until(3.0)
    assert leave(play) == []
    assert leave(loading(load_s=4.0)) == []


def test_a_load_goes_on_for_the_others() -> None:
    play = loading()
    play.ask(2, "a")
    assert leave(play) == []
    assert leave(play, 2) == ["a#1"]


def test_a_retry_meets_the_model_warm_although_others_wait() -> None:
    play = loading(load_s=10.0)
    play.until(6.0)
    assert leave(play) == []
    play.ask(2, "b", 7.0)
    assert checked(play.tell(Proved(A1), 10.0)) == []
    assert granted(play.ask(3, "a", 11.9)) == [3]


def test_nobody_comes_back_and_the_next_one_is_served_after_the_linger() -> None:
    play = loading(load_s=10.0)
    play.until(6.0)
    leave(play)
    play.ask(2, "b", 7.0)
    play.tell(Proved(A1), 10.0)
    assert checked(play.until(12.0)) == ["b#2"]


def test_an_idle_model_leaves_after_its_time() -> None:
    play = Play(model("a", idle_s=30.0))
    play.serve(1, "a", "a#1")
    assert stopped(play.until(39.9)) == []
    play.ask(2, "a")
    play.release(2, 50.0)
    assert stopped(play.until(79.9)) == []
    assert stopped(play.until(80.0)) == ["a#1"]


@pytest.mark.parametrize("idle_s", [None, 30.0])
@pytest.mark.parametrize("keep_s", [0.0, 5.0, 600.0])
def test_a_request_may_wish_how_long_the_model_stays(idle_s: float | None, keep_s: float) -> None:
    play = Play(model("a", idle_s=idle_s))
    play.serve(1, "a", "a#1")
    play.ask(2, "a", 10.0, keep_s=keep_s)
    play.release(2, 20.0)
    leaves = 20.0 + max(keep_s, play.settings.linger_s)  # it lingers for the caller's next request in any case
    assert stopped(play.until(leaves - 0.1)) == []
    assert stopped(play.until(leaves)) == ["a#1"]


def test_a_wish_holds_for_one_request_and_a_background_request_has_none() -> None:
    play = Play(model("a", idle_s=30.0))
    play.serve(1, "a", "a#1")
    play.ask(2, "a", 10.0, keep_s=600.0)
    play.ask(3, "a", 11.0, background=True, keep_s=1.0)
    play.release(2, 12.0)
    play.release(3, 13.0)
    assert stopped(play.until(50.0)) == [], "the wish of the request that somebody waited for counts"
    play.ask(4, "a", 50.0)
    play.release(4, 60.0)
    assert stopped(play.until(89.9)) == []
    assert stopped(play.until(90.0)) == ["a#1"]


def test_a_wish_makes_no_room_wait() -> None:
    play = Play(model("a"), model("b"))
    play.serve(1, "a", "a#1")
    play.ask(2, "a", 10.0, keep_s=600.0)
    play.release(2, 11.0)
    play.ask(3, "b", 12.0)
    play.until(60.0)
    assert stopped(play.tell(Checked(B2))) == ["a#1"]


def test_pinned_and_default_models_never_idle_away() -> None:
    for more in ({"pin": True}, {"default": True}):
        play = Play(model("a", idle_s=5.0, **more))
        play.load("a#1")
        assert stopped(play.until(1000.0)) == []


def test_a_default_on_its_way_gives_way_to_a_request_unless_it_is_nearly_there() -> None:
    for seconds, goes in ((3.0, ["a#1"]), (8.0, [])):
        play = Play(model("a", default=True, load_s=10.0), model("b"), settings=Settings(quantum_min_s=1.0))
        play.tell(Checked(A1))
        play.tell(Started(A1))
        assert stopped(play.ask(1, "b", seconds)) == goes


def test_a_plan_nobody_waits_for_frees_its_room_at_once() -> None:
    play = Play(model("a"), model("b"))
    play.ask(1, "a")
    play.ask(2, "b")
    assert checked(play.tell(Withdrawn(TicketId(1)))) == ["b#2"]
    assert refused(play.said) == {}
