"""Engines that run already when the router starts: those of an earlier router, and units that somebody else started.

It knows which of them can be taken over as they are. Those of an earlier router that cannot are stopped; what is
not ours is left alone.
"""

import asyncio
import logging
from typing import Final

from llm_router.config import shelf
from llm_router.config.load import Config
from llm_router.core.words import InstanceId
from llm_router.engines.serviced import Serviced
from llm_router.host.crew.existing import Existing
from llm_router.host.crew.place import Place, noted
from llm_router.host.machine.gpus import Gauge
from llm_router.host.machine.memory import Gate
from llm_router.host.road.asking import Asker
from llm_router.host.state import StateFolder
from llm_router.host.supervisors.service import ServiceSupervisor
from llm_router.host.supervisors.supervisor import Handle, Supervisor

log = logging.getLogger(__name__)

#: An engine that an earlier router left and nobody wants gets so long to end (seconds).
LEFTOVER_GRACE_S: Final = 5.0


class Adoption:
    """Finds what lives. ``services`` ``None``: there is no systemd to ask."""

    def __init__(
        self,
        supervisor: Supervisor,
        services: ServiceSupervisor | None,
        existing: Existing,
        asker: Asker,
        gauge: Gauge,
        gate: Gate,
        state: StateFolder,
    ) -> None:
        self._supervisor = supervisor
        self._services = services
        self._existing = existing
        self._asker = asker
        self._gauge = gauge
        self._gate = gate
        self._state = state

    async def find(self, config: Config) -> list[Place]:
        """Engines of an earlier router that live: to be taken over if their model is unchanged, else stopped."""
        found = []
        for handle in await self._supervisor.find():
            place = self._place(config, handle)
            if place is None:
                log.info("%s is left from an earlier router and not wanted as it is: it is stopped", handle.instance)
                await self._supervisor.stop(handle, LEFTOVER_GRACE_S)
                continue
            found.append(place)
        for model, unit in await self._existing.running(config, self._asker.ask):
            if (place := await self._claim(config, model, unit)) is not None:
                log.info("%s runs already and serves %s: it is taken over", unit, model)
                found.append(place)
        for place in found:
            if isinstance(place.engine, Serviced):
                place.keys = await self._existing.keys(place.engine, place.job)
                place.take_new_key()
        return found

    async def _claim(self, config: Config, model: str, unit: str) -> Place | None:
        """The place of a unit that somebody else has started; which devices it is on, nobody said: all of them."""
        assert self._services is not None
        serial = self._state.serial + 1
        self._state.remember_serial(serial)
        devices = () if config.models[model].gpus == 0 else [device.id for device in self._gauge.devices()]
        _, backend = config.backend_of(model)
        note = {
            "model": model,
            "revision": shelf.revision(config, model),
            "port": str(backend.port or 0),
            "devices": ",".join(devices),
        }
        handle = await self._services.claim(InstanceId(f"{model}#{serial}"), unit, note)
        return None if handle is None else self._place(config, handle)

    def _place(self, config: Config, handle: Handle) -> Place | None:
        place = noted(config, handle, self._gauge.indices, asyncio.get_running_loop().time())
        if place is not None:
            place.ledger = self._gate.recalled(place.devices, self._supervisor.pids(handle))
        return place
