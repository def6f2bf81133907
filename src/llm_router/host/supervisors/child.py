"""The router's own children: each engine under a guard of its own (guard.py), found again after a restart.

This file starts guards, speaks to them, and reads what they leave behind. All that must outlive the router is in
the instances' folders (records.py); what is in memory here can be rebuilt from them. It decides nothing about
which instance should live, and it touches nothing that does not carry a token of its own state folder.
"""

import asyncio
import logging
import math
import os
import secrets
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import msgspec

from llm_router.core.words import InstanceId
from llm_router.engines.engine import Launch
from llm_router.host.machine import processes
from llm_router.host.machine.tasks import Tasks
from llm_router.host.supervisors import launching
from llm_router.host.supervisors.environment import engine_environment
from llm_router.host.supervisors.records import VERSION, Birth, Folder, LaunchRecord, RecordError, Shelf, model_of
from llm_router.host.supervisors.supervisor import Exit, Handle, SupervisorError
from llm_router.host.supervisors.sweeping import aftermath, survivors

log = logging.getLogger(__name__)

#: What becomes of the engines when the router dies: they end with it, or they live on and are adopted.
Policy = Literal["die", "keep"]

#: A guard takes some 40 ms to start; on a machine that swaps, much longer.
_START_LIMIT_S: Final = 30.0


@dataclass(eq=False, slots=True)
class _Guarded:
    """A guard that lives, and what we hold of it."""

    folder: Folder
    name: str
    pid: int
    pidfd: int
    #: Our end of its life line; ``None`` if another router started it.
    lifeline: int | None
    ended: asyncio.Future[Exit] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    #: The descriptors are closed; their numbers may be others' by now.
    let_go_of: bool = False
    #: When its grace ends at the latest, on the monotonic clock, once somebody asked for its end.
    deadline: float = math.inf

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, to this process and no other."""
        if not self.let_go_of:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    def let_go(self) -> None:
        """Close what we hold. Without its life line a guard with the policy "die" ends its engine."""
        if self.let_go_of:
            return
        self.let_go_of = True
        asyncio.get_running_loop().remove_reader(self.pidfd)
        os.close(self.pidfd)
        if self.lifeline is not None:
            os.close(self.lifeline)


class ChildSupervisor:
    """Runs engines as children, below ``state`` (made if missing, closed to other users).

    ``grace_s`` is what an engine gets when the router dies under it; ``keep`` ended instances of each model stay
    on disk with their logs; a log above ``log_limit`` bytes is moved to ``engine.log.1`` (0: never);
    ``end_limit_s`` is how long SIGKILL may take before it counts as failed.
    """

    def __init__(
        self,
        state: Path,
        policy: Policy = "die",
        *,
        grace_s: float = 10.0,
        keep: int = 10,
        log_limit: int = 64 * 1024 * 1024,
        end_limit_s: float = 10.0,
    ) -> None:
        self._shelf = Shelf(state.absolute())
        self._policy = policy
        self._grace_s = grace_s
        self._keep = keep
        self._log_limit = log_limit
        self._end_limit_s = end_limit_s
        self._me = Birth(os.getpid(), processes.start_time(os.getpid()) or 0)
        self._living: dict[str, _Guarded] = {}
        self._starting: set[str] = set()
        self._tasks = Tasks("the child supervisor")

    def __repr__(self) -> str:
        return f"<children in {self._shelf.state}: {', '.join(g.name for g in self._living.values()) or 'none'}>"

    async def start(self, instance: InstanceId, launch: Launch, note: Mapping[str, str]) -> Handle:
        """See ``Supervisor.start``. ``launch.cwd`` ``None`` is the router's own working directory.

        The files and links of the launch are put in place first.
        """
        if self._tasks.closed:
            raise SupervisorError(f"cannot start {instance}: the router has let go of its engines, it is ending")
        token = secrets.token_hex(16)
        self._starting.add(token)
        try:
            return await self._start(instance, launch, dict(note), token)
        finally:
            self._starting.discard(token)

    async def stop(self, handle: Handle, grace_s: float) -> Exit:
        """See ``Supervisor.stop``. SIGTERM goes to the main process alone, SIGKILL to all."""
        guarded = self._find_guard(handle)
        if guarded is None:
            return await self._aftermath_of(handle)
        self._ask(guarded, grace_s)
        try:
            async with asyncio.timeout(grace_s + self._end_limit_s):
                return await asyncio.shield(guarded.ended)
        except TimeoutError:
            return await self._insist(guarded)

    async def watch(self, handle: Handle) -> Exit:
        """See ``Supervisor.watch``. Raises ``SupervisorError`` when something of it survives its sweep."""
        guarded = self._find_guard(handle)
        if guarded is None:
            return await self._aftermath_of(handle)
        return await asyncio.shield(guarded.ended)

    async def find(self) -> list[Handle]:
        """See ``Supervisor.find``. A record that cannot be read is logged, and its instance ended."""
        handles = []
        for folder in list(self._shelf):
            if folder.token in self._starting or folder.ended:
                continue
            try:
                handle = await self._find_one(folder)
            except SupervisorError as error:
                log.error("%s", error)  # noqa: TRY400 - the text is the story
                continue
            if handle is not None:
                handles.append(handle)
        return handles

    def pids(self, handle: Handle) -> frozenset[int]:
        """See ``Supervisor.pids``. The guard is not one of them."""
        guarded = self._find_guard(handle)
        if guarded is None:
            return processes.environ_marked(handle.token)
        return processes.tree(guarded.pid) - {guarded.pid}

    async def aclose(self) -> None:
        """Let go of everything: engines started with "keep" live on, those started with "die" end by themselves."""
        await self._tasks.aclose()
        for guarded in self._living.values():
            guarded.let_go()
            guarded.ended.cancel()
        self._living.clear()

    # Starting

    async def _start(self, instance: InstanceId, launch: Launch, note: dict[str, str], token: str) -> Handle:
        model = note.get("model") or model_of(instance)
        folder: Folder | None = None
        try:
            launching.lay_out(launch)
            folder = self._shelf.create(instance, token)
            record = LaunchRecord(VERSION, instance, token, model, self._policy, time.time(), self._me, note)
            folder.write_launch(record)
            spawned = launching.spawn_guard(folder, self._task(folder, launch))
        except OSError as error:
            if folder is not None:
                folder.remove()
            passing = launching.is_passing(error.errno)
            raise SupervisorError(f"cannot start {instance}: {error}", passing=passing) from error
        guarded = self._hold(folder, instance, spawned.pid, spawned.pidfd, spawned.lifeline)
        word = await self._first_word(guarded, spawned.handshake)
        if word is None or word.main is None:
            why = (
                "its guard ended at once: " + _tail(folder) if word is None else launching.why_not(launch, word, folder)
            )
            folder.remove()
            passing = word is None or launching.is_passing(word.errno)
            raise SupervisorError(f"cannot start {instance}: {why}", passing=passing)
        spare = frozenset(self._living)
        self._tasks.spawn(f"prune {model}", asyncio.to_thread(self._shelf.prune, model, self._keep, spare))
        return Handle(instance, token, word.main.pid, folder.log, note)

    def _task(self, folder: Folder, launch: Launch) -> dict[str, object]:
        """What guard.py reads."""
        return {
            "token": folder.token,
            "argv": launch.argv,
            "env": engine_environment(os.environ, launch.env, folder.token),
            "cwd": launch.cwd,
            "policy": self._policy,
            "grace_s": self._grace_s,
            "log": str(folder.log),
            "log_limit": self._log_limit,
        }

    async def _first_word(self, guarded: _Guarded, handshake: int) -> launching.FirstWord | None:
        try:
            return await launching.first_word(handshake, _START_LIMIT_S)
        except TimeoutError:
            guarded.signal(signal.SIGKILL)
            raise SupervisorError(
                f"cannot start {guarded.name}: its guard did not answer for {_START_LIMIT_S:.0f} s; is the machine"
                " out of memory?",
                passing=True,
            ) from None
        except asyncio.CancelledError:
            self._ask(guarded, 0)
            raise

    def _hold(self, folder: Folder, name: str, pid: int, pidfd: int, lifeline: int | None) -> _Guarded:
        """From now on its end is noticed, whether somebody watches or not."""
        guarded = _Guarded(folder, name, pid, pidfd, lifeline)
        self._living[folder.token] = guarded
        asyncio.get_running_loop().add_reader(pidfd, self._on_end, guarded)
        return guarded

    # Ending

    def _ask(self, guarded: _Guarded, grace_s: float) -> None:
        now = time.monotonic()
        guarded.deadline = min(guarded.deadline, now + grace_s)
        try:
            # Two who ask at once write this file before the guard reads it: the nearer deadline must stand in it.
            guarded.folder.write_stop(max(0.0, guarded.deadline - now))
        except OSError as error:
            log.warning("cannot tell the guard of %s its grace, it has one of its own: %s", guarded.name, error)
        guarded.signal(signal.SIGTERM)

    def _on_end(self, guarded: _Guarded) -> None:
        """The guard ended, so nothing of the engine is left, unless somebody killed the guard."""
        with suppress(ChildProcessError):  # not ours: another router started it
            os.waitid(os.P_PIDFD, guarded.pidfd, os.WEXITED | os.WNOHANG)
        guarded.let_go()
        self._tasks.spawn(f"the end of {guarded.name}", self._conclude(guarded))

    async def _conclude(self, guarded: _Guarded) -> None:
        try:
            guarded.ended.set_result(await aftermath(guarded.folder, guarded.name, self._end_limit_s, killed=True))
        except SupervisorError as error:
            guarded.ended.set_exception(error)
            guarded.ended.exception()  # it is logged here, also when nobody watches
            log.error("%s", error)  # noqa: TRY400 - the text is the story
        finally:
            guarded.ended.cancel()  # no answer will come if this task was cancelled
            self._living.pop(guarded.folder.token, None)

    async def _aftermath_of(self, handle: Handle) -> Exit:
        folder = self._shelf.folder(handle.token)
        if folder is None:
            return Exit(None, asked=False, killed=False)
        return await aftermath(folder, handle.instance, self._end_limit_s, killed=False)

    async def _insist(self, guarded: _Guarded) -> Exit:
        """The guard did not manage, or hangs itself: do its work. Raises ``SupervisorError`` for what survives."""
        engine = processes.tree(guarded.pid) - {guarded.pid}
        for pid in engine:
            processes.send(pid, signal.SIGKILL)
        guarded.signal(signal.SIGCONT)
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                return await asyncio.shield(guarded.ended)
        if left := processes.tree(guarded.pid) - {guarded.pid}:
            raise SupervisorError(survivors(guarded.name, left))
        guarded.signal(signal.SIGKILL)
        return await asyncio.shield(guarded.ended)

    # Finding

    def _find_guard(self, handle: Handle) -> _Guarded | None:
        """The living guard of an instance, ours or adopted now."""
        if (known := self._living.get(handle.token)) is not None:
            return known
        folder = self._shelf.folder(handle.token)
        if folder is None or folder.ended:
            return None
        try:
            return self._adopt(folder)
        except RecordError as error:
            log.warning("%s", error)
            return None

    def _adopt(self, folder: Folder) -> _Guarded | None:
        """Take over a guard that another router started, if it lives. Raises ``RecordError``."""
        launch, run = folder.launch(), folder.run()
        if launch is None or run is None or run.boot != processes.boot_id():
            return None
        try:
            pidfd = os.pidfd_open(run.guard.pid)
        except ProcessLookupError:
            return None
        # Only now ask who it is: the pidfd stays with this process, the number might not.
        pid, start = run.guard.pid, run.guard.start
        if not processes.is_alive(pid, start) or processes.token_of(pid) != folder.token:
            os.close(pidfd)
            return None
        with suppress(OSError):
            folder.write_launch(msgspec.structs.replace(launch, router=self._me))
        return self._hold(folder, launch.instance, pid, pidfd, None)

    async def _find_one(self, folder: Folder) -> Handle | None:
        """The handle if it lives and may live on. Raises ``SupervisorError`` when it cannot be ended."""
        try:
            if self._belongs_to_another(folder):
                return None
            handle = folder.handle()
            guarded = self._living.get(folder.token) or self._adopt(folder)
        except RecordError as error:
            log.warning("%s; what is left of this instance is ended", error)
            await aftermath(folder, folder.path.name, self._end_limit_s, killed=False)
            return None
        if guarded is None or handle is None:
            await aftermath(folder, folder.path.name, self._end_limit_s, killed=False)
            return None
        if self._dies(folder, guarded):
            await self.stop(handle, 0)
            return None
        return handle

    def _belongs_to_another(self, folder: Folder) -> bool:
        launch = folder.launch()
        if launch is None or launch.router == self._me:
            return False
        router = launch.router
        if not processes.is_alive(router.pid, router.start):
            return False
        who = processes.describe(router.pid)
        log.warning("cannot adopt %s: another router, %s, uses %s too", launch.instance, who, self._shelf.state)
        return True

    def _dies(self, folder: Folder, guarded: _Guarded) -> bool:
        """Whether its router's death has already condemned it; all that is left is not to wait for its grace."""
        launch = folder.launch()
        return guarded.lifeline is None and launch is not None and launch.policy == "die"


def _tail(folder: Folder) -> str:
    try:
        return folder.log.read_text(errors="replace")[-500:].strip() or "it said nothing"
    except OSError as error:
        return f"its log cannot be read: {error}"
