"""Whom to serve next: requests are served in batches by model (R11, R12).

This file knows turns: how long a resident keeps its place when others wait, and who of those is first. It
does not know about room, nor what is done when a turn ends.
"""

from math import inf

from msgspec import Struct

from llm_router.core.book import Book, Line
from llm_router.core.costs import Costs
from llm_router.core.instance import COMING, Instance, State
from llm_router.core.rules import Rules

# A switch costs much more than an answer. So a resident that is asked all the time keeps its place for a
# quantum, in proportion to what the switch to the one who waits costs; then it gets no new grants, finishes
# what runs, and yields. A resident that is not asked yields at once, unless it lingers. A quantum runs from
# the moment somebody waits, or from the moment the resident became ready if that is later: a resident that
# was left alone for hours has no debt, and one that has just come has its whole turn before it.


class Claim(Struct, frozen=True, eq=False):
    """What a model can bring forward for itself at this moment, whether it has a place or wants one.

    The wait of the one who waits longest decides for the whole line: ``number``, ``arrived`` and the rest are of
    that foreground ticket, and as of one that never comes if there is none.
    """

    line: Line
    wanted: bool
    priority: int
    number: float = inf
    arrived: float = inf
    #: Without the switches.
    waited_s: float = 0.0
    overdue: bool = False


class Batches:
    """Turns and order. All times are moments of the caller's clock."""

    def __init__(self, book: Book, costs: Costs, rules: Rules) -> None:
        self._book = book
        self._costs = costs
        self._rules = rules

    def contenders(self) -> list[Claim]:
        """The models that are wanted and have no instance on its way, in the order in which they are served."""
        claims = [self.claim(line) for line in self._book.lines.values() if self._rules.is_contender(line)]
        return sorted(claims, key=_order)

    def claim(self, line: Line) -> Claim:
        """How the model stands now."""
        oldest = line.queue.oldest()
        wanted = self._rules.is_wanted(line)
        if oldest is None:
            return Claim(line, wanted, line.priority())
        waited_s, overdue = self._book.quiet_wait(oldest), self._rules.is_overdue(oldest, self._book)
        return Claim(line, wanted, line.priority(), oldest.number, oldest.arrived, waited_s, overdue)

    def quantum(self, resident: Line, waiting: Line) -> float:
        """Seconds for which the resident keeps its place against this one."""
        settings = self._book.settings
        cost = self._costs.switch_s(resident.model, waiting.model)
        return max(settings.quantum_min_s, min(settings.quantum_factor * cost, settings.quantum_max_s))

    def turn_end(self, inst: Instance, ours: Claim, theirs: Claim, now: float) -> float:
        """When a resident that is asked all the time must yield to the one who waits."""
        quantum = self.quantum(ours.line, theirs.line)
        if ours.number < theirs.number:
            # Who came before is served before: then the turn may last as long as a turn ever may.
            quantum = max(quantum, self._book.settings.quantum_max_s)
        if not theirs.overdue:
            if theirs.priority > ours.priority:
                quantum = min(quantum, self._book.settings.quantum_min_s)
            elif theirs.priority < ours.priority and ours.wanted:
                patience = self._rules.patience_with_priorities(self._book)
                return now + max(patience - theirs.waited_s, 0.0)
        return max(theirs.arrived, inst.ready_at) + quantum

    def yields_at(self, inst: Instance, ours: Claim, theirs: Claim, now: float) -> float:
        """From when on this instance may be asked to leave for the one who waits."""
        if inst.state is State.parked:
            return -inf
        if not theirs.wanted:
            return self._yields_to_errand(inst, ours, theirs.line)
        end = self.turn_end(inst, ours, theirs, now)
        return end if inst.busy or ours.wanted else min(inst.linger_until, end)

    def _yields_to_errand(self, inst: Instance, ours: Claim, waiting: Line) -> float:
        """A model nobody waits for: a pin may push out an idle one, the default waits longer, a preload never."""
        resident = ours.line
        if inst.busy or ours.wanted or resident.model.default:
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
                ours, theirs = self.claim(self._book.line_of(inst)), self.claim(self._book.line_of(other))
                if theirs.wanted and self.turn_end(inst, ours, theirs, now) <= now:
                    return True
        return False

    def expected_s(self, line: Line) -> float | None:
        """The expected seconds of the load or wake that would serve this model."""
        asleep = line.current is not None and line.current.state in (State.parked, State.called, State.waking)
        known = self._costs.wake_s(line.model) if asleep else None
        return self._costs.load_s(line.model) if known is None else known


def _order(claim: Claim) -> tuple[bool, int, float, float]:
    return not claim.overdue, 0 if claim.overdue else -claim.priority, claim.arrived, claim.number
