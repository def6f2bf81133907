"""systemd's manager, as its clients see it: jobs, units' states, news. It outlives a restart of the message bus.

It knows how the manager is spoken to and what its refusals mean to a person. Which units are started, and why, it
does not know.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, Literal

from llm_router.host.machine.tasks import Tasks
from llm_router.host.supervisors.dbus import Bus, BusLostError, CallError
from llm_router.host.supervisors.supervisor import SupervisorError
from llm_router.host.supervisors.units import UnitState, object_path, read_state

log = logging.getLogger(__name__)

Scope = Literal["system", "user"]

_SYSTEMD: Final = "org.freedesktop.systemd1"
_MANAGER: Final = f"{_SYSTEMD}.Manager"
_PATH: Final = "/org/freedesktop/systemd1"
_PROPERTIES: Final = "org.freedesktop.DBus.Properties"
_JOBS: Final = f"type='signal',sender='{_SYSTEMD}',interface='{_MANAGER}',member='JobRemoved'"
#: A bus that restarts is back within a second; one that is gone so long is an error to tell (seconds).
_BACK_S: Final = 15.0
_RETRY_S: Final = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
#: Answers that mean "you may not": polkit's, the bus's own policy's, and one that would need a person to ask.
_REFUSALS: Final = frozenset({"AccessDenied", "InteractiveAuthorizationRequired", "NotAuthorized"})
#: The result of a job whose end nobody told us, because the bus went away meanwhile.
LOST: Final = "lost"


class RefusedError(SupervisorError):
    """This account may not do it."""


class ManagerError(Exception):
    """The manager could not do it. ``name`` is the short name of its error, such as ``NoSuchUnit``."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


def address_of(scope: Scope, environment: Mapping[str, str]) -> str:
    """Where the scope's bus listens, by the environment or in its usual place."""
    if scope == "system":
        return environment.get("DBUS_SYSTEM_BUS_ADDRESS") or "unix:path=/run/dbus/system_bus_socket"
    given = environment.get("DBUS_SESSION_BUS_ADDRESS", "")
    runtime = environment.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    return f"unix:path={runtime}/bus" if Path(runtime, "bus").exists() or not given else given


class Manager:
    """One manager on one bus. Connects at first use; lives within one running loop."""

    def __init__(self, scope: Scope, address: str | None = None) -> None:
        self.scope: Scope = scope
        self._address = address or address_of(scope, os.environ)
        self._bus: Bus | None = None
        self._tasks = Tasks(f"systemd ({scope})")
        self._connecting = asyncio.Lock()
        #: How jobs ended, by path, for those who ask now; JobRemoved may come before the reply that names the job.
        self._done: dict[str, str] = {}
        self._jobs: dict[str, asyncio.Future[str]] = {}
        self._asking = 0
        #: Units that systemd must not forget while we want to know how they ended. A reference ends with the bus.
        self._held: set[str] = set()
        self._listeners: dict[str, list[asyncio.Event]] = {}

    def __repr__(self) -> str:
        return f"<systemd ({self.scope}) at {self._address}, {'connected' if self._bus else 'not connected'}>"

    async def call(self, member: str, signature: str = "", *body: Any) -> list[Any]:
        """Call a method of the manager, once more if the bus went away before the answer.

        Raises ``ManagerError``, ``RefusedError`` and ``SupervisorError``.
        """
        try:
            return await self._ask(_PATH, _MANAGER, member, signature, body)
        except BusLostError:
            pass
        try:
            return await self._ask(_PATH, _MANAGER, member, signature, body)
        except BusLostError as error:
            raise SupervisorError(f"cannot have systemd do {member}: {error}") from None

    async def job(self, member: str, signature: str, *body: Any) -> str:
        """Call a method that queues a job, and wait for its end.

        Gives ``done``, ``failed``, ``canceled``, ``timeout``, ``dependency``, ``skipped``, or ``lost``.
        Raises as ``call``.
        """
        self._asking += 1
        try:
            (path,) = await self.call(member, signature, *body)
            if path not in self._done:
                if self._bus is None:
                    return LOST
                self._jobs[path] = asyncio.get_running_loop().create_future()
                return await self._jobs[path]
            return self._done.pop(path)
        finally:
            self._asking -= 1
            self._jobs = {path: waiting for path, waiting in self._jobs.items() if not waiting.done()}
            if not self._asking:
                self._done.clear()

    async def state(self, unit: str) -> UnitState:
        """What the unit is now; one that does not exist is ``not-found``. Asked again when the bus comes back.

        Raises ``SupervisorError`` when it stays away.
        """
        while True:
            try:
                (properties,) = await self._ask(object_path(unit), _PROPERTIES, "GetAll", "s", ("",))
            except ManagerError as error:
                if error.name in ("NoSuchUnit", "UnknownObject", "UnknownMethod", "UnknownInterface"):
                    return UnitState()
                raise SupervisorError(f"cannot ask systemd about {unit}: {error}") from None
            except BusLostError:
                continue
            return read_state(properties)

    @asynccontextmanager
    async def news(self, unit: str) -> AsyncIterator[asyncio.Event]:
        """An event that is set whenever the unit may have changed, and after the bus was away.

        Raises ``SupervisorError`` when the bus cannot be reached.
        """
        path, event = object_path(unit), asyncio.Event()
        self._listeners.setdefault(path, []).append(event)
        try:
            await self._tell_bus(lambda bus: bus.listen(_rule(path)))
            yield event
        finally:
            self._listeners[path].remove(event)
            if not self._listeners[path]:
                del self._listeners[path]
            if self._bus is not None:
                with suppress(RuntimeError):  # closing: the rules go with the connection
                    self._tasks.spawn(f"listen no longer to {unit}", self._tell_bus(lambda bus: bus.mute(_rule(path))))

    async def hold(self, unit: str, *, held: bool = False) -> None:
        """Keep systemd from forgetting how the unit ended; a comfort that may be refused.

        ``held``: a reference came with the unit's start, only a new bus needs another one.
        """
        self._held.add(unit)
        if not held:
            with suppress(ManagerError, RefusedError):
                await self.call("RefUnit", "s", unit)

    async def release(self, unit: str, *, forgive: bool = True) -> None:
        """Let systemd forget the unit, and with ``forgive`` that it failed."""
        self._held.discard(unit)
        for member in ("ResetFailedUnit", "UnrefUnit") if forgive else ("UnrefUnit",):
            with suppress(ManagerError, SupervisorError):
                await self.call(member, "s", unit)

    async def aclose(self) -> None:
        """End the connection. What was started lives on."""
        await self._tasks.aclose()
        bus, self._bus = self._bus, None
        if bus is not None:
            await bus.aclose()
        self._forget_jobs()

    # -- the connection

    async def _ask(self, path: str, interface: str, member: str, signature: str, body: Sequence[Any]) -> list[Any]:
        bus = await self._connected()
        try:
            return await bus.call(_SYSTEMD, path, interface, member, signature, body)
        except CallError as error:
            if error.short in _REFUSALS:
                raise RefusedError(f"{error}") from None
            raise ManagerError(error.short, str(error)) from None

    async def _connected(self) -> Bus:
        """The connection, made if there is none. Raises ``SupervisorError`` when the bus stays away."""
        async with self._connecting:
            end = asyncio.get_running_loop().time() + (_BACK_S if self._listeners else 0)
            attempt = 0
            while True:
                try:
                    return self._bus or await self._connect()
                except (BusLostError, CallError) as error:
                    if asyncio.get_running_loop().time() >= end:
                        raise SupervisorError(
                            f"cannot reach systemd ({self.scope}): {error}; is it running, and may this account use its bus?"
                        ) from None
                    await asyncio.sleep(_RETRY_S[min(attempt, len(_RETRY_S) - 1)])
                    attempt += 1

    async def _connect(self) -> Bus:
        bus = await Bus.connect(self._address, self._heard)
        # Before the first call, so that the end of no job is missed.
        await bus.listen(_JOBS)
        await bus.call(_SYSTEMD, _PATH, _MANAGER, "Subscribe")
        for path, events in list(self._listeners.items()):
            for _ in events:
                await bus.listen(_rule(path))
        for unit in list(self._held):
            with suppress(CallError):
                await bus.call(_SYSTEMD, _PATH, _MANAGER, "RefUnit", "s", [unit])
        self._bus = bus
        self._tasks.spawn("notice the end of the bus", self._after_loss(bus))
        self._tell_all()
        return bus

    async def _after_loss(self, bus: Bus) -> None:
        await bus.lost()
        if self._bus is bus:
            self._bus = None
            log.warning("the message bus of systemd (%s) went away; connecting again", self.scope)
            self._forget_jobs()
            self._tell_all()

    async def _tell_bus(self, tell: Callable[[Bus], Awaitable[None]]) -> None:
        """Tell the bus of a rule. When it goes away over that, the next one is told all of them."""
        bus = await self._connected()
        with suppress(BusLostError, CallError):
            await tell(bus)

    # -- what it says

    def _heard(self, path: str, what: str, body: list[Any]) -> None:
        if what == f"{_MANAGER}.JobRemoved":
            _, job, _, result = body
            waiting = self._jobs.pop(job, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(result)
            elif self._asking:
                self._done[job] = result
        for event in self._listeners.get(path, ()):
            event.set()

    def _forget_jobs(self) -> None:
        waiting, self._jobs = self._jobs, {}
        for one in waiting.values():
            if not one.done():
                one.set_result(LOST)

    def _tell_all(self) -> None:
        for events in self._listeners.values():
            for event in events:
                event.set()


def _rule(path: str) -> str:
    return f"type='signal',sender='{_SYSTEMD}',interface='{_PROPERTIES}',member='PropertiesChanged',path='{path}'"
