"""A pretend host on virtual time: it performs commands, and tells what came of them.

This file knows time, processes, answers and clients as far as they make events. How long things take and
how they go wrong is the ``Nature``'s; what must never be seen is the ``Watch``'s.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from typing import Protocol

from llm_router.core.commands import Check, Command, End, Finish, Grant, Park, Prove, Refuse, Start, Stop, Tell, Wake
from llm_router.core.events import Arrived, Event, Progressed, Released, Ticked, Withdrawn
from llm_router.core.scheduler import Policy
from llm_router.core.words import InstanceId, ModelName, Outcome, TicketId


@dataclass(frozen=True, slots=True)
class Later:
    """An event that comes after so many seconds. ``stale``: it comes even if its instance was stopped meanwhile."""

    delay: float
    event: Event
    stale: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """How a granted request goes: it ends by itself after ``seconds``, or never (``None``) until it is ended."""

    seconds: float | None
    outcome: Outcome = Outcome.done
    #: It shows progress every so many seconds.
    moves_every: float | None = None


class Nature(Protocol):
    """How long things take here, and how they go wrong."""

    def perform(self, command: Command, world: "World") -> list[Later]:
        """What comes of a command that concerns an instance."""
        ...

    def answer(self, grant: Grant, world: "World") -> Answer:
        """How the granted request goes."""
        ...

    def answered(self, ticket: TicketId, outcome: Outcome | None, world: "World") -> None:
        """The request is over (``None``: it was refused); its client may ask again by ``world.later``."""
        ...


class Watch(Protocol):
    """Looks on. It raises when it sees what must not be."""

    def happened(self, event: Event, world: "World") -> None: ...

    def asked(self, command: Command, world: "World") -> None: ...

    def settled(self, world: "World") -> None: ...


class Stuck(AssertionError):  # noqa: N818  (it reads as what it says)
    """The scheduler asks for the same moment again and again."""


@dataclass(order=True, slots=True)
class _Entry:
    at: float
    number: int
    event: Event = field(compare=False)
    instance: InstanceId | None = field(compare=False, default=None)
    stale: bool = field(compare=False, default=False)
    #: Called instead of telling an event.
    call: Callable[[], None] | None = field(compare=False, default=None)


class World:
    """Runs one policy against one nature. ``now`` is virtual time in seconds."""

    def __init__(self, policy: Policy, nature: Nature, watch: Watch | None = None) -> None:
        self.policy = policy
        self.nature = nature
        self.watch = watch
        self.now: float = 0.0
        self.steps = 0
        self.finished = False
        #: Tickets that wait, with their model; tickets that are answered now, with their instance.
        self.waiting: dict[TicketId, ModelName] = {}
        self.leases: dict[TicketId, InstanceId] = {}
        self._entries: list[_Entry] = []
        self._numbers = count()
        self._ticks_here = 0

    def later(self, delay: float, event: Event) -> None:
        """An event from outside: an arrival, a wish of the operator."""
        heappush(self._entries, _Entry(self.now + delay, next(self._numbers), event))

    def call_later(self, delay: float, call: Callable[[], None]) -> None:
        heappush(self._entries, _Entry(self.now + delay, next(self._numbers), Ticked(), call=call))

    def run(self, until: float, steps: int | None = None) -> None:
        """Live on until that moment, until nothing more can happen, or until so many steps are done."""
        end = None if steps is None else self.steps + steps
        while (end is None or self.steps < end) and self._advance(until):
            pass

    def tell(self, event: Event) -> None:
        """One step of the policy now, with the performance of what it asks for."""
        self.steps += 1
        match event:
            case Arrived(ticket, model):
                self.waiting[ticket] = model
            case Released(ticket):
                self.leases.pop(ticket, None)
            case Withdrawn(ticket):
                self.waiting.pop(ticket, None)
        if self.watch:
            self.watch.happened(event, self)
        for command in self.policy.step(event, self.now):
            if self.watch:
                self.watch.asked(command, self)
            self._perform(command)
        if isinstance(event, Released):
            self.nature.answered(event.ticket, event.outcome, self)
        if self.watch:
            self.watch.settled(self)

    def _advance(self, until: float) -> bool:
        due = self.policy.deadline()
        entry = self._entries[0] if self._entries else None
        if due is not None and (entry is None or due <= entry.at):
            if due > until:
                return False
            self._ticks_here = self._ticks_here + 1 if due <= self.now else 0
            if self._ticks_here > 1000:
                raise Stuck(f"cannot pass {self.now}: the scheduler wants {due} again and again")
            self.now = max(self.now, due)
            self.tell(Ticked())
            return True
        if entry is None or entry.at > until:
            return False
        heappop(self._entries)
        self.now = max(self.now, entry.at)
        self._ticks_here = 0
        if entry.call is not None:
            entry.call()
        elif self._still_true(entry):
            self.tell(entry.event)
        return True

    def _still_true(self, entry: _Entry) -> bool:
        match entry.event:
            case Progressed(ticket) | Released(ticket):
                return ticket in self.leases
            case Withdrawn(ticket):
                return ticket in self.waiting
        return True

    def forget(self, instance: InstanceId) -> None:
        """The instance was stopped: what it would have said is said no more, but for what crosses."""
        kept = [entry for entry in self._entries if entry.instance != instance or entry.stale]
        if len(kept) != len(self._entries):
            self._entries = sorted(kept)

    def _perform(self, command: Command) -> None:
        match command:
            case Stop(instance):
                self.forget(instance)
                self._expect(instance, self.nature.perform(command, self))
            case Check(instance) | Start(instance) | Prove(instance) | Park(instance) | Wake(instance):
                self._expect(instance, self.nature.perform(command, self))
            case Grant():
                self._serve(command)
            case Refuse(ticket):
                self.waiting.pop(ticket, None)
                self.nature.answered(ticket, None, self)
            case End(ticket):
                self.later(0.01, Released(ticket, Outcome.failed))
            case Finish():
                self.finished = True
            case Tell():
                pass

    def _expect(self, instance: InstanceId, events: list[Later]) -> None:
        for item in events:
            number = next(self._numbers)
            heappush(self._entries, _Entry(self.now + item.delay, number, item.event, instance, item.stale))

    def _serve(self, grant: Grant) -> None:
        self.waiting.pop(grant.ticket, None)
        self.leases[grant.ticket] = grant.instance
        answer = self.nature.answer(grant, self)
        if answer.seconds is not None:
            self.later(answer.seconds, Released(grant.ticket, answer.outcome))
        if answer.moves_every is not None:
            every = answer.moves_every
            self.call_later(every, lambda: self._move_on(grant.ticket, every))

    def _move_on(self, ticket: TicketId, every: float) -> None:
        if ticket in self.leases:
            self.tell(Progressed(ticket))
            self.call_later(every, lambda: self._move_on(ticket, every))
