"""The operator's own units as instances: started, stopped and followed, with another command by a drop-in.

A unit's file is never edited: its command is replaced by a file of ours below ``/run`` (or ``/etc``), and its log
is read from the journal. What was started is kept in records, so that the next router takes it over. It decides
nothing: which unit serves which model it is told.
"""

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Awaitable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from llm_router.core.words import InstanceId
from llm_router.engines.engine import Edit, Launch, Somewhere
from llm_router.host.machine import processes
from llm_router.host.machine.tasks import Tasks
from llm_router.host.service import installation
from llm_router.host.supervisors import preparing
from llm_router.host.supervisors.journal_log import JournalLog
from llm_router.host.supervisors.manager import LOST, Manager, ManagerError, RefusedError
from llm_router.host.supervisors.records import VERSION, Birth, Folder, LaunchRecord, RecordError, Shelf, model_of
from llm_router.host.supervisors.runs import UnitRecord, UnitRun, cgroup_pids, read_unit, write_unit
from llm_router.host.supervisors.supervisor import Exit, Handle, SupervisorError
from llm_router.host.supervisors.units import UnitState

log = logging.getLogger(__name__)

#: A unit that has to go and is nobody's instance gets so long to end (seconds).
VACATE_S: Final = 20.0
#: Units that call themselves started only when they serve: their load is to be seen, not waited for.
_TELL_READY: Final = frozenset({"notify", "notify-reload", "dbus"})
_LAST_LINES: Final = 6


@dataclass(frozen=True, slots=True)
class Unclaimed:
    """A unit that runs and is no instance of this router: who started it is not known."""

    unit: str
    state: UnitState


class ServiceSupervisor:
    """Runs instances as units that exist already. Implements ``Supervisor`` for launches with a ``unit``.

    ``state`` is the router's folder, ``drop_ins`` where systemd looks for ours. ``keep`` ended instances of each
    model stay on disk; ``end_limit_s`` is how long SIGKILL may take before it counts as failed.
    """

    def __init__(
        self, state: Path, manager: Manager, drop_ins: Path, *, keep: int = 10, end_limit_s: float = 10.0
    ) -> None:
        self._shelf = Shelf(state.absolute() / "services")
        self._manager = manager
        self._drop_ins = drop_ins
        self._keep = keep
        self._end_limit_s = end_limit_s
        self._me = Birth(os.getpid(), processes.start_time(os.getpid()) or 0)
        self._living: dict[str, UnitRun] = {}
        self._tasks = Tasks("the services")

    def __repr__(self) -> str:
        return f"<services of {self._manager!r}: {', '.join(run.name for run in self._living.values()) or 'none'}>"

    # Starting

    async def check(self, launch: Launch) -> None:
        """Whether a start can succeed, as far as it can be seen without touching anything.

        Raises ``SupervisorError``: no such unit, no script, a file that cannot be edited, no right to do it.
        """
        state = await self._existing(launch.unit)
        await asyncio.to_thread(preparing.check, launch, self._drop_ins, state.folder)

    async def start(self, instance: InstanceId, launch: Launch, note: Mapping[str, str]) -> Handle:
        """See ``Supervisor.start``. A run of the unit that nobody claimed is stopped first."""
        try:
            await self.check(launch)
            await self.vacate([launch.unit])
            await self._prepare(instance, launch)
            state = await self._begin(launch.unit)
        except RefusedError as error:
            raise SupervisorError(self._refused(instance, launch.unit, error)) from None
        except ManagerError as error:
            raise SupervisorError(f"cannot start {instance}: systemd refuses {launch.unit}: {error}") from None
        except SupervisorError as error:
            raise SupervisorError(f"cannot start {instance}: {_without_cannot(error)}") from None
        return await self._claim(instance, launch.unit, state, dict(note))

    async def claim(self, instance: InstanceId, unit: str, note: Mapping[str, str]) -> Handle | None:
        """Take over a unit that runs without us as this instance; ``None`` if it has ended meanwhile."""
        await self._manager.hold(unit)
        state = await self._manager.state(unit)
        if state.main_pid:
            return await self._claim(instance, unit, state, dict(note))
        await self._manager.release(unit, forgive=False)
        return None

    async def unclaimed(self, names: Collection[str]) -> list[Unclaimed]:
        """Those of these units that run and are no instance of ours."""
        ours = {(run.record.unit, run.record.invocation) for run in self._living.values()}
        found = [(unit, await self._manager.state(unit)) for unit in names]
        return [Unclaimed(unit, state) for unit, state in found if state.runs and (unit, state.invocation) not in ours]

    async def processes_of(self, names: Collection[str]) -> frozenset[int]:
        """All processes of these units. Raises ``SupervisorError``."""
        groups = [(await self._manager.state(unit)).cgroup for unit in names]
        return frozenset().union(*map(cgroup_pids, groups))

    async def vacate(self, names: Collection[str]) -> None:
        """Stop those of these units that run and are no instance of ours. Raises ``SupervisorError``."""
        for one in await self.unclaimed(names):
            log.info("%s runs and is no instance of this router: it is stopped, its memory is needed", one.unit)
            await self._stop_unit(one.unit)

    async def find_file(self, unit: str, file: Somewhere, edit: Edit | None) -> Path:
        """Where a file of the unit's installation is; beside the edited one, if nothing else says where.

        Raises ``InstallationError`` and ``SupervisorError``.
        """
        state = await self._manager.state(unit)
        folders = [state.folder]
        if edit is not None:
            edited = await asyncio.to_thread(installation.locate, edit.file, os.environ, state.folder)
            folders.insert(0, str(edited.parent))
        return await asyncio.to_thread(installation.locate, file, os.environ, *folders)

    # The rest of the contract

    def knows(self, handle: Handle) -> bool:
        """Whether the instance is one of these units."""
        return handle.token in self._living or self._shelf.folder(handle.token) is not None

    async def stop(self, handle: Handle, grace_s: float) -> Exit:
        """See ``Supervisor.stop``. The unit is stopped in its own way, and killed after ``grace_s``."""
        run = self._living.get(handle.token)
        if run is None:
            return self._exit_of(handle)
        run.ask(grace_s)
        return await asyncio.shield(run.ended)

    async def watch(self, handle: Handle) -> Exit:
        """See ``Supervisor.watch``. An end by somebody else's ``systemctl`` is one that was not asked for."""
        run = self._living.get(handle.token)
        return self._exit_of(handle) if run is None else await asyncio.shield(run.ended)

    async def find(self) -> list[Handle]:
        """See ``Supervisor.find``: the units that still run as an earlier router started them."""
        handles = []
        for folder in list(self._shelf):
            if folder.ended:
                continue
            try:
                launch = folder.launch()
            except RecordError as error:
                log.warning("%s; its unit counts as nobody's", error)
                continue
            record = read_unit(folder)
            if launch is None or record is None or not record.invocation:
                folder.remove()
                continue
            state = await self._manager.state(record.unit)
            if state.invocation != record.invocation or not state.main_pid:
                await asyncio.to_thread(folder.write_exit, Exit(None, asked=folder.asked, killed=False))
                continue
            if folder.token not in self._living:
                await self._manager.hold(record.unit)
                folder.write_launch(msgspec.structs.replace(launch, router=self._me))
                self._follow(folder, launch.instance, msgspec.structs.replace(record, cgroup=state.cgroup))
            handles.append(Handle(InstanceId(launch.instance), folder.token, state.main_pid, folder.log, launch.note))
        return handles

    def pids(self, handle: Handle) -> frozenset[int]:
        """See ``Supervisor.pids``: all processes of the unit."""
        run = self._living.get(handle.token)
        return frozenset() if run is None else run.pids()

    async def aclose(self) -> None:
        """Let go of everything: the units live on."""
        await self._tasks.aclose()
        for run in self._living.values():
            run.ended.cancel()
        self._living.clear()
        await self._manager.aclose()

    # The steps of a start

    async def _existing(self, unit: str) -> UnitState:
        state = await self._manager.state(unit)
        match state.load:
            case "loaded":
                return state
            case "masked":
                raise SupervisorError(f"cannot use {unit}: it is masked; type: systemctl unmask {unit}")
            case "bad-setting" | "error":
                raise SupervisorError(f"cannot use {unit}: its file has a mistake; see: systemctl status {unit}")
            case _:
                raise SupervisorError(
                    f"cannot use {unit}: there is no such unit; correct `service`, see: systemctl list-unit-files"
                )

    async def _prepare(self, instance: InstanceId, launch: Launch) -> None:
        """The files as they must be, and systemd knowing of them."""
        state = await self._manager.state(launch.unit)
        model = model_of(instance)
        changed = await asyncio.to_thread(preparing.prepare, launch, self._drop_ins, state.folder, model)
        try:
            # Always: whether systemd thinks that it needs it cannot be relied on.
            await self._manager.call("Reload")
        except (RefusedError, ManagerError):
            if changed:
                raise

    async def _begin(self, unit: str) -> UnitState:
        """Have the unit started; its state once its main process lives. Raises ``SupervisorError``."""
        # After too many starts in a row it would be refused.
        with suppress(ManagerError, RefusedError):
            await self._manager.call("ResetFailedUnit", "s", unit)
        await self._manager.hold(unit)
        job = _outcome(self._manager.job("StartUnit", "ss", unit, "replace"))
        async with self._manager.news(unit) as news:
            starting = self._tasks.spawn(f"start {unit}", job)
            starting.add_done_callback(lambda _: news.set())
            while True:
                news.clear()
                state = await self._manager.state(unit)
                if starting.done() or (state.main_pid and state.kind in _TELL_READY):
                    break
                await news.wait()
        result = starting.result() if starting.done() else "done"
        if isinstance(result, Exception):
            raise result
        state = await self._manager.state(unit)
        if result in ("done", LOST) and state.invocation:
            return state
        why = await self._why_not(unit, result, state)
        await self._manager.release(unit, forgive=False)
        raise SupervisorError(why)

    async def _why_not(self, unit: str, result: str, state: UnitState) -> str:
        code = "" if state.exit_code is None else f", exit code {state.exit_code}"
        why = result if result != "failed" else f"{state.result}{code}"
        said = ""
        if state.invocation:
            place = self._shelf.state / f"{secrets.token_hex(8)}.log"
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            await JournalLog(state.invocation, place).finish()
            with suppress(OSError):
                said = " | ".join(place.read_text(errors="replace").splitlines()[-_LAST_LINES:])
            place.unlink(missing_ok=True)
        return f"cannot start {unit}: {why}; see: journalctl -u {unit}" + (f" ({said})" if said else "")

    def _refused(self, instance: InstanceId, unit: str, error: RefusedError) -> str:
        return (
            f"cannot start {instance}: systemd does not let this account steer {unit} ({error}); name the unit in the"
            " polkit rule 50-llm-router.rules ('llm-router install' writes it), or run the router as root"
        )

    # Following

    async def _claim(self, instance: InstanceId, unit: str, state: UnitState, note: dict[str, str]) -> Handle:
        token = secrets.token_hex(16)
        model = note.get("model") or model_of(instance)
        record = UnitRecord(VERSION, unit, state.invocation, state.cgroup)
        try:
            folder = self._shelf.create(instance, token)
            folder.log.touch(mode=0o600)
            folder.write_launch(LaunchRecord(VERSION, instance, token, model, "keep", time.time(), self._me, note))
            write_unit(folder, record)
        except OSError as error:
            raise SupervisorError(f"cannot keep the record of {instance}: {error}") from error
        self._follow(folder, instance, record)
        spare = frozenset(self._living)
        self._tasks.spawn(f"prune {model}", asyncio.to_thread(self._shelf.prune, model, self._keep, spare))
        return Handle(instance, token, state.main_pid or state.last_pid, folder.log, note)

    def _follow(self, folder: Folder, name: str, record: UnitRecord) -> None:
        journal = JournalLog(record.invocation, folder.log)
        following = self._tasks.spawn(f"the journal of {name}", journal.follow())

        async def settle(unit: str) -> None:
            """The end is the end: no restart by systemd, and a log that is whole."""
            if (await self._manager.state(unit)).runs:
                await self._stop_unit(unit)
            following.cancel()
            await asyncio.wait({following})
            await journal.finish()
            # A unit that had to be killed counts as failed for systemd, though it did what was wanted.
            await self._manager.release(unit, forgive=folder.asked)

        run = UnitRun(
            self._manager, folder, name, record, polite=self._ask_unit, end_limit_s=self._end_limit_s, settle=settle
        )
        self._living[folder.token] = run
        self._tasks.spawn(f"follow {name}", self._until_gone(run, following))

    async def _until_gone(self, run: UnitRun, following: asyncio.Task[None]) -> None:
        try:
            await run.follow()
        finally:
            following.cancel()
            self._living.pop(run.folder.token, None)

    def _exit_of(self, handle: Handle) -> Exit:
        folder = self._shelf.folder(handle.token)
        known = None
        with suppress(RecordError):
            known = folder.exit() if folder is not None else None
        return known or Exit(None, asked=folder is not None and folder.asked, killed=False)

    async def _ask_unit(self, unit: str) -> None:
        await self._manager.call("StopUnit", "ss", unit, "replace")

    async def _stop_unit(self, unit: str) -> None:
        """Stop it in its own way, and kill it when that takes too long. Raises ``SupervisorError``."""
        job = _outcome(self._manager.job("StopUnit", "ss", unit, "replace"))
        stopping = self._tasks.spawn(f"stop {unit}", job)
        await asyncio.wait({stopping}, timeout=VACATE_S)
        if not stopping.done():
            with suppress(ManagerError):
                await self._manager.call("KillUnit", "ssi", unit, "all", 9)
            await asyncio.wait({stopping}, timeout=self._end_limit_s)
        if not stopping.done():
            raise SupervisorError(f"cannot stop {unit}: it does not end, though it was killed")
        if isinstance(stopping.result(), Exception):
            raise SupervisorError(f"cannot stop {unit}: {stopping.result()}")
        with suppress(ManagerError, RefusedError):
            await self._manager.call("ResetFailedUnit", "s", unit)


async def _outcome(job: Awaitable[str]) -> str | Exception:
    """A refusal as a value: it is raised by who waits, and told once."""
    try:
        return await job
    except (SupervisorError, ManagerError) as error:
        return error


def _without_cannot(error: SupervisorError) -> str:
    """The cause alone, for a sentence that begins with "cannot start" already."""
    text = str(error)
    return text.partition(": ")[2] if text.startswith("cannot start ") and ": " in text else text
