"""The pretend host, and what only a longer life shows: the cost of alternating callers."""

import pytest

from llm_router.core.commands import Command, Grant, Prove, Start, Stop
from llm_router.core.events import (
    Arrived,
    Checked,
    Configured,
    Event,
    Gone,
    Progressed,
    Proved,
    Released,
    Started,
    Withdrawn,
)
from llm_router.core.scheduler import Scheduler
from llm_router.core.words import Device, DeviceId, InstanceId, Model, ModelName, Outcome, Settings, TicketId
from llm_router.sim.world import Answer, Later, Stuck, World

CONFIGURED = Configured(
    (Model(ModelName("a"), load_s=10.0), Model(ModelName("b"), load_s=10.0)),
    (Device(DeviceId("gpu0"), 16),),
    Settings(),
)


class Callers:
    """Two sequential callers, one model each; everything works. A load takes ten seconds, an answer one."""

    def __init__(self, answer: Answer | None = None) -> None:
        self.said: list[Command] = []
        self.granted: dict[ModelName, int] = {ModelName("a"): 0, ModelName("b"): 0}
        self._answer = answer or Answer(1.0)
        self._tickets: dict[TicketId, ModelName] = {}

    def ask(self, world: World, model: ModelName, delay: float) -> None:
        ticket = TicketId(len(self._tickets) + 1)
        self._tickets[ticket] = model
        world.later(delay, Arrived(ticket, model, caller=f"caller of {model}"))

    def perform(self, command: Command, world: World) -> list[Later]:
        self.said.append(command)
        match command:
            case Start(instance):
                return [Later(0.1, Started(instance))]
            case Prove(instance):
                return [Later(10.0, Proved(instance))]
            case Stop(instance):
                return [Later(1.0, Gone(instance))]
        return [Later(0.0, Checked(command.instance))] if hasattr(command, "instance") else []

    def answer(self, grant: Grant, world: World) -> Answer:
        self.granted[self._tickets[grant.ticket]] += 1
        return self._answer

    def answered(self, ticket: TicketId, outcome: Outcome | None, world: World) -> None:
        self.ask(world, self._tickets[ticket], 0.2)


def test_two_alternating_callers_cost_far_fewer_switches_than_requests() -> None:
    callers = Callers()
    world = World(Scheduler(), callers)
    world.tell(CONFIGURED)
    for model in callers.granted:
        callers.ask(world, model, 0.0)
    world.run(until=1000.0)
    loads = sum(isinstance(command, Start) for command in callers.said)
    assert min(callers.granted.values()) > 100
    assert loads < sum(callers.granted.values()) / 10


def test_an_answer_shows_progress_until_it_is_over() -> None:
    seen: list[tuple[float, Event]] = []

    class Watch:
        def happened(self, event: Event, world: World) -> None:
            seen.append((world.now, event))

        def asked(self, command: Command, world: World) -> None: ...

        def settled(self, world: World) -> None: ...

    callers = Callers(Answer(10.0, moves_every=4.0))
    world = World(Scheduler(), callers, Watch())
    world.tell(CONFIGURED)
    callers.ask(world, ModelName("a"), 0.0)
    world.run(until=20.2)
    moves = [round(at, 3) for at, event in seen if isinstance(event, Progressed)]
    assert moves == [14.1, 18.1]
    assert [event.ticket for _, event in seen if isinstance(event, Released)] == [1]


def test_what_a_stopped_instance_would_have_said_is_not_said_unless_it_crosses() -> None:
    class Deaf:
        def __init__(self) -> None:
            self.heard: list[Event] = []

        def step(self, event: Event, now: float) -> list[Command]:
            self.heard.append(event)
            match event:
                case Configured():
                    return [Prove(InstanceId("a#1"))]
                case Withdrawn():
                    return [Stop(InstanceId("a#1"))]
            return []

        def deadline(self) -> float | None:
            return None

    class Crossing(Callers):
        def perform(self, command: Command, world: World) -> list[Later]:
            if isinstance(command, Prove):
                stale = Later(5.0, Started(command.instance), stale=True)
                return [Later(5.0, Proved(command.instance)), stale]
            return super().perform(command, world)

    deaf = Deaf()
    world = World(deaf, Crossing())
    world.tell(CONFIGURED)
    world.waiting[TicketId(1)] = ModelName("a")
    world.later(1.0, Withdrawn(TicketId(1)))
    world.run(until=100.0)
    assert [type(event) for event in deaf.heard] == [Configured, Withdrawn, Gone, Started]


def test_a_scheduler_that_asks_for_the_same_moment_for_ever_is_found() -> None:
    class Impatient(Scheduler):
        def deadline(self) -> float | None:
            return 5.0

    world = World(Impatient(), Callers())
    world.tell(CONFIGURED)
    with pytest.raises(Stuck, match="cannot pass 5"):
        world.run(until=10.0)
