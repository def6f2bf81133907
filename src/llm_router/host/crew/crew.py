"""The crew: carries out the scheduler's commands on this machine, one instance at a time.

It knows which instances there are and hands each command to whom it belongs: starting, probing, stopping. It
starts and stops what it is told to, and reports; it never decides whom.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Final

from msgspec.structs import replace

from llm_router.config import shelf
from llm_router.config.load import Config
from llm_router.core import commands as do
from llm_router.core import events as ev
from llm_router.core.words import DeviceId, Failure, FailureKind, InstanceId, ModelName, Outcome, TicketId
from llm_router.engines.engine import Ended
from llm_router.host.crew.adoption import Adoption
from llm_router.host.crew.existing import Existing
from llm_router.host.crew.place import Place
from llm_router.host.crew.prechecks import weights_of
from llm_router.host.crew.probe import Eyes, Limits, News, Proof, prove
from llm_router.host.crew.progress import Vitals
from llm_router.host.crew.sleeping import Sleeping
from llm_router.host.crew.starting import Starting
from llm_router.host.crew.stopping import Stopping
from llm_router.host.crew.watch import Watch
from llm_router.host.desk import Lease
from llm_router.host.history import History, Load
from llm_router.host.machine import ports
from llm_router.host.machine.gpus import Gauge
from llm_router.host.machine.memory import Gate
from llm_router.host.machine.tasks import Tasks
from llm_router.host.machine.vitals import vitals_of
from llm_router.host.road.asking import Asker
from llm_router.host.road.upstream import Pools
from llm_router.host.state import StateFolder
from llm_router.host.supervisors.service import ServiceSupervisor
from llm_router.host.supervisors.supervisor import Supervisor

log = logging.getLogger(__name__)

#: So many last lines of the log explain a failure: what follows a root cause may be long.
TAIL_LINES: Final = 200


class LocalCrew:
    """Runs instances as processes of this machine. Lives within one running loop; ``tell`` takes late news."""

    def __init__(
        self,
        config: Config,
        supervisor: Supervisor,
        pools: Pools,
        gauge: Gauge,
        tasks: Tasks,
        state: StateFolder,
        *,
        history: History | None = None,
        gate: Gate | None = None,
        services: ServiceSupervisor | None = None,
        asker: Asker | None = None,
    ) -> None:
        self.config = config
        self._supervisor = supervisor
        self._asker = asker or Asker(pools)
        self._tasks = tasks
        self._state = state
        self._gauge = gauge
        self._history = history
        self._gate = gate or Gate(gauge)
        existing = Existing(services)
        self._starting = Starting(supervisor, gauge, self._gate, existing, state)
        self._sleeping = Sleeping(self._gate)
        self._stopping = Stopping(supervisor, pools, self._asker, self._gate)
        self._adoption = Adoption(supervisor, services, existing, self._asker, gauge, self._gate, state)
        self._places: dict[InstanceId, Place] = {}
        self._checked: dict[str, Place] = {}
        self.tell: Callable[[ev.Event], None] = lambda event: log.error("nobody listens to %r", event)

    # -- what the scheduler asks for

    async def check(self, command: do.Check) -> ev.Checked:
        """All that can be checked while the resident still runs."""
        found = await self._starting.check(self.config, command, self._ours())
        if isinstance(found, Failure):
            return ev.Checked(command.instance, found)
        # A start that was checked and never came is replaced here; a check that took longer than a later one is late.
        last = self._checked.get(found.model)
        if last is None or _number(last.instance) < _number(found.instance):
            self._checked[found.model] = found
        return ev.Checked(command.instance)

    async def start(self, command: do.Start) -> ev.Started | ev.StartFailed:
        place = self._checked.pop(str(command.model))
        assert place.instance == command.instance, f"{command.instance} was not checked"
        assert place.devices == command.devices, f"{command.instance} was checked for other devices"
        self._places[command.instance] = place
        place.began = asyncio.get_running_loop().time()
        try:
            self._state.remember_serial(_number(command.instance))
            failure = await self._starting.start(self.config, place, self._ours())
        finally:
            place.settled.set()
        return ev.StartFailed(command.instance, failure) if failure else ev.Started(command.instance)

    async def prove(self, command: do.Prove, news: Callable[[ev.LoadProgressed], None]) -> ev.Proved | ev.StartFailed:
        place = self._places[command.instance]
        # One that an earlier router put to sleep would never make a token.
        probe = self._wake(place, news) if place.asleep else self._prove(place, news)
        result = await self._probed(place, "start", probe)
        if isinstance(result, Failure):
            return ev.StartFailed(command.instance, result)
        self._watch(place)
        measured = self._gate.measure(place.ledger, self._pids(place))
        if measured is not None and place.model in self.config.models:
            measured = replace(measured, parked=shelf.parked_bytes(self.config.models[place.model]))
        return ev.Proved(command.instance, measured)

    async def stop(self, command: do.Stop) -> ev.Gone:
        place = self._places.get(command.instance)
        if place is None:
            return ev.Gone(command.instance)
        dirty, target = await self._stopping.stop(place, polite=command.polite, grace_s=self._grace(place))
        for device in dirty:
            self._tasks.spawn(f"clean {device}", self._clean(device, target))
        del self._places[command.instance]
        return ev.Gone(command.instance, dirty)

    async def park(self, command: do.Park) -> ev.Parked | ev.ParkFailed:
        place = self._places[command.instance]
        if place.watching is not None:
            # Its second opinion is a token, which a sleeping engine may die of.
            place.watching.cancel()
            place.watch = place.watching = None
        place.began = asyncio.get_running_loop().time()
        entry = self.config.models.get(place.model)
        sleeping = self._sleeping.sleep(
            place,
            self._eyes(place),
            lambda: self._pids(place),
            most=shelf.parked_bytes(entry) if entry else 0,
            limit_s=self._limit(place),
        )
        result = await self._probed(place, "sleep", sleeping)
        if isinstance(result, Failure):
            log.warning("%s is stopped instead of parked: %s", command.instance, result.cause)
            return ev.ParkFailed(command.instance)
        return ev.Parked(command.instance)

    async def wake(self, command: do.Wake, news: Callable[[ev.LoadProgressed], None]) -> ev.Woken | ev.WakeFailed:
        place = self._places[command.instance]
        place.began = asyncio.get_running_loop().time()
        result = await self._probed(place, "wake", self._wake(place, news))
        if isinstance(result, Failure):
            return ev.WakeFailed(command.instance, result)
        self._watch(place)
        return ev.Woken(command.instance)

    async def ended(self, instance: InstanceId) -> ev.Exited | None:
        place = self._places.get(instance)
        if place is None or place.handle is None:
            return None
        exit_ = await self._supervisor.watch(place.handle)
        if place.stopping or exit_.asked:
            return None
        return ev.Exited(instance, self._explain(place, Ended(exit_.code)))

    # -- what the conductor wants to know

    def lease(self, instance: InstanceId, ticket: TicketId, arrived: float, now: float) -> Lease:
        place = self._places[instance]
        place.take_new_key()
        loaded = 0.0 if place.proved is None else max(0.0, place.proved - max(arrived, place.began))
        return Lease(
            ticket=ticket,
            instance=instance,
            model=ModelName(place.model),
            host=place.job.host,
            port=place.job.port,
            dialect=place.dialect,
            waited_s=now - arrived,
            loaded_s=loaded,
        )

    def begun(self, instance: InstanceId, ticket: TicketId, moved: Callable[[], int | None]) -> None:
        self._places[instance].leases[ticket] = moved

    def over(self, instance: InstanceId, ticket: TicketId, outcome: Outcome) -> None:
        place = self._places.get(instance)
        if place is not None:
            place.leases.pop(ticket, None)
            if place.watch is not None:
                place.watch.over(outcome)

    def places(self) -> Mapping[InstanceId, Place]:
        """The instances there are on this machine, also those that come and go."""
        return self._places

    async def kill_all(self) -> None:
        """Patience is over: end every instance at once."""
        handles = [place.handle for place in self._places.values() if place.handle is not None]
        await asyncio.gather(*(self._supervisor.stop(handle, 0.0) for handle in handles), return_exceptions=True)

    async def aclose(self) -> None:
        """Let go of the supervisor; what still runs is left to its policy."""
        await self._supervisor.aclose()

    def _grace(self, place: Place) -> float | None:
        """Seconds that the engine gets to end, as configured. A reload may have removed its model."""
        return self.config.grace(place.model) if place.model in self.config.models else None

    async def adopt(self) -> list[ev.Adopted]:
        """Engines that run already and are as the configuration wants them; they are proved next."""
        found = await self._adoption.find(self.config)
        self._places.update((place.instance, place) for place in found)
        return [ev.Adopted(place.instance, ModelName(place.model), place.devices) for place in found]

    # -- the parts of it

    async def _probed(self, place: Place, kind: str, probe: Coroutine[None, None, Proof | Failure]) -> Proof | Failure:
        """What comes of asking it, which a stop may end. Starts and wakes are remembered as loads."""
        place.proving = self._tasks.spawn(f"{kind}: ask {place.instance}", probe)
        try:
            result = await place.proving
        except asyncio.CancelledError:
            if not place.stopping:
                raise
            return Failure(FailureKind.crashed, f"{place.model} was stopped meanwhile")
        now = asyncio.get_running_loop().time()
        if isinstance(result, Proof) and kind != "sleep":
            place.proved = now
        if self._history is not None and kind != "sleep":
            cause = result.cause if isinstance(result, Failure) else None
            phases = result.phases if isinstance(result, Proof) else {}
            self._history.record_load(Load(place.model, place.revision, kind, now - place.began, phases, cause))
        return result

    async def _prove(self, place: Place, news: Callable[[ev.LoadProgressed], None]) -> Proof | Failure:
        return await prove(
            place.engine,
            place.job,
            self._eyes(place),
            limits=Limits(total_s=self._limit(place), silent_s=self.config.server.load_silence),
            history=await self._past(place, "start"),
            weights=await asyncio.to_thread(weights_of, place.job),
            news=_teller(place, news),
        )

    async def _wake(self, place: Place, news: Callable[[ev.LoadProgressed], None]) -> Proof | Failure:
        return await self._sleeping.wake(
            place,
            self._eyes(place),
            lambda: self._pids(place),
            limit_s=self._limit(place),
            history=await self._past(place, "wake"),
            news=_teller(place, news),
        )

    def _limit(self, place: Place) -> float:
        known = place.model in self.config.models
        return self.config.load_timeout(place.model) if known else self.config.server.load_timeout

    async def _past(self, place: Place, kind: str) -> list[float]:
        return [] if self._history is None else await self._history.load_seconds(place.model, place.revision, kind)

    def _watch(self, place: Place) -> None:
        section = self.config.server
        place.watch = Watch(
            place.engine,
            place.job,
            self._asker.ask,
            place.leases,
            log=lambda: _latest(place),
            vitals=lambda: self._vitals(place),
            works=self._works,
            look_s=section.look_every,
            quiet_s=section.answer_silence,
        )
        place.watching = self._tasks.spawn(f"look after {place.instance}", self._look_after(place, place.watch))

    def _eyes(self, place: Place) -> Eyes:
        """What the probe sees of a living instance."""
        handle, tail = place.handle, place.tail
        assert handle is not None
        assert tail is not None

        async def ended() -> Ended:
            code = (await self._supervisor.watch(handle)).code
            tail.finish()
            return Ended(code)

        return Eyes(
            ask=self._asker.ask,
            ended=ended,
            log=tail.read_new,
            tail=lambda: tail.tail(TAIL_LINES),
            owned=lambda port: ports.owned_by(port, self._supervisor.pids(handle), place.job.host),
            vitals=lambda: vitals_of(self._supervisor.pids(handle)),
            stream=self._asker.stream,
        )

    def _vitals(self, place: Place) -> Vitals | None:
        """Of one that answers; its processors may have little to do while its GPUs work."""
        with suppress(OSError):  # no descriptor is left: nobody can tell
            return vitals_of(self._pids(place), gpu=any(map(self._gauge.computes, place.devices)))
        return None

    def _works(self, silent: tuple[TicketId, ...]) -> None:
        """The desk sees bytes only; an engine that works on an answer has not let it stall."""
        self.tell(ev.Progressed(silent[0], silent[1:]))

    async def _look_after(self, place: Place, watch: Watch) -> None:
        self.tell(ev.Sickened(place.instance, await watch.run()))

    async def _clean(self, device: DeviceId, target: Mapping[DeviceId, int]) -> None:
        await self._gate.clean(device, target)
        self.tell(ev.Cleaned(device))

    def _ours(self) -> frozenset[int]:
        return frozenset(place.job.port for place in self._places.values() if place.handle is not None)

    def _pids(self, place: Place) -> frozenset[int]:
        return self._supervisor.pids(place.handle) if place.handle is not None else frozenset()

    def _explain(self, place: Place, ended: Ended | None) -> Failure:
        assert place.tail is not None, "only what was started can end"
        place.tail.finish()
        return place.engine.explain(place.job, ended, place.tail.tail(TAIL_LINES))


def _latest(place: Place) -> Sequence[str]:
    """The lines that it wrote since somebody wanted them last; none while they cannot be read."""
    with suppress(OSError):
        return place.tail.latest() if place.tail is not None else ()
    return ()


def _teller(place: Place, news: Callable[[ev.LoadProgressed], None]) -> News:
    def tell(phase: str, percent: float | None, left_s: float | None) -> None:
        news(ev.LoadProgressed(place.instance, phase, percent, left_s))

    return tell


def _number(instance: InstanceId) -> int:
    """The 8 of ``qwen#8``."""
    return int(instance.rpartition("#")[2])
