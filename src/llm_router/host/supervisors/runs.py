"""One run of a unit that the router answers for: followed to its end, ended when asked, and its end written down.

It decides by what the manager says of the unit, read anew after each signal, never by the signals themselves: a
unit that systemd restarts shows as failed for a millisecond. It does not know how a unit is started.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from llm_router.host.supervisors.manager import Manager, ManagerError
from llm_router.host.supervisors.records import Folder, RecordError
from llm_router.host.supervisors.supervisor import Exit, SupervisorError
from llm_router.host.supervisors.sweeping import survivors
from llm_router.host.supervisors.units import UnitState

log = logging.getLogger(__name__)

#: Even without a signal the unit is looked at so often (seconds); it costs a fifth of a millisecond.
LOOK_AGAIN_S: Final = 5.0
#: Where the kernel shows control groups: of one kind, or of two (systemd 255 and earlier).
_CGROUPS: Final = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd")
_UNIT_FILE: Final = "unit"


class UnitRecord(msgspec.Struct, frozen=True):
    """Which unit serves an instance. ``invocation`` and ``cgroup`` are empty until it has started."""

    version: int
    unit: str
    invocation: str = ""
    cgroup: str = ""


def write_unit(folder: Folder, record: UnitRecord) -> None:
    """Keep the record, whole or not at all, for this user only. Raises ``OSError``."""
    new = folder.path / f"{_UNIT_FILE}.new"
    new.write_bytes(msgspec.json.encode(record))
    new.chmod(0o600)
    new.replace(folder.path / _UNIT_FILE)


def read_unit(folder: Folder) -> UnitRecord | None:
    """The record; ``None`` if there is none that can be read."""
    try:
        return msgspec.json.decode((folder.path / _UNIT_FILE).read_bytes(), type=UnitRecord)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        log.warning("cannot read %s: %s", folder.path / _UNIT_FILE, error)
        return None


def cgroup_pids(cgroup: str) -> frozenset[int]:
    """All processes of a control group and of those below it; empty when it is gone."""
    if not cgroup.strip("/"):
        return frozenset()
    found: set[int] = set()
    for root in _CGROUPS:
        for listed in Path(root + cgroup).glob("**/cgroup.procs"):
            with suppress(OSError):
                found.update(int(pid) for pid in listed.read_text().split())
    return frozenset(found)


class UnitRun:
    """One run of a unit, from its start (or its adoption) to its end.

    ``name`` is the instance's, for people. ``invocation`` empty means that the unit has only this one run.
    ``polite`` asks the unit to end; ``end_limit_s`` is how long SIGKILL may take before it counts as failed.
    ``settle`` is awaited after the end is written down, before it is told to anybody.
    """

    def __init__(
        self,
        manager: Manager,
        folder: Folder,
        name: str,
        record: UnitRecord,
        *,
        polite: Callable[[str], Awaitable[object]],
        end_limit_s: float,
        settle: Callable[[str], Awaitable[None]],
    ) -> None:
        self.folder = folder
        self.name = name
        self.record = record
        self.ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._manager = manager
        self._polite = polite
        self._settle = settle
        self._end_limit_s = end_limit_s
        self._deadline = math.inf
        self._asked = folder.asked
        self._killed_at: float | None = None
        self._told = False
        self._news: asyncio.Event | None = None

    def __repr__(self) -> str:
        return f"<run of {self.record.unit} for {self.name}{', asked to end' if self._asked else ''}>"

    def pids(self) -> frozenset[int]:
        return cgroup_pids(self.record.cgroup)

    def ask(self, grace_s: float) -> None:
        """Ask for its end; a nearer deadline wins over an earlier ask's."""
        now = asyncio.get_running_loop().time()
        self._asked = True
        self._deadline = min(self._deadline, now + grace_s)
        try:
            self.folder.write_stop(max(0.0, self._deadline - now))
        except OSError as error:
            log.warning("cannot write down that the end of %s was asked for: %s", self.name, error)
        if self._news is not None:
            self._news.set()

    async def follow(self) -> None:
        """Until it has ended and nothing of it is left; the exit, or a ``SupervisorError``, is in ``ended``."""
        try:
            async with self._manager.news(self.record.unit) as news:
                state = await self._until_over(news)
            await self._until_empty(state)
            end = self._write_down(state)
            await self._settle(self.record.unit)
            if not self.ended.done():
                self.ended.set_result(end)
        except SupervisorError as error:
            if not self.ended.done():
                self.ended.set_exception(error)
                self.ended.exception()  # it is logged here, also when nobody watches
            log.error("%s", error)  # noqa: TRY400 - the text is the story
        finally:
            self.ended.cancel()  # no answer will come if this task was cancelled

    async def _until_over(self, news: asyncio.Event) -> UnitState:
        loop = asyncio.get_running_loop()
        self._news = news
        while True:
            news.clear()
            state = await self._manager.state(self.record.unit)
            if self._is_over(state):
                return state
            await self._act(state)
            next_step = LOOK_AGAIN_S
            if self._killed_at is None and self._asked:
                next_step = min(next_step, self._deadline - loop.time())
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, next_step)):
                    await news.wait()

    def _is_over(self, state: UnitState) -> bool:
        if not state.runs or state.waits_to_restart:
            return True
        return bool(self.record.invocation) and state.invocation != self.record.invocation

    async def _act(self, state: UnitState) -> None:
        """One step further towards its end, if that was asked for or has begun."""
        now = asyncio.get_running_loop().time()
        if not self._asked:
            ours = not self.record.invocation
            if ours and state.active == "deactivating" and not state.main_pid and self._killed_at is None:
                # Its main process ended by itself; what it left behind gets no grace.
                await self._kill(now)
        elif self._killed_at is not None:
            if now > self._killed_at + self._end_limit_s:
                raise SupervisorError(survivors(self.name, self.pids()))
        elif now >= self._deadline:
            await self._kill(now)
        elif not self._told:
            self._told = True
            await self._quietly(self._polite(self.record.unit))

    async def _kill(self, now: float) -> None:
        self._killed_at = now
        await self._quietly(self._manager.call("KillUnit", "ssi", self.record.unit, "all", 9))

    async def _quietly(self, call: Awaitable[object]) -> None:
        """A unit that has just ended cannot be told anything; the next look shows it."""
        try:
            await call
        except ManagerError as error:
            log.debug("%s: %s", self.name, error)

    async def _until_empty(self, state: UnitState) -> None:
        """systemd gives up on what survives SIGKILL; the memory is not free for that. Raises ``SupervisorError``."""
        if self.record.invocation and state.invocation != self.record.invocation:
            return  # The group belongs to a later run by now.
        end = asyncio.get_running_loop().time() + self._end_limit_s
        while left := self.pids():
            if asyncio.get_running_loop().time() > end:
                raise SupervisorError(survivors(self.name, left))
            await self._quietly(self._manager.call("KillUnit", "ssi", self.record.unit, "all", 9))
            await asyncio.sleep(0.02)

    def _known(self) -> Exit | None:
        try:
            return self.folder.exit()
        except RecordError as error:
            log.warning("%s", error)
            return None

    def _write_down(self, state: UnitState) -> Exit:
        if state.exit_code is None and (known := self._known()) is not None:
            return known  # Another supervisor was there first, and systemd has forgotten the unit since.
        same = not self.record.invocation or state.invocation == self.record.invocation
        killed = self._killed_at is not None or (same and state.result == "timeout")
        end = Exit(state.exit_code if same else None, self._asked, killed)
        try:
            self.folder.write_exit(end)
        except OSError as error:
            log.warning("cannot keep the exit of %s: %s", self.name, error)
        return end
