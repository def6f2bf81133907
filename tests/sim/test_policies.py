from llm_router.core.commands import Command, Grant, Park, Start, Stop, Wake
from llm_router.core.events import Arrived, Configured, Event, Gone, Parked, Proved, Released, Started, Withdrawn, Woken
from llm_router.core.words import Device, DeviceId, Footprint, InstanceId, Model, ModelName, Needs, Settings, TicketId
from llm_router.sim.policies import Plain

A, B = ModelName("a"), ModelName("b")
A1, B2 = InstanceId("a#1"), InstanceId("b#2")
GPUS = (Device(DeviceId("gpu0"), 16),)


def tell(policy: Plain, *events: Event) -> list[Command]:
    return [command for number, event in enumerate(events) for command in policy.step(event, float(number))]


def begin(*, overtaking: bool, parked: bool = False) -> Plain:
    policy = Plain(overtaking=overtaking)
    needs = Needs(None, Footprint(12, 1) if parked else None)
    models = tuple(Model(name, needs=needs, parkable=parked, concurrency=2) for name in (A, B))
    tell(policy, Configured(models, GPUS, Settings(margin=0)), Arrived(TicketId(1), A), Started(A1), Proved(A1))
    return policy


def test_in_order_nobody_overtakes() -> None:
    policy = begin(overtaking=False)
    assert tell(policy, Arrived(TicketId(2), B), Arrived(TicketId(3), A)) == []
    assert tell(policy, Released(TicketId(1))) == [Stop(A1)]
    assert tell(policy, Gone(A1)) == [Start(B2, B, (DeviceId("gpu0"),))]
    assert tell(policy, Proved(B2)) == [Grant(TicketId(2), B2)]


def test_on_demand_who_finds_his_model_loaded_is_served() -> None:
    policy = begin(overtaking=True)
    assert tell(policy, Arrived(TicketId(2), B), Arrived(TicketId(3), A)) == [Grant(TicketId(3), A1)]
    assert tell(policy, Released(TicketId(1))) == []
    assert tell(policy, Released(TicketId(3))) == [Stop(A1)]


def test_who_left_is_not_loaded_for() -> None:
    policy = begin(overtaking=True)
    assert tell(policy, Arrived(TicketId(2), B), Withdrawn(TicketId(2)), Released(TicketId(1))) == []


def test_slots_are_a_limit() -> None:
    policy = begin(overtaking=True)
    assert tell(policy, Arrived(TicketId(2), A), Arrived(TicketId(3), A)) == [Grant(TicketId(2), A1)]
    assert tell(policy, Released(TicketId(1))) == [Grant(TicketId(3), A1)]


def test_engines_sleep_and_wake() -> None:
    policy = begin(overtaking=True, parked=True)
    tell(policy, Released(TicketId(1)))
    assert tell(policy, Arrived(TicketId(2), B)) == [Park(A1)]
    assert tell(policy, Parked(A1)) == [Start(B2, B, (DeviceId("gpu0"),))]
    tell(policy, Proved(B2), Released(TicketId(2)))
    assert tell(policy, Arrived(TicketId(3), A)) == [Park(B2)]
    assert tell(policy, Parked(B2)) == [Wake(A1)]
    assert tell(policy, Woken(A1)) == [Grant(TicketId(3), A1)]
    assert policy.deadline() is None
