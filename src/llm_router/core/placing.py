"""Where a model could live now, later, or never: the room's question, asked with the book's knowledge.

This file knows who stays, who may be asked to leave now, and who will be later. It changes nothing.
"""

from math import inf

from msgspec import Struct

from llm_router.core.batches import Batches, Claim
from llm_router.core.book import Book, Line
from llm_router.core.costs import Costs
from llm_router.core.instance import FREEING, LOADING, Instance, State
from llm_router.core.room import Holding, Leaver, Plan, Room, Want
from llm_router.core.rules import Rules
from llm_router.core.words import InstanceId, ModelName


class Resident(Struct, frozen=True, eq=False):
    """An instance that takes room, as it stands now for all who want its room."""

    inst: Instance
    claim: Claim
    holding: Holding
    #: ``None``: it stays, whoever comes.
    leaver: Leaver | None


class Scene(Struct, frozen=True, eq=False):
    """What everybody who looks for room finds at one moment. It holds until anything is done."""

    now: float
    residents: tuple[Resident, ...]


class Attempt(Struct, frozen=True):
    """A plan that can be begun now, or else when to look again and who is in the way."""

    plan: Plan | None
    #: When the next turn ends that matters; infinite if only events can help.
    due: float = inf
    #: The plan for which some turns are not over yet.
    later: Plan | None = None


#: What a hope follows from: the want, who stays, and who leaves now or later, with its sizes awake and asleep.
_Asked = tuple[Want, tuple[Holding, ...], tuple[tuple[InstanceId, Holding, int | None], ...]]


class _Hope(Struct, frozen=True, eq=False):
    """The plan for which some turns are not over yet, ``None`` if even they would not make room."""

    room: Room
    asked: _Asked
    plan: Plan | None


class Placing:
    """Answers for one model at a time."""

    def __init__(self, book: Book, costs: Costs, rules: Rules, batches: Batches) -> None:
        self._book = book
        self._costs = costs
        self._rules = rules
        self._batches = batches
        self._hopes: dict[ModelName, _Hope] = {}

    def want(self, line: Line) -> Want:
        """What the model asks for: a parked one can only wake where it sleeps."""
        inst = line.current
        if inst is not None:
            return Want(inst.devices, inst.size)
        footprint = line.footprint
        return Want(line.model.needs.devices, footprint.per_device if footprint else None)

    def look(self, now: float) -> Scene:
        """Who takes room now, and who of them may be asked to leave."""
        residents = []
        for inst in self._book.instances.values():
            holding = Holding(inst.devices, self._rules.promised(inst))
            if inst.devices and holding.taken != 0:
                line = self._book.line_of(inst)
                leaver = self._leaver(inst, line, holding, now) if self._rules.may_leave(inst, line) else None
                residents.append(Resident(inst, self._batches.claim(line), holding, leaver))
        return Scene(now, tuple(residents))

    def attempt(self, claim: Claim, scene: Scene) -> Attempt:
        """How to make room for this model: by whom, where, or when."""
        want = self.want(claim.line)
        staying: list[Holding] = []
        leavers: list[Leaver] = []
        later: list[Leaver] = []
        due = inf
        for one in scene.residents:
            if one.inst is claim.line.current:
                continue
            at = inf if one.leaver is None else self._batches.yields_at(one.inst, one.claim, claim, scene.now)
            if one.leaver is None or at == inf:
                staying.append(one.holding)
            elif at <= scene.now:
                leavers.append(one.leaver)
            else:
                due = min(due, at)
                later.append(one.leaver)
        if not later:
            return Attempt(self._book.room.plan(want, staying, leavers))
        asked = (want, tuple(staying), tuple([(one.instance, one.holding, one.parked) for one in (*leavers, *later)]))
        hope = self._remembered(claim.line, asked)
        # A hope is made only for what does not fit beside all of these. So while nobody may leave now, whoever has
        # asked the same before need not be told again that there is no plan.
        if hope is None or leavers:
            plan = self._book.room.plan(want, (*staying, *(one.holding for one in later)), leavers)
            if plan is not None:
                return Attempt(plan)
        if hope is None:
            plan = self._book.room.plan(want, staying, (*leavers, *later))
            hope = self._hopes[claim.line.name] = _Hope(self._book.room, asked, plan)
        return Attempt(None, due, hope.plan) if hope.plan else Attempt(None)

    def _remembered(self, line: Line, asked: _Asked) -> _Hope | None:
        """What was hoped for when the same was asked before: it is asked for at every step.

        Ranks change all the time and are not looked at: the plan is made anew before anybody has to leave.
        """
        hope = self._hopes.get(line.name)
        return hope if hope is not None and hope.room is self._book.room and hope.asked == asked else None

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
