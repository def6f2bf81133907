from core.play import BAD_FILE, CRASH, Play, granted, model, refused
from llm_router.core.commands import Refuse
from llm_router.core.events import Checked, StartFailed, Withdrawn
from llm_router.core.words import InstanceId, Settings, TicketId

A1 = InstanceId("a#1")


def test_a_background_request_for_a_cold_model_is_held_then_refused_and_starts_nothing() -> None:
    play = Play(model("a"))
    assert play.ask(1, "a", background=True) == []
    assert refused(play.until(1.9)) == {}
    assert refused(play.until(2.0)) == {1: "background_refused"}


def test_it_rides_on_a_load_and_is_served_after_the_others() -> None:
    play = Play(model("a"))
    play.ask(1, "a", background=True)
    play.ask(2, "a")
    assert granted(play.load("a#1", 60.0)) == [2, 1]


def test_it_does_not_count_for_the_end_of_a_turn_nor_for_idle_time() -> None:
    play = Play(model("a", idle_s=30.0))
    play.serve(1, "a", "a#1")
    play.ask(2, "a", 30.0, background=True)
    play.release(2, 31.0)
    play.until(40.0)
    assert play.states() == {"a#1": "stopping"}


def test_it_is_not_granted_while_somebody_waits_for_the_room() -> None:
    play = Play(model("a"), model("b"))
    play.ask(1, "a")
    play.load("a#1")
    play.ask(2, "b")
    assert play.ask(3, "a", background=True) == []
    assert refused(play.until(13.0)) == {3: "background_refused"}


def test_when_the_foreground_leaves_its_time_is_up() -> None:
    play = Play(model("a"))
    play.ask(1, "a", background=True)
    play.ask(2, "a")
    play.until(50.0)
    assert refused(play.tell(Withdrawn(TicketId(2)))) == {1: "background_refused"}


def test_a_limited_patience_ends_a_background_wait_as_such() -> None:
    play = Play(model("a"))
    play.ask(1, "a", background=True, patience_s=1.0)
    assert refused(play.until(1.0)) == {1: "background_refused"}


def test_a_failure_that_will_last_is_told_as_final_one_that_passes_with_a_time() -> None:
    play = Play(model("a"), model("b"), settings=Settings(starts_in_a_row=1, backoff_s=4.0))
    play.ask(1, "a")
    said = play.tell(Checked(A1, BAD_FILE))
    assert isinstance(said[0], Refuse)
    assert (said[0].refusal.retry_after_s, said[0].refusal.failure) == (None, BAD_FILE)
    play.ask(2, "b")
    play.tell(Checked(InstanceId("b#2")))
    said = play.tell(StartFailed(InstanceId("b#2"), CRASH))
    answers = [command for command in said if isinstance(command, Refuse)]
    assert (answers[0].refusal.retry_after_s, answers[0].refusal.failure) == (4.0, CRASH)


def test_expiries_of_answered_tickets_do_not_pile_up() -> None:
    play = Play(model("a"))
    play.serve(1, "a", "a#1")
    for ticket in range(2, 2000):
        play.ask(ticket, "a", patience_s=1e6)
        play.release(ticket)
    assert len(play.scheduler.book.expiries) < 100


def test_on_an_idle_engine_the_request_it_belongs_to_goes_first() -> None:
    play = Play(model("a", concurrency=1))
    play.serve(1, "a", "a#1")
    assert play.ask(2, "a", 20.0, background=True) == []
    assert granted(play.ask(3, "a", 20.3)) == [3]
    assert granted(play.release(3, 21.0)) == [2]
    play.release(2)
    assert play.ask(4, "a", 30.0, background=True) == []
    assert granted(play.until(30.5)) == [4]
