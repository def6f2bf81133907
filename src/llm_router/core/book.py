"""Everything the scheduler has been told and has promised: the one place where state is kept.

This file knows what there is. It decides nothing and gives no commands; whoever reads it asks no clock.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from math import inf
from typing import Final

from llm_router.core.instance import FREEING, LOADING, Instance, State
from llm_router.core.room import Room
from llm_router.core.tickets import Lease, Queue, Ticket
from llm_router.core.trouble import Trouble
from llm_router.core.words import (
    HOST_DEVICE,
    Device,
    DeviceId,
    Footprint,
    InstanceId,
    Model,
    ModelName,
    Settings,
    TicketId,
)

#: Of so many callers a model remembers whether they come back.
_CALLERS: Final = 1024


class Habits:
    """Which callers ask again soon after their last answer, as a sequential program or an agent does."""

    __slots__ = ("_callers",)

    def __init__(self) -> None:
        self._callers: OrderedDict[str, tuple[float, bool]] = OrderedDict()

    def came(self, caller: str, now: float, soon_s: float) -> None:
        """The caller asks for the model."""
        if caller in self._callers:
            released, _ = self._callers[caller]
            self._callers[caller] = released, now - released <= soon_s

    def left(self, caller: str, now: float) -> bool:
        """The caller's answer ended; whether it will probably ask again."""
        _, returns = self._callers.pop(caller, (now, False))
        self._callers[caller] = now, returns
        while len(self._callers) > _CALLERS:
            self._callers.popitem(last=False)
        return returns


@dataclass(slots=True, eq=False)
class Line:
    """One model: who waits for it, what serves it, and what is remembered of it."""

    model: Model
    queue: Queue = field(default_factory=Queue)
    #: From its planning until it is gone; a model never has two.
    current: Instance | None = None
    trouble: Trouble = field(default_factory=Trouble)
    learnt: Footprint | None = None
    habits: Habits = field(default_factory=Habits)
    pin: bool = False
    #: It was to be loaded when the configuration came, and has not been yet.
    preload_due: bool = False
    #: An operator unloaded it: only a request brings it back.
    dismissed: bool = False
    #: No longer in the configuration; the line stays until its instance is gone.
    removed: bool = False
    #: Whose turn has to end before it can come, if it waits for that.
    leaving: ModelName | None = None
    #: What its waiters were last told, in short.
    told: tuple[object, ...] | None = None

    @property
    def name(self) -> ModelName:
        return self.model.name

    @property
    def footprint(self) -> Footprint | None:
        """Declared, else learnt from an earlier load, else unknown (R13)."""
        return self.model.needs.footprint or self.learnt

    def priority(self) -> int:
        """Of the most important foreground ticket, or the model's own while none waits."""
        waiting = self.queue.priority()
        return self.model.priority if waiting is None else waiting

    def __repr__(self) -> str:
        return f"<line {self.name}: {self.current!r}, {len(self.queue)} waiting>"


class Book:
    """The state. ``quiet`` is a clock that stands still while engines are loaded or stopped, wherever (R11)."""

    def __init__(self) -> None:
        self.settings = Settings()
        self.devices: dict[DeviceId, Device] = {}
        self.dirty: set[DeviceId] = set()
        self.lines: dict[ModelName, Line] = {}
        self.instances: dict[InstanceId, Instance] = {}
        self.waiting: dict[TicketId, Ticket] = {}
        self.leases: dict[TicketId, Lease] = {}
        #: (moment, ticket) of those with limited patience; entries of answered tickets are dropped late.
        self.expiries: list[tuple[float, TicketId]] = []
        self.serial = 0
        self.number = 0
        self.now = -inf
        self.quiet = 0.0
        self.closing = False
        self.keep_engines = False
        self.finished = False
        self.room = Room((), (), 0)

    def configure(self, devices: tuple[Device, ...], settings: Settings) -> None:
        self.devices = {device.id: device for device in devices or (Device(HOST_DEVICE, 2**63),)}
        self.settings = settings
        self.refresh_room()

    def refresh_room(self) -> None:
        """The devices, their dirt or the margin changed."""
        self.room = Room(self.devices.values(), self.dirty, self.settings.margin)

    def pass_time(self, now: float) -> None:
        """Bring the quiet clock forward. Time that runs backwards is taken as standing still."""
        if now > self.now:
            if self.now > -inf and not self.switching():
                self.quiet += now - self.now
            self.now = now

    def switching(self) -> bool:
        """Whether an engine is being loaded or stopped now."""
        return any(inst.state in LOADING or inst.state in FREEING for inst in self.instances.values())

    def next_id(self, model: ModelName) -> InstanceId:
        self.serial += 1
        return InstanceId(f"{model}#{self.serial}")

    def find(self, instance: InstanceId) -> Instance | None:
        """The living instance of this id; of former incarnations nothing is known any more."""
        return self.instances.get(instance)

    def line_of(self, inst: Instance) -> Line:
        return self.lines[inst.model]

    def ready(self, line: Line) -> bool:
        return line.current is not None and line.current.state is State.ready

    def quiet_wait(self, ticket: Ticket) -> float:
        """Seconds the ticket has waited, the switches not counted."""
        return self.quiet - ticket.quiet
