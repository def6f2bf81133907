"""A whole life in one number: storm, calm, rest, shutdown; and what must have come true by the end.

This file knows the liveness of the scheduler: what must happen at last. What must never happen is the
``Lookout``'s.
"""

from collections.abc import Callable
from random import Random

from llm_router.core.commands import Command, Grant, Refuse
from llm_router.core.events import Arrived, ForgiveAsked, PinAsked, Released, ShutdownAsked
from llm_router.core.instance import COMING, State
from llm_router.core.scheduler import Scheduler
from llm_router.core.words import ModelName, Outcome, Reason, TicketId
from llm_router.sim.watch import Lookout, Timed, Wrong
from llm_router.sim.weather import Shelf, Weather, draw_shelf
from llm_router.sim.world import World

#: Virtual seconds in which everything that is under way must have come to an end.
_LONG = 3600.0


class _Ledger(Lookout):
    """Remembers in addition how the tickets of the last, calm round were answered."""

    def __init__(self, shelf: Shelf, scheduler: Scheduler) -> None:
        super().__init__(shelf.sizes, scheduler)
        self.answers: dict[TicketId, Command] = {}

    def asked(self, command: Command, world: Timed) -> None:
        super().asked(command, world)
        if isinstance(command, Grant | Refuse):
            self.answers[command.ticket] = command


def live(seed: int, make: Callable[[], Scheduler] = Scheduler, *, steps: int = 300) -> int:
    """Live through one world. Returns the number of steps; raises ``Wrong`` (or the scheduler's own error)."""
    random = Random(seed)  # noqa: S311  (reproducible on purpose)
    shelf = draw_shelf(random)
    scheduler = make()
    weather = Weather(seed, shelf, rough=random.choice((0.0, 0.05, 0.2)))
    lookout = _Ledger(shelf, scheduler)
    world = World(scheduler, weather, lookout)
    world.tell(shelf.configured)
    weather.blow(world)
    world.run(until=_LONG * 24, steps=steps)
    _calm_down(world, weather, lookout)
    _ask_once_more(world, weather, lookout)
    _rest(world, scheduler, lookout)
    _close(world, scheduler, lookout, keep_engines=random.random() < 0.3)
    return world.steps


def _calm_down(world: World, weather: Weather, lookout: _Ledger) -> None:
    """Nobody asks any more; who waits is answered, one way or the other."""
    weather.still = True
    weather.rough = 0.0
    world.tell(weather.shelf.configured)
    for model in weather.shelf.models:
        world.tell(PinAsked(model.name, model.pin))
        world.tell(ForgiveAsked(model.name))
    while world.leases:
        # Answers that never end, on models that nobody else wants: at last their clients leave.
        world.run(until=world.now + _LONG)
        for ticket in list(world.leases):
            world.tell(Released(ticket, Outcome.left))
    world.run(until=world.now + _LONG)
    if world.waiting:
        _fail(lookout, f"{len(world.waiting)} tickets wait for ever: {world.waiting}")


def _ask_once_more(world: World, weather: Weather, lookout: _Ledger) -> None:
    """In calm weather each request is granted that policy does not forbid."""
    asked: dict[TicketId, ModelName] = {}
    for model in weather.shelf.models:
        world.tell(ForgiveAsked(model.name))
        weather.ticket += 1
        ticket = TicketId(weather.ticket)
        asked[ticket] = model.name
        world.tell(Arrived(ticket, model.name))
    world.run(until=world.now + _LONG)
    for ticket, name in asked.items():
        answer = lookout.answers.get(ticket)
        if isinstance(answer, Refuse) and _is_policy(answer, weather.shelf):
            continue
        if not isinstance(answer, Grant):
            _fail(lookout, f"ticket {ticket} for {name} was asked for in calm weather, and the answer is {answer}")


def _is_policy(answer: Refuse, shelf: Shelf) -> bool:
    reason, failure = answer.refusal.reason, answer.refusal.failure
    pinned = any(model.pin for model in shelf.models)
    no_room = failure is not None and "cannot make room" in failure.cause
    return reason in (Reason.not_on_demand, Reason.queue_full) or (no_room and pinned)


def _rest(world: World, scheduler: Scheduler, lookout: _Ledger) -> None:
    """At rest nothing is held, nothing is under way, and the default is back."""
    snapshot = scheduler.snapshot(world.now)
    if world.leases or snapshot.leases or snapshot.waiting:
        _fail(lookout, f"leases or tickets are left: {snapshot}")
    moving = [
        inst for inst in snapshot.instances if inst.state in COMING or inst.state not in (State.ready, State.parked)
    ]
    if moving:
        _fail(lookout, f"{moving} are under way though nobody asks")
    homes = [view for view in snapshot.models if view.default or view.pin]
    if len(homes) == 1 and homes[0].state is not State.ready:
        _fail(lookout, f"{homes[0].name} is not back")


def _close(world: World, scheduler: Scheduler, lookout: _Ledger, *, keep_engines: bool) -> None:
    ready = [inst.id for inst in scheduler.snapshot(world.now).instances]
    world.tell(ShutdownAsked(keep_engines))
    world.run(until=world.now + _LONG)
    if not world.finished:
        _fail(lookout, "the shutdown does not finish")
    left = [inst.id for inst in scheduler.snapshot(world.now).instances]
    if left != (ready if keep_engines else []):
        _fail(lookout, f"the shutdown leaves {left} of {ready}, keep_engines={keep_engines}")


def _fail(lookout: Lookout, what: str) -> None:
    story = "\n".join(lookout.lines[-40:])
    raise Wrong(f"{what}\n{story}")
