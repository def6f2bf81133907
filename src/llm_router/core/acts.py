"""Every change of state that gives a command, in one place, so that the two never come apart.

This file knows how a thing is done and written down. It does not know whether it should be: the settling
decides that, or an event forces it.
"""

from heapq import heapify
from math import inf

from llm_router.core.book import Book, Line
from llm_router.core.commands import Check, Command, End, Grant, Park, Prove, Refuse, Start, Stop, Wake
from llm_router.core.costs import Costs
from llm_router.core.events import Arrived
from llm_router.core.instance import COMING, Instance, State, Why
from llm_router.core.room import Plan
from llm_router.core.tickets import Lease, Ticket
from llm_router.core.words import EndReason, Failure, Reason, Refusal


class Acts:
    """Carries decisions into the book and the list of commands. ``done`` counts them."""

    def __init__(self, book: Book, costs: Costs) -> None:
        self._book = book
        self._costs = costs
        self.commands: list[Command] = []
        self.done = 0

    def command(self, command: Command) -> None:
        self.commands.append(command)
        self.done += 1

    def take(self) -> list[Command]:
        commands, self.commands = self.commands, []
        return commands

    # Tickets and leases

    def forget(self, ticket: Ticket) -> None:
        """The ticket waits no more, by whatever road."""
        del self._book.waiting[ticket.id]
        self._book.lines[ticket.model].queue.remove(ticket)
        expiries = self._book.expiries
        if len(expiries) > 64 and len(expiries) > 2 * len(self._book.waiting):
            expiries[:] = [entry for entry in expiries if entry[1] in self._book.waiting]
            heapify(expiries)
        self.done += 1

    def refuse(
        self, ticket: Ticket, reason: Reason, retry_after_s: float | None = None, failure: Failure | None = None
    ) -> None:
        self.forget(ticket)
        self.command(Refuse(ticket.id, Refusal(reason, ticket.model, retry_after_s, failure)))

    def turn_away(self, event: Arrived, reason: Reason, retry_after_s: float | None = None) -> None:
        """Refuse a request that never got a place in line."""
        self.command(Refuse(event.ticket, Refusal(reason, event.model, retry_after_s)))

    def refuse_all(
        self, line: Line, reason: Reason, retry_after_s: float | None = None, failure: Failure | None = None
    ) -> None:
        for ticket in list(line.queue):
            self.refuse(ticket, reason, retry_after_s, failure)

    def grant(self, ticket: Ticket, inst: Instance, now: float) -> None:
        self.forget(ticket)
        lease = Lease(ticket.id, inst.model, inst.id, ticket.caller, ticket.background, now, now)
        self._book.leases[ticket.id] = inst.leases[ticket.id] = lease
        if not ticket.background:
            inst.busy += 1
            inst.served = True
            inst.linger_until = -inf
            inst.last_used = now
            inst.keep_s = ticket.keep_s
        self.command(Grant(ticket.id, inst.id))

    def end(self, lease: Lease, reason: EndReason) -> None:
        lease.ending = True
        self.command(End(lease.ticket, reason))

    # Coming

    def plan(self, line: Line, plan: Plan, *, errand: bool, now: float) -> None:
        """Promise the room and have everything checked."""
        footprint = line.footprint
        inst = Instance(
            self._book.next_id(line.name),
            line.name,
            line.model.revision,
            plan.devices,
            footprint.per_device if footprint else None,
            footprint.parked if footprint and line.model.parkable else None,
            State.planned,
            now,
            errand=errand,
            victims=plan.leaving,
        )
        self._book.instances[inst.id] = line.current = inst
        line.dismissed = line.dismissed and errand
        self.command(Check(inst.id, inst.model, inst.devices))

    def call(self, inst: Instance, plan: Plan, now: float) -> None:
        """Promise a parked instance the room it needs awake."""
        inst.victims = plan.leaving
        self._move(inst, State.called, now)

    def drop(self, inst: Instance, now: float) -> None:
        """Nobody wants what has not begun: its promised room is free again."""
        if inst.state is State.called:
            inst.victims = ()
            self._move(inst, State.parked, now)
        else:
            self.gone(inst, now)

    def start(self, inst: Instance, now: float) -> None:
        inst.taken = inst.size
        inst.work_since = now
        self._move(inst, State.starting, now)
        self.command(Start(inst.id, inst.model, inst.devices))

    def wake(self, inst: Instance, now: float) -> None:
        inst.taken = inst.size
        inst.work_since = now
        self._move(inst, State.waking, now)
        self.command(Wake(inst.id))

    def prove(self, inst: Instance, now: float) -> None:
        self._move(inst, State.checking, now)
        self.command(Prove(inst.id))

    def serve(self, inst: Instance, now: float) -> None:
        """It is proved: it may be granted, and lives at least its linger (R16)."""
        self._move(inst, State.ready, now)
        inst.ready_at = inst.last_used = now
        inst.linger_until = now + self._book.settings.linger_s
        inst.served = False
        inst.victims = ()
        inst.phase = inst.percent = inst.left_s = None
        for leaving, since in inst.made_room.items():
            self._costs.switched(leaving, inst.model, now - since)
        inst.made_room.clear()

    # Leaving

    def drain(self, inst: Instance, why: Why, now: float, *, beneficiary: Line | None = None, park: bool) -> None:
        inst.why = why
        inst.leaves_for = beneficiary.name if beneficiary else None
        inst.to_park = park
        inst.drain_since = now
        inst.drain_check_at = -inf
        for lease in inst.leases.values():
            # Progress is reported only from now on, so silence is counted from now on.
            lease.moved_at = now
        self._move(inst, State.draining, now)

    def reprieve(self, inst: Instance, now: float) -> None:
        """What it drained for has vanished before it was stopped."""
        inst.why = inst.leaves_for = None
        inst.to_park = False
        inst.drain_since = inst.drain_check_at = inf
        self._move(inst, State.ready, now)

    def park(self, inst: Instance, now: float) -> None:
        self._note_room_made(inst, now)
        inst.drain_since = inst.drain_check_at = inf
        self._move(inst, State.parking, now)
        self.command(Park(inst.id))

    def asleep(self, inst: Instance, now: float) -> None:
        inst.taken = inst.parked_size
        inst.why = inst.leaves_for = None
        inst.to_park = False
        self._move(inst, State.parked, now)

    def stop(self, inst: Instance, why: Why, now: float, *, polite: bool) -> None:
        self._note_room_made(inst, now)
        if inst.why is None or why is Why.failed:
            inst.why = why
        inst.drain_since = inst.drain_check_at = inf
        inst.work_since = now
        self._move(inst, State.stopping, now)
        self.command(Stop(inst.id, polite))

    def gone(self, inst: Instance, now: float) -> None:
        inst.taken = 0
        self._move(inst, State.gone, now)
        del self._book.instances[inst.id]
        line = self._book.lines[inst.model]
        if line.current is inst:
            line.current = None

    def _note_room_made(self, inst: Instance, now: float) -> None:
        """Remember for whom the switch began, so that its cost can be measured when it ends."""
        line = self._book.lines.get(inst.leaves_for) if inst.leaves_for else None
        if line and line.current and line.current.state in COMING:
            line.current.made_room[inst.model] = now

    def _move(self, inst: Instance, to: State, now: float) -> None:
        inst.move(to, now)
        self.done += 1
