"""Where a model could live now, later, or never: the room's question, asked with the book's knowledge.

This file knows who stays, who may be asked to leave now, and who will be later. It changes nothing.
"""

from dataclasses import dataclass
from math import inf

from llm_router.core.batches import Batches
from llm_router.core.book import Book, Line
from llm_router.core.costs import Costs
from llm_router.core.instance import FREEING, LOADING, Instance, State
from llm_router.core.room import Holding, Leaver, Plan, Room, Want
from llm_router.core.rules import Rules
from llm_router.core.words import ModelName


@dataclass(frozen=True, slots=True)
class Attempt:
    """A plan that can be begun now, or else when to look again and who is in the way."""

    plan: Plan | None
    #: When the next turn ends that matters; infinite if only events can help.
    due: float = inf
    #: The plan for which some turns are not over yet.
    later: Plan | None = None


class Placing:
    """Answers for one model at a time."""

    def __init__(self, book: Book, costs: Costs, rules: Rules, batches: Batches) -> None:
        self._book = book
        self._costs = costs
        self._rules = rules
        self._batches = batches
        self._hopes: dict[ModelName, tuple[Room, object, Plan | None]] = {}

    def want(self, line: Line) -> Want:
        """What the model asks for: a parked one can only wake where it sleeps."""
        inst = line.current
        if inst is not None:
            return Want(inst.devices, inst.size)
        footprint = line.footprint
        return Want(line.model.needs.devices, footprint.per_device if footprint else None)

    def attempt(self, line: Line, now: float) -> Attempt:
        """How to make room for this model: by whom, where, or when."""
        want = self.want(line)
        staying: list[Holding] = []
        leavers: list[Leaver] = []
        later: list[Leaver] = []
        due = inf
        for inst in self._book.instances.values():
            holding = Holding(inst.devices, self._rules.promised(inst))
            if inst is line.current or not inst.devices or holding.taken == 0:
                continue
            resident = self._book.line_of(inst)
            if not self._rules.may_leave(inst, resident):
                staying.append(holding)
                continue
            at = self._batches.yields_at(inst, line, now)
            if at <= now:
                leavers.append(self._leaver(inst, resident, holding, now))
            elif at < inf:
                due = min(due, at)
                later.append(self._leaver(inst, resident, holding, now))
            else:
                staying.append(holding)
        plan = self._book.room.plan(want, (*staying, *(one.holding for one in later)), leavers)
        if plan is not None or not later:
            return Attempt(plan)
        hoped = self._hope(line, want, staying, (*leavers, *later))
        return Attempt(None, due, hoped) if hoped else Attempt(None)

    def _hope(self, line: Line, want: Want, staying: list[Holding], leavers: tuple[Leaver, ...]) -> Plan | None:
        """The plan for which some turns are not over; remembered, because it is asked for at every step.

        Ranks change all the time and are not looked at: the plan is made anew before anybody has to leave.
        """
        asked = (want, tuple(staying), tuple((one.instance, one.holding, one.parked) for one in leavers))
        known = self._hopes.get(line.name)
        if known is None or known[0] is not self._book.room or known[1] != asked:
            known = self._book.room, asked, self._book.room.plan(want, staying, leavers)
            self._hopes[line.name] = known
        return known[2]

    def is_possible(self, line: Line, *, dirty_too: bool) -> bool:
        """Whether it would fit if everybody but the pinned left; ``dirty_too``: and all memory came back."""
        pinned = [
            Holding(inst.devices, self._rules.promised(inst))
            for inst in self._book.instances.values()
            if inst is not line.current and self._book.line_of(inst).pin and inst.state is not State.parked
        ]
        room = self._book.room
        if dirty_too:
            room = Room(self._book.devices.values(), (), room.margin)
        return room.fit(self.want(line), [one for one in pinned if one.taken != 0]) is not None

    def is_free(self, inst: Instance) -> bool:
        """Whether the promised room is physically there, and nothing is loaded or stopped on it now."""
        held = []
        for other in self._book.instances.values():
            if other is inst or not other.devices:
                continue
            if self.shares(inst, other) and (other.state in LOADING or other.state in FREEING):
                return False
            taken = self._rules.holds(other)
            if taken != 0:
                held.append(Holding(other.devices, taken))
        return self._book.room.fit(Want(inst.devices, inst.size), held) is not None

    def is_quiet(self, inst: Instance) -> bool:
        """Whether nothing is being loaded on its devices: an engine that measures memory must not be disturbed."""
        return not any(
            other.state in LOADING and other is not inst and self.shares(inst, other)
            for other in self._book.instances.values()
        )

    @staticmethod
    def shares(one: Instance, other: Instance) -> bool:
        return not set(one.devices).isdisjoint(other.devices)

    def _leaver(self, inst: Instance, resident: Line, holding: Holding, now: float) -> Leaver:
        asleep = inst.state is State.parked
        parked = None if asleep or not resident.model.parkable else inst.parked_size
        cost = self._costs.reload_s(resident.model, asleep=parked is not None)
        idle = 0.0 if inst.busy else max(now - inst.last_used, 0.0)
        return Leaver(inst.id, holding, parked, idle / max(cost, 0.001))
