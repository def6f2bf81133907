"""The crew: carries out the scheduler's commands on this machine, one instance at a time.

For each instance it knows the job, the process, the log and the measured memory, from the check to the gate
after the stop. It starts and stops what it is told to, and reports; it never decides whom.
"""

import asyncio
import logging
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from llm_router.config import shelf
from llm_router.config.load import Config
from llm_router.core import commands as do
from llm_router.core import events as ev
from llm_router.core.words import DeviceId, Failure, FailureKind, InstanceId, ModelName, Outcome, TicketId
from llm_router.engines.engine import Ended, Engine, Job
from llm_router.engines.serviced import Serviced
from llm_router.host import ports
from llm_router.host.desk import Lease
from llm_router.host.existing import Existing
from llm_router.host.gpus import Gauge
from llm_router.host.history import History, Load
from llm_router.host.logs import LogTail
from llm_router.host.memory import Gate, Ledger
from llm_router.host.prechecks import unmet, weights_of
from llm_router.host.probe import Eyes, Limits, Proof, prove
from llm_router.host.programs import Programs
from llm_router.host.service.installation import KeyFile
from llm_router.host.state import StateFolder
from llm_router.host.supervisors.service import ServiceSupervisor
from llm_router.host.supervisors.supervisor import Handle, Supervisor, SupervisorError
from llm_router.host.tasks import Tasks
from llm_router.host.upstream import Pools
from llm_router.host.vitals import vitals_of
from llm_router.host.watch import Watch
from llm_router.wire.dialect import Dialect

log = logging.getLogger(__name__)

#: A port must be refused within this time after the last process is gone (seconds).
PORT_LIMIT_S: Final = 10.0
#: An engine that an earlier router left and nobody wants gets so long to end (seconds).
LEFTOVER_GRACE_S: Final = 5.0
#: So many last lines of the log explain a failure.
TAIL_LINES: Final = 60
#: A process that survives its kill is tried again this often (seconds).
KILL_AGAIN_S: Final = 5.0


@dataclass(slots=True)
class Place:
    """One instance on this machine, from its check to its end. Times are the loop's, in seconds."""

    instance: InstanceId
    model: str
    revision: str
    devices: tuple[DeviceId, ...]
    engine: Engine
    job: Job
    dialect: Dialect
    began: float
    proved: float | None = None
    handle: Handle | None = None
    tail: LogTail | None = None
    ledger: Ledger = field(default_factory=Ledger)
    #: Set once the start has either given a handle or failed, so that a stop knows what there is to stop.
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    #: The proof under way, which a stop ends first.
    proving: asyncio.Task[Proof | Failure] | None = None
    stopping: bool = False
    watch: Watch | None = None
    watching: asyncio.Task[None] | None = None
    #: Seconds spent in each phase of the start.
    phases: dict[str, float] = field(default_factory=dict)
    #: The keys of an existing installation, whose owner may change them at any time.
    keys: KeyFile | None = None
    #: The bytes passed by each lease, for the watch.
    leases: dict[TicketId, Callable[[], int]] = field(default_factory=dict)


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
    ) -> None:
        self.config = config
        self._supervisor = supervisor
        self._pools = pools
        self._gauge = gauge
        self._tasks = tasks
        self._state = state
        self._history = history
        self._gate = gate or Gate(gauge)
        self._existing = Existing(services)
        self._services = services
        self._programs = Programs(state.path / "programs.json")
        self._places: dict[InstanceId, Place] = {}
        self._checked: dict[str, Place] = {}
        self.tell: Callable[[ev.Event], None] = lambda event: log.error("nobody listens to %r", event)

    # -- what the scheduler asks for

    async def check(self, command: do.Check) -> ev.Checked:
        """All that can be checked while the resident still runs."""
        model = str(command.model)
        directory = self._state.path / "work" / _file_name(command.instance)
        try:
            engine = shelf.engine(self.config, model)
            indices = self._gauge.indices(command.devices)
        except LookupError as error:
            return ev.Checked(command.instance, Failure(FailureKind.bad_argument, str(error)))
        job = shelf.job(
            self.config,
            model,
            port=self._port(model),
            devices=indices,
            device_ids=command.devices,
            directory=str(directory),
            key=secrets.token_hex(16),
        )
        asking = engine.help_argv(job)
        if asking is not None:
            job = replace(job, flags=await self._programs.flags(asking, job.cwd))
        keys = None
        if isinstance(engine, Serviced):
            keys = await self._existing.keys(engine, job)
            job = replace(job, key=keys.keys().api if keys else None)
        failure = await asyncio.to_thread(unmet, engine, job) or await self._hindrance(engine, job)
        if failure is not None:
            return ev.Checked(command.instance, failure)
        try:
            engine.launch(job)
        except ValueError as error:
            return ev.Checked(command.instance, Failure(FailureKind.bad_argument, str(error)))
        # A start that was checked and never came is replaced here.
        self._checked[model] = Place(
            instance=command.instance,
            model=model,
            revision=shelf.revision(self.config, model),
            devices=command.devices,
            engine=engine,
            job=job,
            dialect=engine.dialect(job),
            began=asyncio.get_running_loop().time(),
            keys=keys,
        )
        return ev.Checked(command.instance)

    async def start(self, command: do.Start) -> ev.Started | ev.StartFailed:
        place = self._checked.pop(str(command.model))
        assert place.instance == command.instance, f"{command.instance} was not checked"
        self._places[command.instance] = place
        place.began = asyncio.get_running_loop().time()
        self._state.remember_serial(int(command.instance.rpartition("#")[2]))
        try:
            failure = await self._start(place, command)
        finally:
            place.settled.set()
        return ev.StartFailed(command.instance, failure) if failure else ev.Started(command.instance)

    async def prove(self, command: do.Prove, news: Callable[[ev.LoadProgressed], None]) -> ev.Proved | ev.StartFailed:
        place = self._places[command.instance]
        place.proving = self._tasks.spawn(f"ask {command.instance}", self._prove(place, news))
        try:
            result = await place.proving
        except asyncio.CancelledError:
            if not place.stopping:
                raise
            return ev.StartFailed(
                command.instance, Failure(FailureKind.crashed, f"{place.model} was stopped while it loaded")
            )
        if isinstance(result, Failure):
            self._remember(place, result)
            return ev.StartFailed(command.instance, result)
        place.phases.update(result.phases)
        place.proved = asyncio.get_running_loop().time()
        self._remember(place, None)
        place.watch = Watch(place.engine, place.job, self._pools.ask, place.leases)
        place.watching = self._tasks.spawn(f"look after {command.instance}", self._look_after(place, place.watch))
        return ev.Proved(command.instance, self._gate.measure(place.ledger, self._pids(place)))

    async def stop(self, command: do.Stop) -> ev.Gone:
        place = self._places.get(command.instance)
        if place is None:
            return ev.Gone(command.instance)
        place.stopping = True
        for task in (place.proving, place.watching):
            if task is not None:
                task.cancel()
        await place.settled.wait()
        target = self._gate.target(place.ledger)
        if place.handle is not None:
            await self._end(place, place.handle, polite=command.polite)
        self._pools.close(place.job.host, place.job.port)
        await self._port_refused(place.job)
        dirty = await self._gate.back(target)
        for device in dirty:
            self._tasks.spawn(f"clean {device}", self._clean(device, target))
        del self._places[command.instance]
        await asyncio.to_thread(shutil.rmtree, place.job.directory, ignore_errors=True)
        return ev.Gone(command.instance, dirty)

    async def park(self, command: do.Park) -> ev.ParkFailed:
        """No engine here can sleep yet in a way that can be trusted: it is stopped instead."""
        return ev.ParkFailed(command.instance)

    async def wake(self, command: do.Wake, news: Callable[[ev.LoadProgressed], None]) -> ev.WakeFailed:
        del news
        return ev.WakeFailed(
            command.instance, Failure(FailureKind.unsupported, f"{command.instance} is not parked here")
        )

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
        self._take_new_key(place)
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

    def begun(self, instance: InstanceId, ticket: TicketId, moved: Callable[[], int]) -> None:
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

    async def adopt(self) -> list[ev.Adopted]:
        """Engines of an earlier router that live: taken over if their model is unchanged, else stopped."""
        adopted = []
        for handle in await self._supervisor.find():
            place = self._found(handle)
            if place is None:
                log.info("%s is left from an earlier router and not wanted as it is: it is stopped", handle.instance)
                await self._supervisor.stop(handle, LEFTOVER_GRACE_S)
                continue
            adopted.append(await self._take_over(place))
        for model, unit in await self._existing.running(self.config, self._pools.ask):
            if (place := await self._claim(model, unit)) is not None:
                log.info("%s runs already and serves %s: it is taken over", unit, model)
                adopted.append(await self._take_over(place))
        return adopted

    # -- the parts of it

    async def _take_over(self, place: Place) -> ev.Adopted:
        if isinstance(place.engine, Serviced):
            place.keys = await self._existing.keys(place.engine, place.job)
            self._take_new_key(place)
        self._places[place.instance] = place
        return ev.Adopted(place.instance, ModelName(place.model), place.devices)

    async def _claim(self, model: str, unit: str) -> Place | None:
        """The place of a unit that somebody else has started; which devices it is on, nobody said: all of them."""
        assert self._services is not None
        serial = self._state.serial + 1
        self._state.remember_serial(serial)
        devices = () if self.config.models[model].gpus == 0 else [device.id for device in self._gauge.devices()]
        _, backend = self.config.backend_of(model)
        note = {
            "model": model,
            "revision": shelf.revision(self.config, model),
            "port": str(backend.port or 0),
            "devices": ",".join(devices),
        }
        handle = await self._services.claim(InstanceId(f"{model}#{serial}"), unit, note)
        return None if handle is None else self._found(handle)

    async def _hindrance(self, engine: Engine, job: Job) -> Failure | None:
        """What of the machine stands against a start. The port of an existing unit may well be its own still."""
        if isinstance(engine, Serviced):
            return await self._existing.unmet(engine, job)
        return await self._port_failure(job)

    def _take_new_key(self, place: Place) -> None:
        """The keys of an existing installation count as they are now."""
        if place.keys is not None and (key := place.keys.keys().api) != place.job.key:
            place.job = replace(place.job, key=key)
            place.dialect = place.engine.dialect(place.job)
            if place.watch is not None:
                place.watch.job = place.job

    async def _start(self, place: Place, command: do.Start) -> Failure | None:
        try:
            await self._existing.make_room(self.config)
        except SupervisorError as error:
            return Failure(FailureKind.crashed, str(error))
        port = self._port(place.model)
        place.job = replace(place.job, port=port)
        self._take_new_key(place)
        failure = await self._port_failure(place.job)
        if failure is not None:
            return failure
        try:
            launch = place.engine.launch(place.job)
            place.ledger = self._gate.opened(command.devices)
            place.handle = await self._supervisor.start(command.instance, launch, _note(place))
        except ValueError as error:
            return Failure(FailureKind.bad_argument, str(error))
        except SupervisorError as error:
            return Failure(FailureKind.missing_program, str(error))
        place.dialect = place.engine.dialect(place.job)
        place.tail = LogTail(place.handle.log, secrets=(place.job.key,) if place.job.key else ())
        return None

    async def _prove(self, place: Place, news: Callable[[ev.LoadProgressed], None]) -> Proof | Failure:
        handle, tail = place.handle, place.tail
        assert handle is not None
        assert tail is not None

        async def ended() -> Ended:
            code = (await self._supervisor.watch(handle)).code
            tail.finish()
            return Ended(code)

        def tell(phase: str, percent: float | None, left_s: float | None) -> None:
            news(ev.LoadProgressed(place.instance, phase, percent, left_s))

        eyes = Eyes(
            ask=self._pools.ask,
            ended=ended,
            log=tail.read_new,
            tail=lambda: tail.tail(TAIL_LINES),
            owned=lambda port: ports.owned_by(port, self._supervisor.pids(handle), place.job.host),
            vitals=lambda: vitals_of(self._supervisor.pids(handle)),
        )
        past = [] if self._history is None else await self._history.load_seconds(place.model, place.revision)
        return await prove(
            place.engine,
            place.job,
            eyes,
            limits=Limits(total_s=self.config.load_timeout(place.model)),
            history=past,
            weights=await asyncio.to_thread(weights_of, place.job),
            news=tell,
        )

    async def _end(self, place: Place, handle: Handle, *, polite: bool) -> None:
        farewell = place.engine.farewell(place.job)
        if polite:
            for question in farewell.first:
                await self._pools.ask(place.job.host, place.job.port, question)
        grace_s = farewell.grace_s if polite else 0.0
        while True:
            try:
                await self._supervisor.stop(handle, grace_s)
            except SupervisorError as error:
                log.warning("%s; trying again in %.0f s, its memory is not used meanwhile", error, KILL_AGAIN_S)
                await asyncio.sleep(KILL_AGAIN_S)
                grace_s = 0.0
            else:
                return

    async def _port_refused(self, job: Job) -> None:
        end = asyncio.get_running_loop().time() + PORT_LIMIT_S
        while not await ports.is_refused(job.host, job.port):
            if asyncio.get_running_loop().time() > end:
                log.warning(
                    "port %d still answers after its engine is gone: held by %s", job.port, ports.held_by(job.port)
                )
                return
            await asyncio.sleep(0.05)

    async def _look_after(self, place: Place, watch: Watch) -> None:
        self.tell(ev.Sickened(place.instance, await watch.run()))

    async def _clean(self, device: DeviceId, target: Mapping[DeviceId, int]) -> None:
        await self._gate.clean(device, target)
        self.tell(ev.Cleaned(device))

    def _port(self, model: str) -> int:
        """The backend's fixed port unless an instance of ours has it, else a free one."""
        _, backend = self.config.backend_of(model)
        if backend.port and shelf.service(self.config, model) is not None:
            return backend.port
        ours = {place.job.port for place in self._places.values() if place.handle is not None}
        return backend.port if backend.port and backend.port not in ours else ports.free_port()

    async def _port_failure(self, job: Job) -> Failure | None:
        if await ports.is_refused(job.host, job.port):
            return None
        return Failure(
            FailureKind.port_in_use,
            f"port {job.port} is in use by {ports.held_by(job.port) or 'an unknown process'}; stop it or configure another port",
        )

    def _pids(self, place: Place) -> frozenset[int]:
        return self._supervisor.pids(place.handle) if place.handle is not None else frozenset()

    def _explain(self, place: Place, ended: Ended | None) -> Failure:
        assert place.tail is not None, "only what was started can end"
        place.tail.finish()
        return place.engine.explain(place.job, ended, place.tail.tail(TAIL_LINES))

    def _remember(self, place: Place, failure: Failure | None) -> None:
        if self._history is not None:
            seconds = asyncio.get_running_loop().time() - place.began
            cause = None if failure is None else failure.cause
            self._history.record_load(Load(place.model, place.revision, "start", seconds, place.phases, cause))

    def _found(self, handle: Handle) -> Place | None:
        """The place of a found engine, if it is what the configuration wants."""
        model = handle.note.get("model", "")
        if model not in self.config.models or handle.note.get("revision") != shelf.revision(self.config, model):
            return None
        devices = tuple(DeviceId(device) for device in handle.note.get("devices", "").split(",") if device)
        try:
            indices = self._gauge.indices(devices)
            engine = shelf.engine(self.config, model)
        except LookupError:
            return None
        job = shelf.job(
            self.config,
            model,
            port=int(handle.note.get("port", "0")),
            devices=indices,
            device_ids=devices,
            directory=handle.note.get("directory", ""),
            key=handle.note.get("key") or None,
        )
        place = Place(
            instance=handle.instance,
            model=model,
            revision=handle.note["revision"],
            devices=devices,
            engine=engine,
            job=job,
            dialect=engine.dialect(job),
            began=asyncio.get_running_loop().time(),
            handle=handle,
            tail=LogTail(handle.log, secrets=(job.key,) if job.key else ()),
            ledger=self._gate.recalled(devices, self._supervisor.pids(handle)),
        )
        place.settled.set()
        return place


def _note(place: Place) -> dict[str, str]:
    """What the next router must know to take the instance over. It lies in the state folder, which is ours alone."""
    return {
        "model": place.model,
        "revision": place.revision,
        "port": str(place.job.port),
        "devices": ",".join(place.devices),
        "directory": place.job.directory,
        "key": place.job.key or "",
    }


def _file_name(instance: InstanceId) -> str:
    """The instance's id as a folder's name; models may be called anything."""
    return "".join(letter if letter.isalnum() or letter in "-._" else "-" for letter in instance).lstrip(".") or "-"
