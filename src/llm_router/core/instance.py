"""One incarnation of an engine: its states, and the table of the moves between them.

This file knows which move is allowed and what an instance remembers. It does not know why a move is
made, what it costs, or who waits for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from typing import Final

from llm_router.core.tickets import Lease
from llm_router.core.words import DeviceId, InstanceId, ModelName


class State(Enum):
    """Where an instance is in its life."""

    #: Its start is being checked; nothing runs, its room is promised.
    planned = "planned"
    #: Checked; it waits until its room is physically free.
    cleared = "cleared"
    starting = "starting"
    checking = "checking"
    ready = "ready"
    draining = "draining"
    parking = "parking"
    parked = "parked"
    #: Parked, and its room is being made.
    called = "called"
    waking = "waking"
    stopping = "stopping"
    gone = "gone"

    #: Each is one object, and sets of them are asked at every step: the enum's own hash takes a call in Python.
    __hash__ = object.__hash__


# A life goes down this table. Three rules shape it.
# - What never ran (planned, cleared) goes without a Stop; whatever ran goes through stopping, because only
#   the sweep after it proves that the memory is back.
# - Nobody leaves stopping or parking but by the end of that work: a victim is reprieved only while it drains.
# - A lease exists only in ready, draining and (after a crash) stopping.
MOVES: Final[Mapping[State, frozenset[State]]] = {
    State.planned: frozenset({State.cleared, State.gone}),
    State.cleared: frozenset({State.starting, State.gone}),
    State.starting: frozenset({State.checking, State.stopping}),
    State.checking: frozenset({State.ready, State.stopping}),
    State.ready: frozenset({State.draining, State.stopping}),
    State.draining: frozenset({State.ready, State.parking, State.stopping}),
    State.parking: frozenset({State.parked, State.stopping}),
    State.parked: frozenset({State.called, State.stopping}),
    State.called: frozenset({State.waking, State.parked, State.stopping}),
    State.waking: frozenset({State.ready, State.stopping}),
    State.stopping: frozenset({State.gone}),
    State.gone: frozenset(),
}

# Tuples, because they are asked for at every step and the hash of an enum is a call.
#: Room is promised to these, but they hold no more than a parked engine does.
COMING: Final = (State.planned, State.cleared, State.called)
#: An engine is being brought to life.
LOADING: Final = (State.starting, State.checking, State.waking)
#: Memory is being given back.
FREEING: Final = (State.stopping, State.parking)
#: Their memory is promised away, or will be free.
LEAVING: Final = (State.draining, State.stopping, State.gone)


class InvalidTransition(Exception):  # noqa: N818  (the word of the design)
    """A move that is not in the table was tried; nothing has changed. The text tells the instance's story."""


class Why(Enum):
    """Why an instance leaves."""

    evicted = "evicted"
    idle = "idle"
    unloaded = "unloaded"
    revised = "revised"
    removed = "removed"
    sick = "sick"
    cancelled = "cancelled"
    failed = "failed"
    shutdown = "shutdown"


@dataclass(slots=True, eq=False)
class Instance:
    """One engine for one model. Times are moments of the caller's clock, sizes bytes on each device."""

    id: InstanceId
    model: ModelName
    revision: str
    devices: tuple[DeviceId, ...]
    #: What it takes while it runs; ``None`` is unknown, which means alone on the machine.
    size: int | None
    #: What it takes while it is parked; ``None`` if it cannot be parked.
    parked_size: int | None
    state: State
    #: When the present state began.
    since: float
    #: Physically taken now; 0 while nothing runs.
    taken: int | None = 0
    #: Nobody with a ticket wanted it when it was planned: a pin, a preload, or the default coming back.
    errand: bool = False
    #: Left running by an earlier router; when it was started is not known, so nothing is learnt of that.
    adopted: bool = False
    #: When the start, the wake or the stop under way began.
    work_since: float = 0.0
    ready_at: float = -inf
    last_used: float = -inf
    linger_until: float = -inf
    #: The idle time that its last foreground request wished for, instead of the model's.
    keep_s: float | None = None
    #: A ticket was granted on it since it last became ready.
    served: bool = False
    leases: dict[int, Lease] = field(default_factory=dict)
    #: How many of the leases are not background.
    busy: int = 0
    #: Set while it leaves.
    why: Why | None = None
    leaves_for: ModelName | None = None
    to_park: bool = False
    drain_since: float = inf
    #: No lease of it can be overdue before this moment.
    drain_check_at: float = inf
    #: While it comes: who was chosen to make room for it.
    victims: tuple[InstanceId, ...] = ()
    #: Once it comes: who really left for it, and when its stop or park began.
    made_room: dict[ModelName, float] = field(default_factory=dict)
    phase: str | None = None
    percent: float | None = None
    left_s: float | None = None
    told_at: float = 0.0
    story: list[State] = field(default_factory=list)

    def move(self, to: State, now: float) -> None:
        """Go to another state. Raises ``InvalidTransition``, and changes nothing, if the table forbids it."""
        if to not in MOVES[self.state]:
            way = " -> ".join(state.value for state in (*self.story, self.state))
            allowed = ", ".join(sorted(state.value for state in MOVES[self.state])) or "nothing"
            raise InvalidTransition(
                f"cannot move {self.id} from {self.state.value} to {to.value} at {now:g}:"
                f" its story is {way} (since {self.since:g}), {len(self.leases)} leases, why={self.why};"
                f" allowed from here: {allowed}"
            )
        self.story.append(self.state)
        self.state = to
        self.since = now

    def __repr__(self) -> str:
        leases = f", {len(self.leases)} leases" if self.leases else ""
        return f"<{self.id} {self.state.value} since {self.since:g}{leases}>"
