"""From a command to a living process: what is checked while the resident still runs, and the start itself.

It knows the order of the checks and who may have which port. It proves nothing, and stops nobody but existing
units that are in the way.
"""

import asyncio
import logging
import secrets
from collections.abc import Collection
from dataclasses import replace

from llm_router.config import shelf
from llm_router.config.load import Config
from llm_router.core import commands as do
from llm_router.core.words import Failure, FailureKind
from llm_router.engines.engine import Engine, Job
from llm_router.engines.serviced import Serviced
from llm_router.formats.estimate import fits
from llm_router.host.crew.existing import Existing, with_key
from llm_router.host.crew.place import Place, folder_name
from llm_router.host.crew.prechecks import too_large, unmet
from llm_router.host.machine import ports
from llm_router.host.machine.gpus import Gauge
from llm_router.host.machine.memory import Gate
from llm_router.host.machine.programs import Programs
from llm_router.host.portrait import portray
from llm_router.host.state import StateFolder
from llm_router.host.supervisors.supervisor import Supervisor, SupervisorError

log = logging.getLogger(__name__)


class Starting:
    """Checks and starts. ``ours`` are the ports of the instances there are; the configuration may change between."""

    def __init__(
        self, supervisor: Supervisor, gauge: Gauge, gate: Gate, existing: Existing, state: StateFolder
    ) -> None:
        self._supervisor = supervisor
        self._gauge = gauge
        self._gate = gate
        self._existing = existing
        self._state = state
        self._programs = Programs(state.path / "programs.json")

    async def check(self, config: Config, command: do.Check, ours: Collection[int]) -> Place | Failure:
        """All that can be checked while the resident still runs (R14)."""
        model = str(command.model)
        try:
            engine = shelf.engine(config, model)
            indices = self._gauge.indices(command.devices)
        except LookupError as error:
            return Failure(FailureKind.bad_argument, str(error))
        job = shelf.job(
            config,
            model,
            port=port_for(config, model, ours),
            devices=indices,
            device_ids=command.devices,
            directory=str(self._state.path / "work" / folder_name(command.instance)),
            key=secrets.token_hex(16),
        )
        asking = engine.help_argv(job)
        if asking is not None:
            heard = await self._programs.ask(asking, job.cwd)
            if heard.fault is not None:
                return Failure(FailureKind.missing_program, f"cannot start {model}: {heard.fault}")
            job = replace(job, flags=heard.flags)
        keys = None
        if isinstance(engine, Serviced):
            keys = await self._existing.keys(engine, job)
            job = with_key(job, keys)
        failure = (
            await asyncio.to_thread(unmet, engine, job)
            or await asyncio.to_thread(self._too_large, config, engine, job)
            or await self._hindrance(config, engine, job, ours)
        )
        if failure is not None:
            return failure
        try:
            engine.launch(job)
        except ValueError as error:
            return Failure(FailureKind.bad_argument, str(error))
        return Place(
            instance=command.instance,
            model=model,
            revision=shelf.revision(config, model),
            devices=command.devices,
            engine=engine,
            job=job,
            dialect=engine.dialect(job),
            began=asyncio.get_running_loop().time(),
            keys=keys,
        )

    async def start(self, config: Config, place: Place, ours: Collection[int]) -> Failure | None:
        """Start what was checked, on a port that is free now; its handle and log are in the place then."""
        try:
            await self._existing.make_room(config)
        except SupervisorError as error:
            return Failure(FailureKind.crashed, str(error))
        place.job = replace(place.job, port=port_for(config, place.model, ours))
        place.take_new_key()
        failure = await _port_failure(place.job)
        if failure is not None:
            return failure
        try:
            launch = place.engine.launch(place.job)
            place.ledger = self._gate.opened(place.devices)
            handle = await self._supervisor.start(place.instance, launch, place.note())
        except ValueError as error:
            return Failure(FailureKind.bad_argument, str(error))
        except SupervisorError as error:
            return Failure(FailureKind.crashed if error.passing else FailureKind.missing_program, str(error))
        place.dialect = place.engine.dialect(place.job)
        place.follow(handle, launch.secrets)
        return None

    def _too_large(self, config: Config, engine: Engine, job: Job) -> Failure | None:
        """Refuses what can never fit. What only an estimate speaks against is said, and tried."""
        if isinstance(engine, Serviced):
            # The operator's command line may say anything about where its weights lie.
            return None
        totals = {device.id: device.total for device in self._gauge.devices()}
        mine = [totals[device] for device in job.device_ids if device in totals]
        failure = too_large(engine, job, mine)
        estimated = portray(config, job.model, len(totals)).estimated if job.devices and failure is None else None
        if estimated is not None and not fits(estimated, mine):
            log.warning("%s may not fit on its devices: %s", job.model, "; ".join(estimated.explain))
        return failure

    async def _hindrance(self, config: Config, engine: Engine, job: Job, ours: Collection[int]) -> Failure | None:
        """What of the machine stands against a start. The port of an existing unit may well be its own still."""
        if isinstance(engine, Serviced):
            return await self._existing.unmet(config, engine, job, ours)
        return await _port_failure(job)


def port_for(config: Config, model: str, ours: Collection[int]) -> int:
    """The backend's fixed port unless an instance of ours has it, else a free one."""
    _, backend = config.backend_of(model)
    if backend.port and shelf.service(config, model) is not None:
        return backend.port
    return backend.port if backend.port and backend.port not in ours else ports.free_port()


async def _port_failure(job: Job) -> Failure | None:
    if await ports.is_refused(job.host, job.port):
        return None
    return Failure(
        FailureKind.port_in_use,
        f"port {job.port} is in use by {ports.held_by(job.port) or 'an unknown process'}; stop it or configure another port",
    )
