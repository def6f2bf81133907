from core.play import CRASH, GPU0, GPU1, Play, gpus, model
from llm_router.core.commands import Command, Tell
from llm_router.core.events import Arrived, Checked, Event, LoadProgressed, Proved, Started, StartFailed
from llm_router.core.words import InstanceId, ModelName, Notice, Settings, Stage, TicketId

A1, B2 = InstanceId("a#1"), InstanceId("b#2")


def notice(play: Play, ticket: int) -> Notice:
    found = play.scheduler.notice(TicketId(ticket), play.now)
    assert found is not None
    return found


def told(play: Play, event: Event) -> list[str]:
    """The models for which there is news after this."""
    said: list[Command] = play.scheduler.step(event, play.now)
    return [command.model for command in said if isinstance(command, Tell)]


def test_who_does_not_wait_is_told_nothing() -> None:
    play = Play(model("a"))
    play.ask(1, "a")
    play.load("a#1")
    assert play.scheduler.notice(TicketId(1), play.now) is None
    assert play.scheduler.notice(TicketId(99), play.now) is None


def test_places_are_counted_in_the_order_of_service() -> None:
    play = Play(model("a"))
    play.ask(1, "a", background=True)
    play.ask(2, "a")
    play.ask(3, "a", priority=1)
    assert [notice(play, ticket).place for ticket in (3, 2, 1)] == [1, 2, 3]


def test_a_load_is_told_with_phase_percent_and_what_is_left() -> None:
    play = Play(model("a", load_s=40.0))
    play.ask(1, "a")
    play.tell(Checked(A1), 1.0)
    assert notice(play, 1).stage is Stage.starting
    play.tell(Started(A1), 2.0)
    play.until(11.0)
    assert notice(play, 1) == Notice(ModelName("a"), Stage.loading, 11.0, left_s=30.0, running_s=10.0)
    play.tell(LoadProgressed(A1, "loading weights", 50.0, 12.0))
    play.until(15.0)
    seen = notice(play, 1)
    assert (seen.phase, seen.percent, seen.left_s) == ("loading weights", 50.0, 8.0)
    play.until(1000.0)
    assert notice(play, 1).left_s == 0.0


def test_no_history_no_estimate() -> None:
    play = Play(model("a"))
    play.ask(1, "a")
    play.tell(Checked(A1))
    assert notice(play, 1).left_s is None


def test_news_is_a_new_phase_or_a_new_percent_and_nothing_else() -> None:
    play = Play(model("a"))
    assert told(play, Arrived(TicketId(1), ModelName("a"))) == ["a"]
    assert told(play, Arrived(TicketId(2), ModelName("a"))) == []
    assert told(play, Checked(A1)) == ["a"]
    assert told(play, Started(A1)) == ["a"]
    assert told(play, LoadProgressed(A1, "loading", 10.0)) == ["a"]
    assert told(play, LoadProgressed(A1, "loading", 10.4)) == []
    assert told(play, LoadProgressed(A1, "loading", 11.0)) == ["a"]
    assert told(play, LoadProgressed(A1, "warming up", 11.0)) == ["a"]
    assert told(play, Proved(A1)) == []


def test_who_waits_behind_others_is_told_who_is_ahead() -> None:
    play = Play(model("a", load_s=10.0), model("b", load_s=20.0), model("c", load_s=30.0))
    play.ask(1, "a")
    play.tell(Checked(A1))
    play.ask(2, "b")
    play.ask(3, "c")
    assert notice(play, 2).ahead == ("a",)
    assert notice(play, 3).ahead == ("a", "b")
    assert notice(play, 3).left_s == 60.0


def test_a_busy_resident_has_no_known_end() -> None:
    play = Play(model("a", load_s=10.0), model("b", load_s=20.0))
    play.ask(1, "a")
    play.load("a#1")
    play.ask(2, "b")
    seen = notice(play, 2)
    assert (seen.stage, seen.leaving, seen.left_s) == (Stage.queued, "a", None)
    play.until(play.now + 60.0)
    play.tell(Checked(B2))
    seen = notice(play, 2)
    assert (seen.stage, seen.leaving, seen.left_s) == (Stage.draining, "a", None)
    play.release(1)
    seen = notice(play, 2)
    assert (seen.stage, seen.leaving, seen.left_s) == (Stage.stopping, "a", 20.0)


def test_a_model_whose_own_old_engine_leaves_is_told_so() -> None:
    play = Play(model("a"))
    play.ask(1, "a")
    play.load("a#1")
    play.configure(model("a", revision="2"))
    play.ask(2, "a")
    seen = notice(play, 2)
    assert (seen.stage, seen.leaving) == (Stage.draining, "a")
    play.release(1)
    assert notice(play, 2).stage is Stage.stopping


def test_a_pause_after_a_failure_is_told() -> None:
    play = Play(model("a", load_s=5.0))
    play.ask(1, "a")
    play.tell(Checked(A1))
    play.tell(StartFailed(A1, CRASH))
    play.gone("a#1")
    seen = notice(play, 1)
    assert (seen.stage, seen.phase, seen.left_s) == (Stage.queued, "waiting before the next try", None)


def test_a_full_engine_is_ready_all_the_same() -> None:
    play = Play(model("a", concurrency=1))
    play.ask(1, "a")
    play.load("a#1")
    play.ask(2, "a")
    assert notice(play, 2).stage is Stage.ready
    assert notice(play, 2).left_s is None


def test_a_promised_room_that_is_busy_with_another_load_is_queued() -> None:
    play = Play(model("a", 5, (GPU0,)), model("b", 5, (GPU0, GPU1)), devices=gpus(2), settings=Settings())
    play.ask(1, "a")
    play.tell(Checked(A1))
    play.ask(2, "b")
    play.tell(Checked(B2))
    assert notice(play, 2).stage is Stage.queued
