"""Memory is back when it is measured to be back (R25): the gate between a stop and the next start.

It compares what the driver says with what was there before an instance came, waits within a limit, and
names who holds what is missing. A device that cannot be read (the host's memory) has no gate.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from llm_router.core.words import DeviceId, Footprint
from llm_router.host.machine.gpus import Gauge

log = logging.getLogger(__name__)

#: How long memory may take to come back after the last process is gone (seconds); drivers need up to ten.
BACK_LIMIT_S: Final = 30.0
LOOK_S: Final = 0.1
#: A dirty device is looked at this often (seconds).
DIRTY_LOOK_S: Final = 2.0
#: What may be missing and still counts as back, in bytes: other programs on the device breathe.
TOLERANCE: Final = 256 * 1024 * 1024


@dataclass(slots=True)
class Ledger:
    """What one instance found and took on its devices, in bytes."""

    before: dict[DeviceId, int] = field(default_factory=dict)
    taken: dict[DeviceId, int] = field(default_factory=dict)


class Gate:
    """Measures starts and stops. Loads and stops on one device never overlap: the core sees to that."""

    def __init__(self, gauge: Gauge, *, limit_s: float = BACK_LIMIT_S, look_s: float = LOOK_S) -> None:
        self._gauge = gauge
        self._limit_s = limit_s
        self._look_s = look_s

    def opened(self, devices: Iterable[DeviceId]) -> Ledger:
        """What is in use before a start."""
        return Ledger(before=self._used(devices))

    def recalled(self, devices: Iterable[DeviceId], pids: frozenset[int]) -> Ledger:
        """The ledger of an instance that ran before we came: what it takes is what the driver says of its processes."""
        now = self._used(devices)
        taken = {device: own for device in now if (own := self._gauge.taken_by(pids, device)) is not None}
        return Ledger(before={device: now[device] - own for device, own in taken.items()}, taken=taken)

    def measure(self, ledger: Ledger, pids: frozenset[int]) -> Footprint | None:
        """What the instance takes now that it is ready: the most of any device; ``None`` if it cannot be read."""
        for device, before in ledger.before.items():
            own = self._gauge.taken_by(pids, device)
            now = self._gauge.used(device)
            if own is not None:
                ledger.taken[device] = own
            elif now is not None:
                ledger.taken[device] = max(0, now - before)
        return Footprint(max(ledger.taken.values())) if ledger.taken else None

    def level(self, ledger: Ledger) -> Mapping[DeviceId, int]:
        """What is in use on an instance's devices before it falls asleep or wakes, by anybody."""
        return self._used(ledger.before)

    def moved(self, ledger: Ledger, pids: frozenset[int], level: Mapping[DeviceId, int]) -> None:
        """What the instance takes after it fell asleep or woke; neighbours may have come since it started."""
        for device, now in self._used(level).items():
            own = self._gauge.taken_by(pids, device)
            ledger.taken[device] = max(0, ledger.taken.get(device, 0) + now - level[device]) if own is None else own

    async def shrunk(
        self, ledger: Ledger, pids: Callable[[], frozenset[int]], level: Mapping[DeviceId, int], most: int
    ) -> Mapping[DeviceId, int]:
        """Wait until a sleeping instance takes at most ``most`` bytes of each device; gives where it takes more.

        Engines say that they sleep before the driver shows it. What cannot be read is believed.
        """
        end = asyncio.get_running_loop().time() + self._limit_s
        awake = dict(ledger.taken)
        while True:
            ledger.taken = dict(awake)
            self.moved(ledger, pids(), level)
            above = {device: taken for device, taken in ledger.taken.items() if taken > most + TOLERANCE}
            if not above or asyncio.get_running_loop().time() >= end:
                return above
            await asyncio.sleep(self._look_s)

    def target(self, ledger: Ledger) -> Mapping[DeviceId, int]:
        """What may be in use, per device, once the instance is gone. Ask before it is stopped."""
        goal = {}
        for device, before in ledger.before.items():
            now = self._gauge.used(device)
            took = ledger.taken.get(device)
            goal[device] = (before if took is None or now is None else max(0, now - took)) + TOLERANCE
        return goal

    async def back(self, target: Mapping[DeviceId, int]) -> frozenset[DeviceId]:
        """Wait until the memory is back; the devices on which it was not within the limit."""
        end = asyncio.get_running_loop().time() + self._limit_s
        missing = self._above(target)
        while missing and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(self._look_s)
            missing = self._above(target)
        for device in missing:
            log.warning(
                "the memory of %s is not back after %.0f s: held by %s; nothing is started there until it is",
                device,
                self._limit_s,
                self.holders(device),
            )
        return missing

    async def clean(self, device: DeviceId, target: Mapping[DeviceId, int]) -> None:
        """Return when the memory of a dirty device is back, however long that takes."""
        while device in self._above({device: target[device]}):
            await asyncio.sleep(DIRTY_LOOK_S)

    def holders(self, device: DeviceId) -> str:
        """Who holds memory of the device, for people."""
        found = [
            f"{holder.name} (pid {holder.pid}{'' if holder.used is None else f', {holder.used / 2**30:.1f} GiB'})"
            for holder in self._gauge.holders(device)
        ]
        return ", ".join(found) or "processes that the driver does not show"

    def _used(self, devices: Iterable[DeviceId]) -> dict[DeviceId, int]:
        return {device: used for device in devices if (used := self._gauge.used(device)) is not None}

    def _above(self, target: Mapping[DeviceId, int]) -> frozenset[DeviceId]:
        return frozenset(device for device, used in self._used(target).items() if used > target[device])
