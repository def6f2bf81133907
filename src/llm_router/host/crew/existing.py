"""What the crew must know of existing units: whether a start can succeed, their keys, and which of them run already.

It asks the units' supervisor and the engines in them. It starts nothing; what must go to make room, it stops.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace

from llm_router.config import shelf
from llm_router.config.load import Config
from llm_router.core.words import Failure, FailureKind
from llm_router.engines.engine import Answer, Job, Question, Verdict
from llm_router.engines.serviced import EDITED, Serviced
from llm_router.host.machine import ports, processes
from llm_router.host.service.installation import InstallationError, KeyFile
from llm_router.host.supervisors.service import ServiceSupervisor, Unclaimed
from llm_router.host.supervisors.supervisor import SupervisorError

log = logging.getLogger(__name__)

Ask = Callable[[str, int, Question], Awaitable[Answer]]


class Existing:
    """The units of one configuration. ``services`` ``None``: there is no systemd to ask."""

    def __init__(self, services: ServiceSupervisor | None) -> None:
        self._services = services

    async def unmet(self, config: Config, engine: Serviced, job: Job, ours: Collection[int]) -> Failure | None:
        """What stands against a start, before anybody is stopped for it. ``ours`` are our instances' ports."""
        if self._services is None:
            cause = f"cannot use {engine.service.unit}: this router does not speak to systemd"
            return Failure(FailureKind.bad_argument, cause)
        try:
            await self._services.check(engine.launch(job))
            strangers = await self._strangers(config, job, ours)
        except SupervisorError as error:
            return Failure(FailureKind.missing_program, str(error))
        if not strangers:
            return None
        who = ", ".join(processes.describe(pid) for pid in sorted(strangers))
        cause = f"cannot use {engine.service.unit}: its port {job.port} is in use by {who}; stop that first"
        return Failure(FailureKind.port_in_use, cause)

    async def _strangers(self, config: Config, job: Job, ours: Collection[int]) -> frozenset[int]:
        """Who listens on the port and will not go when room is made: neither an instance nor a unit of the shelf."""
        assert self._services is not None
        if job.port in ours or await ports.is_refused(job.host, job.port):
            return frozenset()
        holders = await asyncio.to_thread(ports.listener_pids, job.port)
        return holders - await self._services.processes_of(_units(config))

    async def keys(self, engine: Serviced, job: Job) -> KeyFile | None:
        """The installation's keys, ``None`` if its engine has none in a file, or its key is configured."""
        file = None if job.asks_for_key else engine.keys(job)
        if file is None or self._services is None:
            return None
        try:
            path = await self._services.find_file(engine.service.unit, file, engine.launch(job).edit)
        except (InstallationError, SupervisorError) as error:
            log.warning("%s; %s is asked without a key", error, engine.service.unit)
            return None
        found = KeyFile(path)
        await asyncio.to_thread(found.keys)
        return found

    async def make_room(self, config: Config) -> None:
        """Stop the units of the shelf that run and are no instance of ours. Raises ``SupervisorError``."""
        if self._services is not None and (names := _units(config)):
            await self._services.vacate(names)

    async def running(self, config: Config, ask: Ask) -> list[tuple[str, str]]:
        """The models, each with its unit, that somebody else has started already and that may be taken over."""
        if self._services is None or not (names := _units(config)):
            return []
        found = []
        try:
            for one in await self._services.unclaimed(names):
                model = await self._recognise(config, one, ask)
                if model is not None:
                    found.append((model, one.unit))
                else:
                    log.warning(
                        "%s runs, but not as a model of the configuration; it is stopped when room is needed", one.unit
                    )
        except SupervisorError as error:
            log.warning("cannot see which units run already: %s", error)
        return found

    async def _recognise(self, config: Config, one: Unclaimed, ask: Ask) -> str | None:
        """The model that the unit serves: by its command if that is a model's script, else by its engine's word."""
        candidates: dict[str, Serviced] = {}
        for model in config.models:
            engine = shelf.engine(config, model)
            if isinstance(engine, Serviced) and engine.service.unit == one.unit:
                candidates[model] = engine
        for model, engine in candidates.items():
            if engine.service.script and engine.service.script == one.state.argv:
                return model
        for model, engine in candidates.items():
            if await self._says_so(config, model, engine, ask):
                return model
        plain = [
            model for model, engine in candidates.items() if not engine.service.script and engine.name not in EDITED
        ]
        return plain[0] if len(plain) == 1 else None

    async def _says_so(self, config: Config, model: str, engine: Serviced, ask: Ask) -> bool:
        _, backend = config.backend_of(model)
        job = shelf.job(config, model, port=backend.port or 0, directory="")
        keys = await self.keys(engine, job)
        step = engine.identity(with_key(job, keys))
        if step is None:
            return False
        judged = step.judge(await ask(job.host, job.port, step.question))
        if judged.instead is not None:
            judged = step.judge(await ask(job.host, job.port, judged.instead))
        return judged.verdict is Verdict.yes


def with_key(job: Job, keys: KeyFile | None) -> Job:
    """The job with the key that the unit's engine asks for, if any: the configured one, or that of its files."""
    return job if job.asks_for_key else replace(job, key=keys.keys().api if keys else None)


def _units(config: Config) -> tuple[str, ...]:
    """The units that the configuration names, each once."""
    services = (shelf.service(config, model) for model in config.models)
    return tuple(dict.fromkeys(service.unit for service in services if service is not None))
