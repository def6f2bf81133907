"""Instances as units of systemd, each with a name of its own: they outlive the router and are found again.

Two ways: a transient unit for each start (as root, or in an account's own user manager), or an instance of an
installed template, which polkit lets a plain account start. What must outlive the router is in the instances'
folders (records.py) and in systemd. It decides nothing about which instance should live, and touches no unit that
does not carry the mark of its own state folder.
"""

import asyncio
import errno
import hashlib
import logging
import os
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

import msgspec

from llm_router.core.words import InstanceId
from llm_router.engines.engine import Launch
from llm_router.host.machine import processes
from llm_router.host.machine.tasks import Tasks
from llm_router.host.supervisors import launching, packaging, units
from llm_router.host.supervisors.commandline import checked_argv
from llm_router.host.supervisors.dbus import variant
from llm_router.host.supervisors.environment import engine_environment
from llm_router.host.supervisors.manager import Manager, ManagerError, RefusedError
from llm_router.host.supervisors.records import VERSION, Birth, Folder, LaunchRecord, RecordError, Shelf, model_of
from llm_router.host.supervisors.runs import UnitRecord, UnitRun, read_unit, write_unit
from llm_router.host.supervisors.supervisor import Exit, Handle, SupervisorError
from llm_router.host.supervisors.units import UnitState

log = logging.getLogger(__name__)

#: How a unit comes to be: made for each start, or an instance of an installed template.
Way = Literal["transient", "template"]

_ENVIRONMENT: Final = "environment"
#: Exit codes of systemd itself, before a program runs (systemd.exec(5), "Process Exit Codes").
_CHDIR, _EXEC = 200, 203


class SystemdSupervisor:
    """Runs instances as units, with their folders below ``state/systemd`` (made if missing, closed to others).

    ``jobs`` is where the installed template looks for what to run, by default as the installer has it.
    ``keep`` ended instances of each model stay on disk with their logs; ``end_limit_s`` is how long SIGKILL may
    take before it counts as failed. Engines live on when the router ends without having stopped them.
    """

    def __init__(
        self,
        state: Path,
        manager: Manager,
        way: Way = "transient",
        *,
        jobs: Path | None = None,
        keep: int = 10,
        end_limit_s: float = 10.0,
    ) -> None:
        self._shelf = Shelf(state.absolute() / "systemd")
        self._id = hashlib.sha256(str(state.absolute()).encode()).hexdigest()[:8]
        self._manager = manager
        self._way: Way = way
        self._jobs = jobs or packaging.jobs_folder(state.absolute())
        self._keep = keep
        self._end_limit_s = end_limit_s
        self._me = Birth(os.getpid(), processes.start_time(os.getpid()) or 0)
        self._living: dict[str, UnitRun] = {}
        self._starting: set[str] = set()
        self._tasks = Tasks("the systemd supervisor")

    def __repr__(self) -> str:
        return f"<{self._way} units of {self._manager!r}: {', '.join(run.name for run in self._living.values()) or 'none'}>"

    async def start(self, instance: InstanceId, launch: Launch, note: Mapping[str, str]) -> Handle:
        """See ``Supervisor.start``. The files and links of the launch are put in place first."""
        token = secrets.token_hex(16)
        self._starting.add(token)
        try:
            return await self._start(instance, launch, dict(note), token)
        finally:
            self._starting.discard(token)

    async def stop(self, handle: Handle, grace_s: float) -> Exit:
        """See ``Supervisor.stop``. SIGTERM goes to the main process alone, SIGKILL to all."""
        run = await self._run_of(handle)
        if run is None:
            return self._exit_of(handle)
        run.ask(grace_s)
        return await asyncio.shield(run.ended)

    async def watch(self, handle: Handle) -> Exit:
        """See ``Supervisor.watch``. Raises ``SupervisorError`` when something of it survives its sweep."""
        run = await self._run_of(handle)
        return self._exit_of(handle) if run is None else await asyncio.shield(run.ended)

    async def find(self) -> list[Handle]:
        """See ``Supervisor.find``. A unit of ours whose record is gone, or cannot be read, is ended."""
        handles, known = [], set[str]()
        for folder in list(self._shelf):
            known.add(self._unit_of(folder))
            if folder.token in self._starting or folder.ended:
                continue
            try:
                handle = await self._find_one(folder)
            except RecordError as error:
                log.error("%s; its unit is ended", error)  # noqa: TRY400 - the text is the story
                await self._end_forgotten(self._unit_of(folder))
                continue
            if handle is not None:
                handles.append(handle)
        for unit in await self._ours():
            if unit not in known:
                log.warning("%s is of this router, but its record is lost: it is ended", unit)
                await self._end_forgotten(unit)
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

    # Starting

    async def _start(self, instance: InstanceId, launch: Launch, note: dict[str, str], token: str) -> Handle:
        model = note.get("model") or model_of(instance)
        try:
            launching.lay_out(launch)
            folder = self._shelf.create(instance, token)
        except OSError as error:
            raise SupervisorError(f"cannot start {instance}: {error}") from error
        try:
            argv = checked_argv(instance, launch, folder)
            folder.log.touch(mode=0o600)
            folder.write_launch(LaunchRecord(VERSION, instance, token, model, "keep", time.time(), self._me, note))
            write_unit(folder, UnitRecord(VERSION, self._unit_of(folder)))
            state = await self._begin(instance, launch, argv, folder)
        except (SupervisorError, OSError) as error:
            await self._forget(folder)
            if isinstance(error, SupervisorError):
                raise
            raise SupervisorError(f"cannot start {instance}: {error}") from error
        except asyncio.CancelledError:
            await asyncio.shield(self._end_forgotten(self._unit_of(folder)))
            raise
        record = UnitRecord(VERSION, self._unit_of(folder), cgroup=state.cgroup)
        with suppress(OSError):
            write_unit(folder, record)
        self._follow(folder, instance, record)
        self._tasks.spawn(
            f"prune {model}", asyncio.to_thread(self._shelf.prune, model, self._keep, frozenset(self._living))
        )
        return Handle(instance, token, state.main_pid or state.last_pid, folder.log, note)

    async def _begin(self, instance: InstanceId, launch: Launch, argv: tuple[str, ...], folder: Folder) -> UnitState:
        """Have systemd start it; the state once its main process lives. Raises ``SupervisorError``."""
        unit = self._unit_of(folder)
        environment = engine_environment(os.environ, launch.env, folder.token)
        directory = launch.cwd or str(Path.cwd())
        try:
            if self._way == "template":
                job = {"argv": argv, "env": environment, "cwd": directory, "log": str(folder.log)}
                self._jobs.mkdir(mode=0o700, exist_ok=True)
                _write_secret(self._job_of(folder), msgspec.json.encode(job))
                await self._manager.job("StartUnit", "ss", unit, "replace")
            else:
                file = folder.path / _ENVIRONMENT
                _write_secret(file, units.environment_file(environment))
                properties = units.transient(
                    description=f"llm-router: {instance}",
                    argv=argv,
                    folder=directory,
                    environment=str(file),
                    log=str(folder.log),
                )
                given = [[name, variant(signature, value)] for name, signature, value in properties]
                await self._manager.job("StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "fail", given, [])
        except RefusedError as error:
            raise SupervisorError(self._refused(instance, error)) from None
        except ManagerError as error:
            # Its name is new, so that it exists can only be an answer that was lost with the bus.
            if error.name != "UnitExists":
                raise SupervisorError(f"cannot start {instance}: systemd refuses {unit}: {error}") from None
        await self._manager.hold(unit, held=self._way == "transient")
        state = await self._manager.state(unit)
        if not state.main_pid and state.exit_code in (_EXEC, _CHDIR, None):
            raise SupervisorError(f"cannot start {instance}: {self._why_not(launch, folder, state)}")
        return state

    def _refused(self, instance: InstanceId, error: RefusedError) -> str:
        if self._way == "template":
            remedy = (
                "install the template llm-router-model@.service and the polkit rule 50-llm-router.rules for this account"
                " ('llm-router install' does both)"
            )
        else:
            remedy = "run the router as root, in the account's own user manager, or with 'supervisor: child'"
        return f"cannot start {instance}: systemd does not let this account start {units.PREFIX}* units ({error}); {remedy}"

    def _why_not(self, launch: Launch, folder: Folder, state: UnitState) -> str:
        """In plain words, from what systemd kept of the failure."""
        if state.load == "not-found" and self._way == "template":
            return f"the template {units.TEMPLATE}.service is not installed; 'llm-router install' puts it in place"
        if state.exit_code == _CHDIR:
            return launching.why_not(launch, launching.FirstWord(step="cwd", errno=errno.ENOENT), folder)
        if state.exit_code == _EXEC:
            return launching.why_not(launch, launching.FirstWord(errno=errno.ENOEXEC), folder)
        said = folder.log.read_text(errors="replace")[-500:].strip()
        return f"systemd could not run {self._unit_of(folder)} ({state.result})" + (f": {said}" if said else "")

    # Ending

    async def _ask_main(self, unit: str) -> None:
        """SIGTERM to the main process alone: engines end their own workers in their own order."""
        await self._manager.call("KillUnit", "ssi", unit, "main", 15)

    async def _end_forgotten(self, unit: str) -> None:
        """End a unit that nobody can answer for any more."""
        with suppress(ManagerError):
            await self._manager.call("KillUnit", "ssi", unit, "all", 9)
        with suppress(ManagerError):
            await self._manager.job("StopUnit", "ss", unit, "replace")
        await self._manager.release(unit)

    async def _forget(self, folder: Folder) -> None:
        """Undo a start that failed, also one whose failure was only that nobody told us of its success."""
        with suppress(SupervisorError):
            await self._end_forgotten(self._unit_of(folder))
        self._job_of(folder).unlink(missing_ok=True)
        folder.remove()

    def _exit_of(self, handle: Handle) -> Exit:
        folder = self._shelf.folder(handle.token)
        try:
            known = folder.exit() if folder is not None else None
        except RecordError as error:
            log.warning("%s", error)
            known = None
        return known or Exit(None, asked=folder is not None and folder.asked, killed=False)

    # Following

    def _follow(self, folder: Folder, name: str, record: UnitRecord) -> UnitRun:
        # Released at its end: systemd would remember every failed unit for ever.
        run = UnitRun(
            self._manager,
            folder,
            name,
            record,
            polite=self._ask_main,
            end_limit_s=self._end_limit_s,
            settle=self._manager.release,
        )
        self._living[folder.token] = run
        self._tasks.spawn(f"follow {name}", self._until_gone(run))
        return run

    async def _until_gone(self, run: UnitRun) -> None:
        try:
            await run.follow()
        finally:
            self._living.pop(run.folder.token, None)
        for secret in (self._job_of(run.folder), run.folder.path / _ENVIRONMENT):
            secret.unlink(missing_ok=True)

    async def _run_of(self, handle: Handle) -> UnitRun | None:
        """The run of a handle, ours or taken over now; ``None`` if it is over."""
        if (known := self._living.get(handle.token)) is not None:
            return known
        folder = self._shelf.folder(handle.token)
        if folder is None or folder.ended:
            return None
        return await self._adopt(folder, handle.instance)

    async def _find_one(self, folder: Folder) -> Handle | None:
        """The handle if it lives. Raises ``RecordError``."""
        if self._belongs_to_another(folder):
            return None
        launch = folder.launch()
        if launch is None:
            raise RecordError(f"cannot read {folder.path / 'launch'}: it is missing")
        run = self._living.get(folder.token) or await self._adopt(folder, launch.instance)
        if run is None:
            return None
        state = await self._manager.state(run.record.unit)
        return Handle(InstanceId(launch.instance), folder.token, state.main_pid, folder.log, launch.note)

    async def _adopt(self, folder: Folder, name: str) -> UnitRun | None:
        """Answer for a unit that another router started. If it ended meanwhile, that is written down."""
        unit = self._unit_of(folder)
        await self._manager.hold(unit)
        state = await self._manager.state(unit)
        if (known := self._living.get(folder.token)) is not None:
            return known
        if not state.runs:
            if not folder.ended:
                folder.write_exit(Exit(state.exit_code, asked=folder.asked, killed=state.result == "timeout"))
            await self._manager.release(unit)
            return None
        if (launch := folder.launch()) is not None:
            with suppress(OSError):
                folder.write_launch(msgspec.structs.replace(launch, router=self._me))
        record = read_unit(folder) or UnitRecord(VERSION, unit)
        return self._follow(folder, name, msgspec.structs.replace(record, cgroup=state.cgroup))

    async def _ours(self) -> list[str]:
        prefix = units.TEMPLATE if self._way == "template" else units.PREFIX
        pattern = f"{prefix}{self._id}-*.service"
        (listed,) = await self._manager.call("ListUnitsByPatterns", "asas", [], [pattern])
        return [entry[0] for entry in listed if entry[3] not in ("inactive", "failed")]

    def _unit_of(self, folder: Folder) -> str:
        if self._way == "template":
            return units.template_name(self._id, folder.token)
        return units.transient_name(self._id, folder.path.name)

    def _job_of(self, folder: Folder) -> Path:
        """What the template reads; its name is the instance's."""
        return self._jobs / f"{self._id}-{folder.token}"

    def _belongs_to_another(self, folder: Folder) -> bool:
        launch = folder.launch()
        if launch is None or launch.router == self._me:
            return False
        router = launch.router
        if not processes.is_alive(router.pid, router.start):
            return False
        log.warning("cannot adopt %s: another router, %s, uses it too", launch.instance, processes.describe(router.pid))
        return True


def _write_secret(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
