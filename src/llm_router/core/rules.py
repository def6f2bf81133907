"""The small decisions, each with a name of its own, so that each can be read, tested and broken alone.

This file knows one question at a time: may this be granted, may that leave, is it overdue. It does not know
in which order the questions are asked.
"""

from llm_router.core.book import Book, Line
from llm_router.core.instance import COMING, LEAVING, Instance, State, Why
from llm_router.core.tickets import Lease, Ticket
from llm_router.core.words import Outcome

#: Two moments nearer than this are one; sums of floats must not keep a deadline from being met.
EPSILON = 1e-6


class Rules:
    """What is allowed. Each method answers from what it is given, and changes nothing."""

    # Who counts

    def is_wanted(self, line: Line) -> bool:
        """Somebody waits who may start, hold and switch engines; background requests may not (R17)."""
        return line.queue.front > 0

    def is_contender(self, line: Line) -> bool:
        """It is wanted, and nothing is on its way: not even its own old instance, which must be gone first."""
        inst = line.current
        return self.is_wanted(line) and not line.removed and (inst is None or inst.state is State.parked)

    def is_errand(self, line: Line) -> bool:
        """It should be loaded though nobody waits: pinned, the default, or due to be preloaded (R14, R18)."""
        inst = line.current
        return (
            (inst is None or inst.state is State.parked)
            and not self.is_wanted(line)
            and not (line.removed or line.dismissed)
            and (line.pin or line.preload_due or line.model.default)
        )

    # Memory

    def holds(self, inst: Instance) -> int | None:
        """Bytes it takes physically on each of its devices; what is not proved free is not free (R13)."""
        return inst.taken

    def promised(self, inst: Instance) -> int | None:
        """Bytes that will be its own once everything under way is done."""
        if inst.state in COMING:
            return inst.size
        if inst.state is State.parking or (inst.state is State.draining and inst.to_park):
            return inst.parked_size
        return 0 if inst.state in LEAVING else inst.taken

    # Coming

    def may_start(self, line: Line, now: float) -> bool:
        """No pause after a failure is running (R15)."""
        return line.trouble.retry_at <= now

    def is_barred(self, line: Line, now: float) -> bool:
        """Its failures are answered from memory (R15)."""
        return line.trouble.barred_until > now

    def is_nearly_done(self, inst: Instance, cheap_s: float, expected_s: float | None, now: float) -> bool:
        """A load that nobody waits for goes on if it is more than half done or cheap to finish (R16)."""
        if inst.adopted or (inst.percent is not None and inst.percent >= 50):
            return True
        if inst.left_s is not None:
            return inst.left_s - (now - inst.told_at) <= cheap_s
        if expected_s is None:
            return False
        elapsed = now - inst.work_since
        return elapsed >= expected_s / 2 or expected_s - elapsed <= cheap_s

    # Serving

    def may_grant(self, inst: Instance) -> bool:
        return inst.state is State.ready

    def has_slot(self, inst: Instance, limit: int | None) -> bool:
        return limit is None or len(inst.leases) < limit

    def is_over(self, lease: Lease, outcome: Outcome) -> bool:  # noqa: ARG002  (the point: neither matters)
        """A lease is over when it is released, however rudely the client left."""
        return True

    # Leaving

    def may_leave(self, inst: Instance, line: Line) -> bool:
        """It may be asked to make room: it runs or sleeps, is not pinned, and who loaded it was served first."""
        if inst.state is State.parked:
            return True
        return inst.state is State.ready and not line.pin and not self.is_owed(inst, line)

    def is_owed(self, inst: Instance, line: Line) -> bool:
        """It has just been loaded for somebody who still waits: it must not be evicted before a grant."""
        return not inst.served and self.is_wanted(line)

    def is_drained(self, inst: Instance) -> bool:
        return not inst.leases

    def may_be_reprieved(self, inst: Instance) -> bool:
        return inst.state is State.draining and inst.why is Why.evicted

    def overdue_at(self, inst: Instance, lease: Lease, book: Book) -> float:
        """When a lease of a draining instance may be ended: stalled, or the drain has lasted too long (R10)."""
        settings = book.settings
        stalled = lease.moved_at + settings.stall_s
        return min(stalled, inst.drain_since + settings.drain_timeout_s) if settings.drain_timeout_s else stalled

    # Waiting

    def is_overdue(self, ticket: Ticket, book: Book) -> bool:
        """It has waited so long that priorities count no more (R11)."""
        return book.quiet_wait(ticket) >= self.patience_with_priorities(book) - EPSILON

    def patience_with_priorities(self, book: Book) -> float:
        """Half of the longest wait, so that there is time left to be served; five minutes if there is no limit."""
        return (book.settings.max_wait_s or 600.0) / 2
