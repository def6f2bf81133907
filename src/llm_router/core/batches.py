"""Whom to serve next: requests are served in batches by model (R11, R12).

This file knows turns: how long a resident keeps its place when others wait, and who of those is first. It
does not know about room, nor what is done when a turn ends.
"""

from math import inf

from llm_router.core.book import Book, Line
from llm_router.core.costs import Costs
from llm_router.core.instance import COMING, Instance, State
from llm_router.core.rules import Rules
from llm_router.core.tickets import Ticket

# A switch costs much more than an answer. So a resident that is asked all the time keeps its place for a
# quantum, in proportion to what the switch to the one who waits costs; then it gets no new grants, finishes
# what runs, and yields. A resident that is not asked yields at once, unless it lingers. A quantum runs from
# the moment somebody waits, or from the moment the resident became ready if that is later: a resident that
# was left alone for hours has no debt, and one that has just come has its whole turn before it.


class Batches:
    """Turns and order. All times are moments of the caller's clock."""

    def __init__(self, book: Book, costs: Costs, rules: Rules) -> None:
        self._book = book
        self._costs = costs
        self._rules = rules

    def contenders(self) -> list[Line]:
        """The models that are wanted and have no instance on its way, in the order in which they are served."""
        lines = [line for line in self._book.lines.values() if self._rules.is_contender(line)]
        return sorted(lines, key=self._order) if len(lines) > 1 else lines

    def _order(self, line: Line) -> tuple[bool, int, float, int]:
        oldest = self._spokesman(line)
        overdue = self._rules.is_overdue(oldest, self._book)
        return not overdue, 0 if overdue else -line.priority(), oldest.arrived, oldest.number

    def _spokesman(self, line: Line) -> Ticket:
        """Whose wait decides for the whole line: the one that lasts longest."""
        oldest = line.queue.oldest() or line.queue.first()
        assert oldest is not None, f"cannot judge the wait of {line!r}: it is wanted, but nobody waits"
        return oldest

    def quantum(self, resident: Line, waiting: Line) -> float:
        """Seconds for which the resident keeps its place against this one."""
        settings = self._book.settings
        cost = self._costs.switch_s(resident.model, waiting.model)
        return max(settings.quantum_min_s, min(settings.quantum_factor * cost, settings.quantum_max_s))

    def turn_end(self, inst: Instance, waiting: Line, now: float) -> float:
        """When a resident that is asked all the time must yield to this one."""
        resident = self._book.line_of(inst)
        oldest = self._spokesman(waiting)
        quantum = self.quantum(resident, waiting)
        first = resident.queue.oldest()
        if first is not None and first.number < oldest.number:
            # Who came before is served before: then the turn may last as long as a turn ever may.
            quantum = max(quantum, self._book.settings.quantum_max_s)
        if not self._rules.is_overdue(oldest, self._book):
            ours, theirs = resident.priority(), waiting.priority()
            if theirs > ours:
                quantum = min(quantum, self._book.settings.quantum_min_s)
            elif theirs < ours and self._rules.is_wanted(resident):
                patience = self._rules.patience_with_priorities(self._book)
                return now + max(patience - self._book.quiet_wait(oldest), 0.0)
        return max(oldest.arrived, inst.ready_at) + quantum

    def yields_at(self, inst: Instance, waiting: Line, now: float) -> float:
        """From when on this instance may be asked to leave for the one who waits."""
        if inst.state is State.parked:
            return -inf
        resident = self._book.line_of(inst)
        if not self._rules.is_wanted(waiting):
            return self._yields_to_errand(inst, resident, waiting)
        end = self.turn_end(inst, waiting, now)
        if inst.busy or self._rules.is_wanted(resident):
            return end
        return min(inst.linger_until, end)

    def _yields_to_errand(self, inst: Instance, resident: Line, waiting: Line) -> float:
        """A model nobody waits for: a pin may push out an idle one, the default waits longer, a preload never."""
        if inst.busy or self._rules.is_wanted(resident) or resident.model.default:
            return inf
        if waiting.pin:
            return inst.linger_until
        if not waiting.model.default:
            return inf
        idle_s = resident.model.idle_s
        rest = self._book.settings.quantum_max_s if idle_s is None else idle_s
        return max(inst.linger_until, inst.last_used + rest)

    def is_closed(self, inst: Instance, now: float) -> bool:
        """Its turn is over for somebody who is about to take its place: no new grants (R11)."""
        for other in self._book.instances.values():
            if other.state in COMING and inst.id in other.victims:
                waiting = self._book.line_of(other)
                if self._rules.is_wanted(waiting) and self.turn_end(inst, waiting, now) <= now:
                    return True
        return False

    def expected_s(self, line: Line) -> float | None:
        """The expected seconds of the load or wake that would serve this model."""
        asleep = line.current is not None and line.current.state in (State.parked, State.called, State.waking)
        known = self._costs.wake_s(line.model) if asleep else None
        return self._costs.load_s(line.model) if known is None else known
