import pytest

from llm_router.core.instance import COMING, FREEING, LEAVING, LOADING, MOVES, Instance, InvalidTransition, State
from llm_router.core.words import DeviceId, InstanceId, ModelName


def an_instance(state: State) -> Instance:
    return Instance(InstanceId("a#1"), ModelName("a"), "1", (DeviceId("gpu0"),), 5, None, state, 0.0)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("to", State)
def test_only_the_moves_of_the_table_are_made(state: State, to: State) -> None:
    inst = an_instance(state)
    if to in MOVES[state]:
        inst.move(to, 7.0)
        assert (inst.state, inst.since, inst.story) == (to, 7.0, [state])
        return
    with pytest.raises(InvalidTransition):
        inst.move(to, 7.0)
    assert (inst.state, inst.since, inst.story) == (state, 0.0, [])


def test_a_forbidden_move_tells_the_story() -> None:
    inst = an_instance(State.planned)
    inst.move(State.cleared, 1.0)
    inst.move(State.starting, 2.0)
    with pytest.raises(InvalidTransition) as caught:
        inst.move(State.ready, 3.0)
    assert str(caught.value) == (
        "cannot move a#1 from starting to ready at 3: its story is planned -> cleared -> starting (since 2),"
        " 0 leases, why=None; allowed from here: checking, stopping"
    )


def test_nothing_leads_out_of_gone_and_everything_leads_there() -> None:
    assert MOVES[State.gone] == frozenset()
    for state in State:
        reached, todo = {state}, [state]
        while todo:
            for to in MOVES[todo.pop()] - reached:
                reached.add(to)
                todo.append(to)
        assert State.gone in reached


def test_the_groups_of_states_are_what_they_say() -> None:
    assert not set(COMING) & set(LOADING)
    assert not set(LOADING) & set(FREEING)
    assert not set(COMING) & set(LEAVING)


def test_repr_is_for_reading() -> None:
    assert repr(an_instance(State.ready)) == "<a#1 ready since 0>"
