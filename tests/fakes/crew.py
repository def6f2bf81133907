"""A crew that carries out what it is told when the test says so, or at once; it leaves a record."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from llm_router.core import commands as do
from llm_router.core import events as ev
from llm_router.core.words import Failure, InstanceId, ModelName, Outcome, TicketId
from llm_router.host.desk import Lease
from llm_router.wire.dialect import Dialect


@dataclass
class FakeCrew:
    """Everything succeeds at once, unless ``fails`` has a failure for the verb or ``waits`` an event to wait for."""

    fails: dict[str, Failure] = field(default_factory=dict)
    waits: dict[str, asyncio.Event] = field(default_factory=dict)
    raises: dict[str, list[Exception]] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    leases: dict[TicketId, Callable[[], int | None]] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    models: dict[InstanceId, ModelName] = field(default_factory=dict)
    #: The end of each instance; set its result to have it die.
    ends: dict[InstanceId, "asyncio.Future[Failure | None]"] = field(default_factory=dict)

    async def _do(self, verb: str, instance: InstanceId) -> Failure | None:
        self.done.append(f"{verb} {instance}")
        if self.raises.get(verb):
            raise self.raises[verb].pop()
        if verb in self.waits:
            await self.waits[verb].wait()
        return self.fails.get(verb)

    async def check(self, command: do.Check) -> ev.Checked:
        self.models[command.instance] = command.model
        return ev.Checked(command.instance, await self._do("check", command.instance))

    async def start(self, command: do.Start) -> ev.Started | ev.StartFailed:
        failure = await self._do("start", command.instance)
        return ev.StartFailed(command.instance, failure) if failure else ev.Started(command.instance)

    async def prove(self, command: do.Prove, news: Callable[[ev.LoadProgressed], None]) -> ev.Proved | ev.StartFailed:
        news(ev.LoadProgressed(command.instance, "loading weights", 50.0, 3.0))
        failure = await self._do("prove", command.instance)
        return ev.StartFailed(command.instance, failure) if failure else ev.Proved(command.instance)

    async def stop(self, command: do.Stop) -> ev.Gone:
        await self._do("stop", command.instance)
        end = self.ends.get(command.instance)
        if end is not None and not end.done():
            end.set_result(None)
        return ev.Gone(command.instance)

    async def park(self, command: do.Park) -> ev.Parked | ev.ParkFailed:
        failed = await self._do("park", command.instance)
        return ev.ParkFailed(command.instance) if failed else ev.Parked(command.instance)

    async def wake(self, command: do.Wake, news: Callable[[ev.LoadProgressed], None]) -> ev.Woken | ev.WakeFailed:
        del news
        failure = await self._do("wake", command.instance)
        return ev.WakeFailed(command.instance, failure) if failure else ev.Woken(command.instance)

    async def ended(self, instance: InstanceId) -> ev.Exited | None:
        failure = await self.ends.setdefault(instance, asyncio.get_running_loop().create_future())
        return None if failure is None else ev.Exited(instance, failure)

    def lease(self, instance: InstanceId, ticket: TicketId, arrived: float, now: float) -> Lease:
        model = self.models[instance]
        return Lease(ticket, instance, model, "127.0.0.1", 1, Dialect(), waited_s=now - arrived)

    def begun(self, instance: InstanceId, ticket: TicketId, moved: Callable[[], int | None]) -> None:
        self.leases[ticket] = moved

    def over(self, instance: InstanceId, ticket: TicketId, outcome: Outcome) -> None:
        del self.leases[ticket]
        self.outcomes.append(outcome)
