import pytest

from core.play import Play, model
from llm_router.core.acts import Acts
from llm_router.core.book import Book, Line
from llm_router.core.commands import Check, Prove, Start, Stop
from llm_router.core.costs import Costs
from llm_router.core.events import Checked, Proved, Started
from llm_router.core.instance import InvalidTransition, State, Why
from llm_router.core.room import Plan
from llm_router.core.words import InstanceId, ModelName

A = ModelName("a")


def an_acts() -> tuple[Acts, Book, Line]:
    book = Book()
    line = book.lines[A] = Line(model("a", 5))
    return Acts(book, Costs()), book, line


def test_each_act_is_a_move_and_its_command() -> None:
    acts, book, line = an_acts()
    acts.plan(line, Plan(()), errand=False, now=1.0)
    inst = book.instances[InstanceId("a#1")]
    inst.move(State.cleared, 2.0)
    acts.start(inst, 3.0)
    acts.prove(inst, 4.0)
    acts.serve(inst, 5.0)
    acts.drain(inst, Why.idle, 6.0, park=False)
    acts.stop(inst, Why.idle, 7.0, polite=True)
    acts.gone(inst, 8.0)
    assert acts.take() == [Check(inst.id, A, ()), Start(inst.id, A, ()), Prove(inst.id), Stop(inst.id)]
    assert acts.take() == []
    assert not book.instances
    assert acts.done > 0


def test_a_forbidden_act_gives_no_command() -> None:
    acts, book, line = an_acts()
    acts.plan(line, Plan(()), errand=False, now=1.0)
    acts.take()
    with pytest.raises(InvalidTransition):
        acts.prove(book.instances[InstanceId("a#1")], 2.0)
    assert acts.take() == []


def test_the_cost_of_a_switch_is_measured_from_the_stop_to_the_proof() -> None:
    play = Play(model("a"), model("b"))
    play.serve(1, "a", "a#1")
    play.ask(2, "b", 100.0)
    play.tell(Checked(InstanceId("b#2")), 101.0)
    play.gone("a#1", 103.0)
    play.tell(Started(InstanceId("b#2")), 104.0)
    play.tell(Proved(InstanceId("b#2")), 120.0)
    costs = play.scheduler._costs
    assert costs.switch_s(model("a"), model("b")) == 19.0
    assert costs.load_s(model("b")) == 17.0
    assert costs.stop_s(model("a")) == 2.0
