"""Two plain policies to compare with: first come first served, and load on demand with the longest idle evicted.

This file knows how routers without a plan decide, under the same rules of the world: memory, one load at a
time on a device, no stop under a running answer. It has no drains, turns, failures or limits.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from llm_router.core.commands import Command, Grant, Park, Prove, Start, Stop, Wake
from llm_router.core.events import (
    Arrived,
    Configured,
    Event,
    Gone,
    Parked,
    Proved,
    Released,
    Started,
    Withdrawn,
    Woken,
)
from llm_router.core.room import Holding, Leaver, Room, Want
from llm_router.core.scheduler import Policy, Scheduler
from llm_router.core.words import DeviceId, InstanceId, Model, ModelName, TicketId


@dataclass(slots=True)
class _Place:
    """One engine. ``state`` is coming, loading, ready, leaving or parked."""

    id: InstanceId
    model: Model
    devices: tuple[DeviceId, ...]
    state: str
    asleep: bool = False
    leases: set[TicketId] = field(default_factory=set)
    last_used: float = 0.0

    @property
    def size(self) -> int | None:
        return self.model.needs.footprint.per_device if self.model.needs.footprint else None

    @property
    def parked_size(self) -> int | None:
        footprint = self.model.needs.footprint
        return footprint.parked if footprint and self.model.parkable else None


class Plain:
    """``overtaking`` false: strictly in order of arrival. True: who finds his model loaded is served at once."""

    def __init__(self, *, overtaking: bool) -> None:
        self._overtaking = overtaking
        self._models: dict[ModelName, Model] = {}
        self._room = Room((), (), 0)
        self._places: dict[ModelName, _Place] = {}
        self._waiting: dict[TicketId, ModelName] = {}
        self._leases: dict[TicketId, ModelName] = {}
        self._number = 0

    def deadline(self) -> float | None:
        """It never looks at the clock."""
        return None

    def step(self, event: Event, now: float) -> list[Command]:
        commands: list[Command] = []
        match event:
            case Configured(models, devices, settings):
                self._models = {model.name: model for model in models}
                self._room = Room(devices, (), settings.margin)
            case Arrived(ticket, model):
                self._waiting[ticket] = model
            case Withdrawn(ticket):
                self._waiting.pop(ticket, None)
            case Released(ticket):
                place = self._places[self._leases.pop(ticket)]
                place.leases.discard(ticket)
                place.last_used = now
            case Started(instance):
                commands.append(Prove(instance))
            case Proved(instance) | Woken(instance):
                self._become(instance, "ready", now)
            case Parked(instance):
                self._become(instance, "parked", now)
            case Gone(instance):
                self._places = {name: place for name, place in self._places.items() if place.id != instance}
        self._serve(commands, now)
        self._begin(commands)
        return commands

    def _become(self, instance: InstanceId, state: str, now: float) -> None:
        for place in self._places.values():
            if place.id == instance:
                place.state = state
                place.asleep = state == "parked"
                place.last_used = now

    def _serve(self, commands: list[Command], now: float) -> None:
        asked: set[ModelName] = set()
        for ticket, name in list(self._waiting.items()):
            place = self._places.get(name)
            if place is not None and place.state == "ready" and self._has_slot(place):
                del self._waiting[ticket]
                self._leases[ticket] = name
                place.leases.add(ticket)
                place.last_used = now
                commands.append(Grant(ticket, place.id))
                continue
            if name not in asked:
                asked.add(name)
                self._fetch(name, commands, now)
            if not self._overtaking:
                return

    def _has_slot(self, place: _Place) -> bool:
        return place.model.concurrency is None or len(place.leases) < place.model.concurrency

    def _fetch(self, name: ModelName, commands: list[Command], now: float) -> None:
        """Make room by the engines that are idle now, the longest idle first."""
        place = self._places.get(name)
        if place is not None and place.state != "parked":
            return
        staying: list[Holding] = []
        leavers: list[Leaver] = []
        for other in self._places.values():
            if other is place or other.state == "leaving":
                continue
            if other.state in ("ready", "parked") and not other.leases:
                parked = None if other.asleep else other.parked_size
                leavers.append(Leaver(other.id, self._holding(other), parked, now - other.last_used))
            else:
                staying.append(self._holding(other))
        model = self._models[name]
        size = model.needs.footprint.per_device if model.needs.footprint else None
        plan = self._room.plan(Want(place.devices if place else model.needs.devices, size), staying, leavers)
        if plan is None:
            return
        for other in self._places.values():
            if other.id in plan.leaving:
                other.state = "leaving"
                commands.append(Park(other.id) if other.id in plan.parking else Stop(other.id))
        if place is not None:
            place.state = "coming"
            return
        self._number += 1
        self._places[name] = _Place(InstanceId(f"{name}#{self._number}"), model, plan.devices, "coming")

    def _begin(self, commands: list[Command]) -> None:
        """Start what has its room physically, one at a time on a device."""
        for place in self._places.values():
            if place.state != "coming":
                continue
            others = [other for other in self._places.values() if other is not place]
            shared = [other for other in others if not set(other.devices).isdisjoint(place.devices)]
            if any(other.state in ("loading", "leaving") for other in shared):
                continue
            held = [self._holding(other) for other in others if other.state != "coming" or other.asleep]
            if self._room.fit(Want(place.devices, place.size), held) is None:
                continue
            place.state = "loading"
            if place.asleep:
                place.asleep = False
                commands.append(Wake(place.id))
            else:
                commands.append(Start(place.id, place.model.name, place.devices))

    def _holding(self, place: _Place) -> Holding:
        asleep = place.asleep and place.state == "parked"
        return Holding(place.devices, place.parked_size if asleep else place.size)


#: By the names under which reports speak of them.
POLICIES: Final[dict[str, Callable[[], Policy]]] = {
    "ours": Scheduler,
    "fifo": lambda: Plain(overtaking=False),
    "lru": lambda: Plain(overtaking=True),
}
