"""The scheduler: writes down what happened, then lets everything that follows be derived.

This file knows what each event changes in the book, in every state. It never asks and never waits: it knows
only what events told it, and time comes in with them.
"""

from heapq import heappush
from math import inf
from typing import Final, Protocol

from llm_router.core.acts import Acts
from llm_router.core.book import Book
from llm_router.core.commands import Command
from llm_router.core.costs import Costs
from llm_router.core.events import (
    Adopted,
    Arrived,
    Checked,
    Cleaned,
    Configured,
    Event,
    Exited,
    ForgiveAsked,
    Gone,
    LoadProgressed,
    Parked,
    ParkFailed,
    PinAsked,
    Progressed,
    Proved,
    Released,
    ShutdownAsked,
    Sickened,
    Started,
    StartFailed,
    Ticked,
    UnloadAsked,
    WakeFailed,
    Withdrawn,
    Woken,
)
from llm_router.core.instance import FREEING, LOADING, Instance, State, Why
from llm_router.core.notices import Notices
from llm_router.core.operator import Operator
from llm_router.core.rules import Rules
from llm_router.core.settle import Settle
from llm_router.core.snapshot import Snapshot, photograph
from llm_router.core.tickets import Ticket
from llm_router.core.words import DeviceId, Failure, Footprint, InstanceId, Notice, Outcome, Reason, TicketId

_REQUESTS: Final = (Arrived, Released)


class Policy(Protocol):
    """What decides: the scheduler, or another policy to compare it with."""

    def step(self, event: Event, now: float) -> list[Command]: ...

    def deadline(self) -> float | None: ...


class Scheduler:
    """Decides who is served, who comes and who leaves.

    Not thread-safe: one owner feeds it every event, in order, and performs the commands afterwards. ``now``
    is any clock that does not run backwards, in seconds.
    """

    def __init__(self, rules: Rules | None = None) -> None:
        self._rules = rules or Rules()
        self._book = Book()
        self._costs = Costs()
        self._acts = Acts(self._book, self._costs)
        self._operator = Operator(self._book, self._acts, self._costs)
        self._settle = Settle(self._book, self._acts, self._costs, self._rules)
        self._notices = Notices(self._book, self._acts, self._costs, self._settle.batches)

    @property
    def book(self) -> Book:
        """The state itself, for invariants and tests; everybody else takes a snapshot."""
        return self._book

    @property
    def serial(self) -> int:
        """The highest number that an instance has had so far, in this run or before it."""
        return self._book.serial

    def step(self, event: Event, now: float) -> list[Command]:
        """Take in what happened and say what should happen.

        Raises ``InvalidTransition`` or ``RuntimeError`` only for a fault of its own. An event that speaks of
        an unknown or former instance or ticket is ignored: the answer to a command may cross with the one
        that made it pointless, and nothing of a former incarnation is believed.
        """
        self._book.pass_time(now)
        self._write_down(event, now)
        self._follow(event, now)
        return self._acts.take()

    def deadline(self) -> float | None:
        """When it would like a ``Ticked`` if nothing else happens before; ``None`` if it only waits for events."""
        return None if self._settle.due == inf else self._settle.due

    def snapshot(self, now: float) -> Snapshot:
        """The state as values."""
        return photograph(self._book, self._notices, now)

    def notice(self, ticket: TicketId, now: float) -> Notice | None:
        """What to tell the client of a waiting ticket; ``None`` if the ticket does not wait."""
        return self._notices.notice(ticket, now)

    def _follow(self, event: Event, now: float) -> None:
        """Whatever happened, all is derived anew; but for most requests nothing can follow for anybody else."""
        if isinstance(event, _REQUESTS) and self._settle.pass_by(now):
            return
        self._settle.run(now)
        self._notices.tell(self._settle.order, now)

    def _write_down(self, event: Event, now: float) -> None:
        match event:
            case Arrived():
                self._on_arrived(event, now)
            case Withdrawn(ticket):
                self._on_withdrawn(ticket)
            case Released(ticket, outcome):
                self._on_released(ticket, outcome, now)
            case Progressed(first, others):
                for ticket in (first, *others):
                    if ticket in self._book.leases:
                        self._book.leases[ticket].moved_at = now
            case Configured():
                self._operator.configure(event)
            case Cleaned(device):
                self._book.dirty.discard(device)
                self._book.refresh_room()
            case Adopted():
                self._operator.adopt(event, now)
            case UnloadAsked(model):
                if model in self._book.lines:
                    self._operator.unload(self._book.lines[model], now)
            case PinAsked(model, pin):
                if model in self._book.lines:
                    self._book.lines[model].pin = pin
                    self._book.lines[model].dismissed = False
            case ForgiveAsked(model):
                if model in self._book.lines:
                    self._book.lines[model].trouble.clear()
            case ShutdownAsked(keep_engines):
                self._operator.shut_down(keep_engines=keep_engines)
            case Ticked():
                pass
            case _:
                inst = self._find(event.instance)
                if inst is not None:
                    self._on_instance(event, inst, now)

    def _find(self, instance: InstanceId) -> Instance | None:
        return self._book.find(instance)

    # Requests

    def _on_arrived(self, event: Arrived, now: float) -> None:
        book = self._book
        line = book.lines.get(event.model)
        if line is None or line.removed:
            self._acts.turn_away(event, Reason.unknown_model)
        elif book.closing:
            self._acts.turn_away(event, Reason.shutting_down)
        elif len(book.waiting) >= book.settings.queue_limit:
            self._acts.turn_away(event, Reason.queue_full, max(book.settings.quantum_min_s, 1.0))
        else:
            book.number += 1
            ticket = Ticket(
                event.ticket,
                event.model,
                event.caller,
                line.model.priority + event.priority,
                event.background,
                now,
                inf if event.patience_s is None else now + event.patience_s,
                book.quiet,
                book.number,
                event.keep_s,
            )
            book.waiting[ticket.id] = ticket
            line.queue.add(ticket)
            if ticket.expires < inf:
                heappush(book.expiries, (ticket.expires, ticket.id))
            if not ticket.background:
                line.habits.came(ticket.caller, now, book.settings.linger_s)

    def _on_withdrawn(self, ticket_id: TicketId) -> None:
        """Ignored for a ticket that was answered meanwhile: a grant ends by its ``Released``."""
        ticket = self._book.waiting.get(ticket_id)
        if ticket is not None:
            self._acts.forget(ticket)

    def _on_released(self, ticket_id: TicketId, outcome: Outcome, now: float) -> None:
        """Ignored for what is no lease: there is exactly one release for each grant."""
        lease = self._book.leases.get(ticket_id)
        if lease is None or not self._rules.is_over(lease, outcome):
            return
        del self._book.leases[ticket_id]
        line = self._book.lines.get(lease.model)
        likely = line is not None and not lease.background and line.habits.left(lease.caller, now)
        inst = self._book.instances.get(lease.instance)
        if inst is None:
            return
        del inst.leases[ticket_id]
        if lease.background:
            return
        inst.busy -= 1
        inst.last_used = now
        if outcome is Outcome.continues or (likely and outcome is Outcome.done):
            inst.linger_until = max(inst.linger_until, now + self._book.settings.linger_s)
        if (
            line is not None
            and outcome in (Outcome.done, Outcome.continues)
            and inst.why not in (Why.sick, Why.failed)
            and inst.revision == line.model.revision
        ):
            # An engine that has answered is a working one, whatever came before.
            line.trouble.clear()

    # Instances

    def _on_instance(self, event: Event, inst: Instance, now: float) -> None:
        """What an instance's news means in its state; news that comes too late for the state is ignored."""
        match event, inst.state:
            case Checked(_, failure), State.planned:
                self._on_checked(inst, failure, now)
            case Started(), State.starting:
                self._acts.prove(inst, now)
            case LoadProgressed(_, phase, percent, left_s), state if state in LOADING:
                inst.phase, inst.percent, inst.left_s, inst.told_at = phase, percent, left_s, now
            case Proved(_, measured), State.checking:
                self._on_proved(inst, measured, now)
            case Woken(), State.waking:
                self._costs.woken(inst.model, now - inst.work_since)
                self._serve(inst, now)
            case StartFailed(_, failure), (State.starting | State.checking):
                self._fail(inst, failure, now, polite=True)
            case WakeFailed(_, failure), State.waking:
                self._fail(inst, failure, now, polite=True)
            case Exited(_, failure), state if state not in FREEING and state not in (State.planned, State.cleared):
                self._fail(inst, failure, now, polite=False)
            case Exited(), State.parking:
                self._acts.stop(inst, Why.failed, now, polite=False)
            case Parked(), State.parking:
                self._acts.asleep(inst, now)
            case ParkFailed(), State.parking:
                self._acts.stop(inst, inst.why or Why.evicted, now, polite=True)
            case Sickened(_, failure), (State.ready | State.draining):
                self._on_sickened(inst, failure, now)
            case Gone(_, dirty), State.stopping:
                self._on_gone(inst, dirty, now)
            case _:
                # A check of a dropped plan, a start that was stopped meanwhile, an exit that was asked for:
                # the Gone that follows every Stop says all that matters.
                pass

    def _on_checked(self, inst: Instance, failure: Failure | None, now: float) -> None:
        if failure is None:
            inst.move(State.cleared, now)
        else:
            self._note(inst, failure, now)
            self._acts.gone(inst, now)

    def _on_proved(self, inst: Instance, measured: Footprint | None, now: float) -> None:
        line = self._book.line_of(inst)
        if measured is not None:
            known = inst.size or 0
            inst.size = inst.taken = max(known, measured.per_device)
            if inst.parked_size is None and line.model.parkable:
                inst.parked_size = measured.parked
            if inst.revision == line.model.revision:
                line.learnt = measured
        if not inst.adopted:
            self._costs.loaded(inst.model, now - inst.work_since)
        self._serve(inst, now)

    def _serve(self, inst: Instance, now: float) -> None:
        self._acts.serve(inst, now)
        self._book.line_of(inst).preload_due = False

    def _fail(self, inst: Instance, failure: Failure, now: float, *, polite: bool) -> None:
        """It must be swept; its leases end by their own ``Released``. A parked one that dies is no failure."""
        if inst.state not in (State.parked, State.called):
            self._note(inst, failure, now)
        self._acts.stop(inst, Why.failed, now, polite=polite)

    def _note(self, inst: Instance, failure: Failure, now: float) -> None:
        """Remember a failure, unless it is one of a revision that is no longer in force (R15)."""
        line = self._book.line_of(inst)
        if inst.revision != line.model.revision:
            return
        line.trouble.note(failure, self._book.settings, now)
        if line.trouble.barred_until > now:
            line.preload_due = False

    def _on_sickened(self, inst: Instance, failure: Failure, now: float) -> None:
        """It gets nothing new; who is being answered may still be answered (R27)."""
        if inst.why is Why.sick:
            return
        self._note(inst, failure, now)
        if inst.state is State.ready:
            self._acts.drain(inst, Why.sick, now, park=False)
        inst.why = Why.sick
        inst.to_park = False

    def _on_gone(self, inst: Instance, dirty: frozenset[DeviceId], now: float) -> None:
        self._costs.stopped(inst.model, now - inst.work_since)
        for device in dirty & self._book.devices.keys():
            self._book.dirty.add(device)
        self._book.refresh_room()
        line = self._book.line_of(inst)
        self._acts.gone(inst, now)
        if line.removed and line.current is None:
            del self._book.lines[line.name]
