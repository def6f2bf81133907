"""Who must leave so that one can come: a Plan, which is a value, not the doing.

This file knows devices, sizes and who may be asked to leave. It does not know time, tickets or states:
whoever asks says who stays, who may leave, and what each of them would be worth keeping.
"""

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Final

from msgspec import Struct

from llm_router.core.words import Device, DeviceId, InstanceId

#: Up to so many leavers every combination is tried; beyond that the least worth keeping go until it fits.
_TRIED: Final = 3


class Holding(Struct, frozen=True):
    """What one instance takes on each of its devices, in bytes; ``None`` is unknown: alone on the machine."""

    devices: tuple[DeviceId, ...]
    taken: int | None

    @property
    def alone(self) -> bool:
        return self.taken is None and bool(self.devices)


class Leaver(Struct, frozen=True):
    """An instance that may be asked to leave.

    ``parked`` is what it would take asleep, ``None`` if it can only be stopped. ``rank`` is its idle time
    over the cost of loading it again: the highest goes first.
    """

    instance: InstanceId
    holding: Holding
    parked: int | None
    rank: float


class Plan(Struct, frozen=True):
    """Where the newcomer will live, who must leave for it, and which of those are only put to sleep."""

    devices: tuple[DeviceId, ...]
    leaving: tuple[InstanceId, ...] = ()
    parking: frozenset[InstanceId] = frozenset()


class Want(Struct, frozen=True):
    """What a newcomer asks for: how many devices, or which (``None``: all), and its size on each in bytes."""

    devices: int | tuple[DeviceId, ...] | None
    size: int | None


class Room:
    """The devices of the machine. ``margin`` bytes stay free on a device that is shared."""

    __slots__ = ("devices", "dirty", "margin")

    def __init__(self, devices: Iterable[Device], dirty: Iterable[DeviceId], margin: int) -> None:
        self.devices = {device.id: device.total for device in devices}
        self.dirty = frozenset(dirty)
        self.margin = margin

    def fit(self, want: Want, held: Sequence[Holding]) -> tuple[DeviceId, ...] | None:
        """The devices on which it fits beside these holdings, ``None`` if there is no such place.

        Of several the fullest are taken, so that large pieces of memory stay whole.
        """
        if want.devices in (0, ()):
            return ()
        used = dict.fromkeys(self.devices, 0)
        for holding in held:
            if holding.alone or (want.size is None and holding.taken and holding.devices):
                return None
            for device in holding.devices:
                used[device] = used.get(device, 0) + (holding.taken or 0)
        good = [device for device in self.devices if self._has_place(device, used[device], want.size)]
        return self._choose(want.devices, good, used)

    def _has_place(self, device: DeviceId, used: int, size: int | None) -> bool:
        if device in self.dirty:
            return False
        # Who has a device to himself may take all of it; the margin is for living together.
        return used == 0 if size is None else size + used + (self.margin if used else 0) <= self.devices[device]

    def _choose(
        self, wanted: int | tuple[DeviceId, ...] | None, good: list[DeviceId], used: dict[DeviceId, int]
    ) -> tuple[DeviceId, ...] | None:
        if wanted is None:
            wanted = tuple(self.devices)
        if isinstance(wanted, tuple):
            return wanted if set(wanted) <= set(good) else None
        if len(good) < wanted:
            return None
        good.sort(key=lambda device: self.devices[device] - used[device])
        chosen = set(good[:wanted])
        return tuple(device for device in self.devices if device in chosen)

    def plan(self, want: Want, staying: Sequence[Holding], leavers: Sequence[Leaver]) -> Plan | None:
        """The smallest set of leavers with which it fits, ``None`` if not even all of them make room.

        Among sets of one size the one with the highest sum of ranks goes. Who can be parked is parked if
        that makes room too.
        """
        devices = self.fit(want, (*staying, *(leaver.holding for leaver in leavers)))
        if devices is not None or not leavers:
            return None if devices is None else Plan(devices)
        ranked = sorted(leavers, key=lambda leaver: -leaver.rank)
        for count in range(1, min(_TRIED, len(ranked)) + 1):
            best = max(
                ((sum(one.rank for one in group), group) for group in self._groups(want, staying, ranked, count)),
                key=lambda found: found[0],
                default=None,
            )
            if best is not None:
                return self._asleep_or_gone(want, staying, ranked, best[1])
        return self._fewest(want, staying, ranked)

    def _groups(
        self, want: Want, staying: Sequence[Holding], ranked: Sequence[Leaver], count: int
    ) -> Iterable[tuple[Leaver, ...]]:
        for group in combinations(ranked, count):
            if self.fit(want, (*staying, *_kept(ranked, group))) is not None:
                yield group

    def _fewest(self, want: Want, staying: Sequence[Holding], ranked: Sequence[Leaver]) -> Plan | None:
        """Everybody leaves; then each, most worth keeping first, stays if it fits even so."""
        if self.fit(want, staying) is None:
            return None
        group = tuple(ranked)
        for leaver in reversed(ranked):
            rest = tuple(other for other in group if other is not leaver)
            if self.fit(want, (*staying, *_kept(ranked, rest))) is not None:
                group = rest
        return self._asleep_or_gone(want, staying, ranked, group)

    def _asleep_or_gone(
        self, want: Want, staying: Sequence[Holding], ranked: Sequence[Leaver], group: tuple[Leaver, ...]
    ) -> Plan:
        """Park as many of the group as the room allows, the last ones in rank first to be spared."""
        others = (*staying, *_kept(ranked, group))
        able = [leaver for leaver in reversed(group) if leaver.parked is not None]
        leaving = tuple(leaver.instance for leaver in group)
        for count in range(len(able), 0, -1):
            asleep = able[:count]
            held = (*others, *(Holding(one.holding.devices, one.parked) for one in asleep))
            devices = self.fit(want, held)
            if devices is not None:
                return Plan(devices, leaving, frozenset(one.instance for one in asleep))
        devices = self.fit(want, others)
        assert devices is not None, f"cannot place {want} though {leaving} leave: the group was not tried before"
        return Plan(devices, leaving)


def _kept(ranked: Sequence[Leaver], group: Sequence[Leaver]) -> list[Holding]:
    return [leaver.holding for leaver in ranked if leaver not in group]
