"""What follows from the state, derived anew after every event, until nothing more follows.

This file knows the order of the questions. It keeps no list of whom to wake, so nobody is forgotten; it
visits each model and each instance, never each ticket. The small decisions themselves are in ``rules``.
"""

from collections.abc import Iterable, Iterator
from math import inf
from typing import Final

from msgspec.structs import replace

from llm_router.core.acts import Acts
from llm_router.core.agenda import Agenda
from llm_router.core.batches import Batches, Claim
from llm_router.core.book import Book, Line
from llm_router.core.commands import Finish
from llm_router.core.costs import Costs
from llm_router.core.instance import COMING, Instance, State, Why
from llm_router.core.parting import Parting
from llm_router.core.patience import Patience
from llm_router.core.placing import Attempt, Placing
from llm_router.core.room import Plan
from llm_router.core.rules import Rules
from llm_router.core.tickets import Ticket
from llm_router.core.words import EndReason, Failure, FailureKind, InstanceId, ModelName, Reason

#: A settling that does not come to rest within so many rounds is a bug, and says so.
_ROUNDS: Final = 1000


class Settle:
    """One settling machine per scheduler."""

    def __init__(self, book: Book, acts: Acts, costs: Costs, rules: Rules) -> None:
        self._book = book
        self._acts = acts
        self._costs = costs
        self._rules = rules
        self.batches = Batches(book, costs, rules)
        self.placing = Placing(book, costs, rules, self.batches)
        self._agenda = Agenda()
        self._parting = Parting(book, acts, rules, self.batches, self._agenda)
        self._patience = Patience(book, acts, rules, self._agenda)
        #: The models that wait for room, in the order in which they will be served.
        self.order: tuple[ModelName, ...] = ()
        #: At the last full settling nobody waited, every instance was ready, and nothing else was to be loaded.
        self._calm = False

    @property
    def due(self) -> float:
        """When something will follow from time alone; infinite if only events can help."""
        return self._agenda.due

    def pass_by(self, now: float) -> bool:
        """The common case at little cost: a request came or went while all is calm. False: settle in full.

        In calm nothing follows from it but its own grant and the idle times, so that is all that is looked at.
        """
        book = self._book
        if not self._calm or book.closing:
            return False
        if book.waiting and not self._grant_only(now):
            return False
        done = self._acts.done
        self._agenda.due = inf
        self._parting.run(now)
        return self._acts.done == done

    def _grant_only(self, now: float) -> bool:
        """Grant the one request that waits, if its model is ready for it."""
        ticket = next(iter(self._book.waiting.values()))
        line = self._book.lines[ticket.model]
        inst = line.current
        if inst is None or ticket.background or not self._rules.may_grant(inst):
            return False
        if not self._rules.has_slot(inst, line.model.concurrency):
            return False
        self._acts.grant(ticket, inst, now)
        return True

    def _is_calm(self) -> bool:
        book = self._book
        return (
            not book.waiting
            and not self._agenda.contested
            and all(inst.state is State.ready for inst in book.instances.values())
            and not any(self._rules.is_errand(line) for line in book.lines.values())
        )

    def run(self, now: float) -> None:
        """Decide until nothing changes. Raises ``RuntimeError`` if that never happens."""
        for _ in range(_ROUNDS):
            done = self._acts.done
            self._agenda.due = inf
            self._parting.run(now)
            self._patience.expire(now)
            self._patience.answer_troubled(now)
            self._plan(now)
            self._make_room(now)
            self._drain(now)
            self._grant(now)
            if self._acts.done == done:
                break
        else:
            raise RuntimeError(f"cannot settle at {now:g}: {self._book.instances}, {list(self._book.lines.values())}")
        self._calm = self._is_calm()
        self._finish()

    # Who comes

    def _plan(self, now: float) -> None:
        before, self._agenda.contested = self._agenda.contested, False
        self._plan_contenders(now)
        if before != self._agenda.contested:
            # Others decide by it: background requests, and loads that nobody waits for.
            self._acts.done += 1

    def _plan_contenders(self, now: float) -> None:
        for line in self._book.lines.values():
            line.leaving = None
        if self._book.closing:
            self.order = ()
            return
        contenders = self.batches.contenders()
        self.order = tuple([claim.line.name for claim in contenders])
        urgent = False
        for claim, attempt in self._attempts(contenders, now):
            line = claim.line
            if attempt.plan is None:
                urgent = self._wait_for_room(claim, attempt, now) or urgent
            elif attempt.plan.leaving and not line.model.on_demand:
                self._acts.refuse_all(line, Reason.not_on_demand)
            elif not urgent:
                self._come(line, attempt, now, errand=False)
        self._agenda.contested = self._agenda.contested or any(
            inst.state in COMING and inst.victims and self._rules.is_wanted(self._book.line_of(inst))
            for inst in self._book.instances.values()
        )
        if not self._agenda.contested:
            self._plan_errands(now)

    def _attempts(self, claims: Iterable[Claim], now: float) -> Iterator[tuple[Claim, Attempt]]:
        """What each of them could do now. They all look at one scene, until something is done for one of them.

        What is done for one changes no other's claim: it concerns only its own line and who makes room for it.
        """
        scene, done = None, 0
        for claim in claims:
            if not self._rules.may_start(claim.line, now):
                self._agenda.at(claim.line.trouble.retry_at)
                continue
            if scene is None or done != self._acts.done:
                scene, done = self.placing.look(now), self._acts.done
            yield claim, self.placing.attempt(claim, scene)

    def _come(self, line: Line, attempt: Attempt, now: float, *, errand: bool) -> None:
        assert attempt.plan is not None
        self._inherit(line, attempt.plan)
        plan = replace(attempt.plan, leaving=self._leaving_for(line) + attempt.plan.leaving)
        if line.current is None:
            self._acts.plan(line, plan, errand=errand, now=now)
        else:
            self._acts.call(line.current, plan, now)

    def _inherit(self, line: Line, plan: Plan) -> None:
        """Who still drains for a plan that was dropped a moment ago drains for this one now."""
        for inst in self._book.instances.values():
            idle = self._rules.may_be_reprieved(inst) and not self._parting.is_room_needed(inst)
            if idle and not set(inst.devices).isdisjoint(plan.devices):
                inst.leaves_for = line.name

    def _wait_for_room(self, claim: Claim, attempt: Attempt, now: float) -> bool:
        """Refuse what can never be; else note who is in the way. True if nobody else may slip in before it."""
        line = claim.line
        if attempt.later is None and not self.placing.is_possible(line, dirty_too=True):
            if line.current is not None:
                # It cannot wake where it sleeps; elsewhere it may start.
                self._acts.stop(line.current, Why.evicted, now, polite=True)
            else:
                self._acts.refuse_all(line, Reason.load_failed, failure=self._no_room(line))
            return False
        if not line.model.on_demand and attempt.later:
            self._acts.refuse_all(line, Reason.not_on_demand)
            return False
        self._agenda.at(attempt.due)
        self._agenda.contested = True
        if attempt.later and attempt.later.leaving:
            line.leaving = self._book.instances[attempt.later.leaving[0]].model
        if self._book.dirty and not self.placing.is_possible(line, dirty_too=False):
            return False
        # Small models that fit beside each other must not keep a large one out for ever.
        urgent_at = claim.arrived + self._book.settings.quantum_max_s
        if urgent_at > now:
            self._agenda.at(urgent_at)
        return urgent_at <= now

    def _no_room(self, line: Line) -> Failure:
        pinned = [one.name for one in self._book.lines.values() if one.pin and one is not line and one.current]
        want = self.placing.want(line)
        number = (
            f"{want.devices} devices" if isinstance(want.devices, int) else ", ".join(want.devices or ("all devices",))
        )
        size = "all of the memory" if want.size is None else f"{want.size / 2**30:.1f} GiB of memory"
        here = ", ".join(f"{device.id} with {device.total / 2**30:.1f} GiB" for device in self._book.devices.values())
        beside = f", and {', '.join(pinned)} is pinned" if pinned else ""
        return Failure(
            FailureKind.no_room,
            f"cannot make room for {line.name}: it needs {number} with {size} on each, and here is {here}{beside};"
            " give it fewer devices or a smaller context, or unpin a model",
        )

    def _plan_errands(self, now: float) -> None:
        errands = (self.batches.claim(line) for line in self._book.lines.values() if self._rules.is_errand(line))
        for claim, attempt in self._attempts(errands, now):
            if attempt.plan is not None:
                self._come(claim.line, attempt, now, errand=True)
            else:
                self._agenda.at(attempt.due)

    def _make_room(self, now: float) -> None:
        for inst in list(self._book.instances.values()):
            if inst.state is State.cleared and self.placing.is_free(inst):
                self._acts.start(inst, now)
            elif inst.state is State.called and self.placing.is_free(inst):
                self._acts.wake(inst, now)
            elif inst.state in (State.cleared, State.called):
                self._clear(inst, now)

    def _clear(self, inst: Instance, now: float) -> None:
        """Ask those in the way to leave, as the state is now and not as it was when the plan was made."""
        line = self._book.line_of(inst)
        attempt = self.placing.attempt(self.batches.claim(line), self.placing.look(now))
        if attempt.plan is None:
            self._agenda.at(attempt.due)
            inst.victims = self._leaving_for(line) + (attempt.later.leaving if attempt.later else ())
            if not self.placing.is_possible(line, dirty_too=False):
                self._acts.drop(inst, now)
            return
        inst.victims = self._leaving_for(line) + attempt.plan.leaving
        for victim_id in attempt.plan.leaving:
            victim = self._book.instances[victim_id]
            if victim.state is State.parked:
                victim.leaves_for = line.name
                self._acts.stop(victim, Why.evicted, now, polite=True)
            else:
                park = victim_id in attempt.plan.parking
                self._acts.drain(victim, Why.evicted, now, beneficiary=line, park=park)

    def _leaving_for(self, line: Line) -> tuple[InstanceId, ...]:
        return tuple(
            other.id
            for other in self._book.instances.values()
            if other.state is State.draining and other.leaves_for == line.name
        )

    # Who finishes

    def _drain(self, now: float) -> None:
        for inst in list(self._book.instances.values()):
            if inst.state is not State.draining:
                continue
            if self._rules.is_drained(inst):
                self._leave(inst, now)
            else:
                self._end_overdue(inst, now)

    def _leave(self, inst: Instance, now: float) -> None:
        if not self._book.closing and (self._is_still_checked(inst) or not self.placing.is_quiet(inst)):
            return
        if inst.to_park:
            self._acts.park(inst, now)
        else:
            assert inst.why is not None
            self._acts.stop(inst, inst.why, now, polite=True)

    def _is_still_checked(self, inst: Instance) -> bool:
        """The one it leaves for was planned anew: nobody is stopped before all is checked (R14)."""
        line = self._book.lines.get(inst.leaves_for) if inst.leaves_for else None
        return (
            inst.why is Why.evicted
            and line is not None
            and line.current is not None
            and (line.current.state is State.planned)
        )

    def _end_overdue(self, inst: Instance, now: float) -> None:
        if inst.drain_check_at > now:
            self._agenda.at(inst.drain_check_at)
            return
        inst.drain_check_at = inf
        for lease in inst.leases.values():
            if lease.ending:
                continue
            at = self._rules.overdue_at(inst, lease, self._book)
            if at <= now:
                stalled = lease.moved_at + self._book.settings.stall_s <= now
                self._acts.end(lease, EndReason.stalled if stalled else EndReason.drain_timeout)
            else:
                inst.drain_check_at = min(inst.drain_check_at, at)
        self._agenda.at(inst.drain_check_at)

    # Who is served

    def _grant(self, now: float) -> None:
        for line in self._book.lines.values():
            inst = line.current
            if inst is None or not line.queue or self._book.closing or not self._rules.may_grant(inst):
                continue
            if self.batches.is_closed(inst, now):
                continue
            while self._rules.has_slot(inst, line.model.concurrency):
                ticket = self._next(line)
                if ticket is None or (ticket.background and not self._may_ride(ticket, inst, now)):
                    break
                self._acts.grant(ticket, inst, now)

    def _may_ride(self, ticket: Ticket, inst: Instance, now: float) -> bool:
        """A background request is served beside others, or after a pause on an idle engine; never contested."""
        if self._patience.is_contested(inst):
            return False
        pause_over = ticket.arrived + self._book.settings.background_pause_s
        if inst.busy or pause_over <= now:
            return True
        self._agenda.at(pause_over)
        return False

    def _next(self, line: Line) -> Ticket | None:
        """The head of the line, unless somebody has waited so long that priorities count no more."""
        oldest = line.queue.oldest()
        if oldest is not None and self._rules.is_overdue(oldest, self._book):
            return oldest
        return line.queue.first()

    def _finish(self) -> None:
        book = self._book
        if not book.closing or book.finished or book.leases or book.waiting:
            return
        kept = (State.ready, State.parked) if book.keep_engines else ()
        if all(inst.state in kept for inst in book.instances.values()):
            book.finished = True
            self._acts.command(Finish())
