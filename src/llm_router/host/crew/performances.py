"""What the scheduler asks of this machine, carried out: each command as a task of its own, ending as one event.

It knows how a performance is begun, watched and told, and what it ends as when it fails for a fault of ours.
What is done belongs to the crew; why, to the scheduler.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Final, Protocol

from llm_router.core import commands as do
from llm_router.core import events as ev
from llm_router.core.words import Failure, FailureKind, InstanceId, Outcome, TicketId
from llm_router.host.desk import Lease
from llm_router.host.machine.tasks import Tasks

log = logging.getLogger(__name__)

#: A stop that failed for a fault of ours is tried again after this many seconds.
STOP_AGAIN_S: Final = 5.0


class Crew(Protocol):
    """Carries out what the scheduler asks for on this machine. Each performance returns the event it ends as."""

    async def check(self, command: do.Check) -> ev.Checked: ...

    async def start(self, command: do.Start) -> ev.Started | ev.StartFailed: ...

    async def prove(
        self, command: do.Prove, news: Callable[[ev.LoadProgressed], None]
    ) -> ev.Proved | ev.StartFailed: ...

    async def stop(self, command: do.Stop) -> ev.Gone: ...

    async def park(self, command: do.Park) -> ev.Parked | ev.ParkFailed: ...

    async def wake(self, command: do.Wake, news: Callable[[ev.LoadProgressed], None]) -> ev.Woken | ev.WakeFailed: ...

    async def ended(self, instance: InstanceId) -> ev.Exited | None:
        """Wait until the instance's main process ended; ``None`` if that was asked for."""
        ...

    def lease(self, instance: InstanceId, ticket: TicketId, arrived: float, now: float) -> Lease:
        """Where a granted request goes."""
        ...

    def begun(self, instance: InstanceId, ticket: TicketId, moved: Callable[[], int | None]) -> None:
        """A lease on the instance began; ``moved`` counts its bytes."""
        ...

    def over(self, instance: InstanceId, ticket: TicketId, outcome: Outcome) -> None:
        """The lease ended so."""
        ...


#: What a performance ends as when it fails for a reason of our own.
_Broken = Callable[[InstanceId, Failure], ev.Event]

Performed = do.Check | do.Start | do.Prove | do.Stop | do.Park | do.Wake


class Performances:
    """Begins what is asked for; ``tell`` takes the event it ends as, and the news on the way."""

    def __init__(self, crew: Crew, tasks: Tasks, tell: Callable[[ev.Event], None]) -> None:
        self._crew = crew
        self._tasks = tasks
        self._tell = tell
        self._followed: set[InstanceId] = set()

    def begin(self, command: Performed) -> None:
        """Returns at once."""
        match command:
            case do.Check():
                self._spawn("check", command.instance, self._crew.check(command), _not_checked)
            case do.Start():
                self._spawn("start", command.instance, self._crew.start(command), _not_started)
            case do.Prove():
                self.follow(command.instance)
                self._spawn("prove", command.instance, self._crew.prove(command, self._tell), _not_started)
            case do.Stop():
                self._tasks.spawn(f"stop {command.instance}", self._stop(command))
            case do.Park():
                self._spawn("park", command.instance, self._crew.park(command), _not_parked)
            case do.Wake():
                self._spawn("wake", command.instance, self._crew.wake(command, self._tell), _not_woken)

    def _spawn(
        self, verb: str, instance: InstanceId, performance: Coroutine[None, None, ev.Event], broken: _Broken
    ) -> None:
        self._tasks.spawn(f"{verb} {instance}", self._carry(verb, instance, performance, broken))

    async def _carry(
        self, verb: str, instance: InstanceId, performance: Coroutine[None, None, ev.Event], broken: _Broken
    ) -> None:
        try:
            event = await performance
        except OSError as error:
            # No descriptor, no memory, no disk: the machine's own words are the cause, and it may pass.
            log.error("cannot %s %s: %s", verb, instance, error)  # noqa: TRY400 - the text says it all
            event = broken(instance, Failure(FailureKind.crashed, f"cannot {verb} {instance}: {error}"))
        except Exception as error:
            # The crew turns what can go wrong on a machine into events; this is a fault of ours. Nobody may hang for it.
            log.exception("cannot %s %s", verb, instance)
            cause = f"cannot {verb} {instance}: {error} (a fault of the router, its log says where)"
            event = broken(instance, Failure(FailureKind.crashed, cause))
        self._tell(event)

    async def _stop(self, command: do.Stop) -> None:
        """Only a stop that is done may be told: until then the room is taken."""
        while True:
            try:
                event = await self._crew.stop(command)
            except OSError as error:
                log.error("cannot stop %s: %s; trying again in %.0f s", command.instance, error, STOP_AGAIN_S)  # noqa: TRY400
                await asyncio.sleep(STOP_AGAIN_S)
            except Exception:
                log.exception("cannot stop %s; trying again in %.0f s", command.instance, STOP_AGAIN_S)
                await asyncio.sleep(STOP_AGAIN_S)
            else:
                self._tell(event)
                return

    def follow(self, instance: InstanceId) -> None:
        """Watch for the end of the instance's process, once per instance."""
        if instance not in self._followed:
            self._followed.add(instance)
            self._tasks.spawn(f"watch {instance}", self._watch(instance))

    async def _watch(self, instance: InstanceId) -> None:
        try:
            event = await self._crew.ended(instance)
        finally:
            self._followed.discard(instance)
        if event is not None:
            self._tell(event)


def _not_checked(instance: InstanceId, failure: Failure) -> ev.Event:
    return ev.Checked(instance, failure)


def _not_started(instance: InstanceId, failure: Failure) -> ev.Event:
    return ev.StartFailed(instance, failure)


def _not_parked(instance: InstanceId, failure: Failure) -> ev.Event:
    del failure
    return ev.ParkFailed(instance)


def _not_woken(instance: InstanceId, failure: Failure) -> ev.Event:
    return ev.WakeFailed(instance, failure)
