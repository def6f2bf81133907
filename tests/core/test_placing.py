from math import inf

from core.play import GIB, GPU0, Play, gpus, model
from llm_router.core.events import Gone, PinAsked, UnloadAsked
from llm_router.core.placing import Attempt, Placing
from llm_router.core.room import Plan, Want
from llm_router.core.words import InstanceId, ModelName, Settings

A, B = ModelName("a"), ModelName("b")


def placing(play: Play) -> Placing:
    return play.scheduler._settle.placing


def attempt(play: Play, name: ModelName) -> Attempt:
    claim = play.scheduler._settle.batches.claim(play.scheduler.book.lines[name])
    return placing(play).attempt(claim, placing(play).look(play.now))


def test_free_room_is_a_plan_now() -> None:
    play = Play(model("a", 5))
    line = play.scheduler.book.lines[A]
    assert placing(play).want(line) == Want(None, 5 * GIB)
    assert attempt(play, A) == Attempt(Plan((GPU0,)))


def test_a_busy_resident_is_a_plan_for_later() -> None:
    play = Play(model("a"), model("b", load_s=10.0), settings=Settings(quantum_factor=1.0))
    play.ask(1, "a")
    play.load("a#1")
    play.ask(2, "b")
    assert attempt(play, B) == Attempt(None, 20.0, Plan((GPU0,), (InstanceId("a#1"),)))


def test_a_load_in_the_way_gives_no_moment() -> None:
    play = Play(model("a"), model("b"))
    play.ask(1, "a")
    play.ask(2, "b")
    assert attempt(play, B) == Attempt(None, inf, None)


def test_only_the_pinned_make_it_impossible() -> None:
    play = Play(model("a", 12), model("b", 12))
    play.serve(1, "a", "a#1")
    line = play.scheduler.book.lines[B]
    assert placing(play).is_possible(line, dirty_too=False)
    play.tell(PinAsked(A, pin=True))
    assert not placing(play).is_possible(line, dirty_too=True)


def test_lost_memory_makes_it_impossible_for_now() -> None:
    play = Play(model("a", 12), model("b", 12))
    play.serve(1, "a", "a#1")
    play.tell(UnloadAsked(A))
    play.tell(Gone(InstanceId("a#1"), frozenset({GPU0})))
    line = play.scheduler.book.lines[B]
    assert not placing(play).is_possible(line, dirty_too=False)
    assert placing(play).is_possible(line, dirty_too=True)


def test_a_hoped_for_plan_is_remembered_until_something_changes() -> None:
    play = Play(model("a", 12, 1), model("b", 12, 1), model("c", 12, 1), devices=gpus(2))
    for ticket, name, instance in ((1, "a", "a#1"), (2, "b", "b#2")):
        play.ask(ticket, name)
        play.load(instance)
    play.ask(3, "c")
    first = attempt(play, ModelName("c"))
    assert first.later is not None
    assert attempt(play, ModelName("c")).later is first.later
    play.scheduler.book.refresh_room()
    again = attempt(play, ModelName("c"))
    assert again.later == first.later
    assert again.later is not first.later


def test_a_hope_does_not_keep_anybody_from_coming_now() -> None:
    play = Play(model("a", 12, 1), model("b", 12, 1), model("c", 12, 1), devices=gpus(2))
    for ticket, name, instance in ((1, "a", "a#1"), (2, "b", "b#2")):
        play.ask(ticket, name)
        play.load(instance)
    play.ask(3, "c")
    assert attempt(play, ModelName("c")).plan is None
    play.scheduler.book.instances[InstanceId("a#1")].busy = 0
    assert attempt(play, ModelName("c")).plan == Plan((GPU0,), (InstanceId("a#1"),))


def test_one_look_serves_all_who_want_room() -> None:
    play = Play(model("a"), model("b"), model("c", 5))
    play.ask(1, "a")
    play.load("a#1")
    play.ask(2, "b")
    scene = placing(play).look(play.now)
    assert [(one.inst.id, one.leaver is not None) for one in scene.residents] == [(InstanceId("a#1"), True)]
    batches, lines = play.scheduler._settle.batches, play.scheduler.book.lines
    attempts = [placing(play).attempt(batches.claim(lines[ModelName(name)]), scene) for name in "abc"]
    # The resident is not in its own way; nobody waits for gamma, and that is no reason for a busy one to leave.
    assert [(one.plan is not None, one.later is not None) for one in attempts] == [
        (True, False),
        (False, True),
        (False, False),
    ]
