"""From a running instance to none: its farewell, its end, its port, its memory, its folder (R25).

It knows the order of an end and its limits. Who has to go, and why, is decided elsewhere.
"""

import asyncio
import logging
import shutil
from collections.abc import Mapping
from typing import Final

from llm_router.core.words import DeviceId
from llm_router.engines.engine import Job
from llm_router.host.crew.place import Place
from llm_router.host.machine import ports
from llm_router.host.machine.memory import Gate
from llm_router.host.road.asking import Asker
from llm_router.host.road.upstream import Pools
from llm_router.host.supervisors.supervisor import Handle, Supervisor, SupervisorError

log = logging.getLogger(__name__)

#: A port must be refused within this time after the last process is gone (seconds).
PORT_LIMIT_S: Final = 10.0
#: A process that survives its kill is tried again this often (seconds).
KILL_AGAIN_S: Final = 5.0


class Stopping:
    """Ends instances, one call each."""

    def __init__(self, supervisor: Supervisor, pools: Pools, asker: Asker, gate: Gate) -> None:
        self._supervisor = supervisor
        self._pools = pools
        self._asker = asker
        self._gate = gate

    async def stop(
        self, place: Place, *, polite: bool, grace_s: float | None = None
    ) -> tuple[frozenset[DeviceId], Mapping[DeviceId, int]]:
        """Returns when it is truly gone: the devices whose memory is not back, and what should be in use there.

        ``grace_s`` is what it gets to end when asked politely, ``None``: the engine's own usual time.
        """
        place.stopping = True
        for task in (place.proving, place.watching):
            if task is not None:
                task.cancel()
        await place.settled.wait()
        target = self._gate.target(place.ledger)
        stolen = False
        if place.handle is not None:
            stolen = ports.owned_by(place.job.port, self._supervisor.pids(place.handle), place.job.host) is False
            await self._end(place, place.handle, polite=polite, configured_s=grace_s)
        self._pools.close(place.job.host, place.job.port)
        if not stolen:
            # A stranger's port will not be refused for the end of our engine: nobody must wait for that.
            await _port_refused(place.job)
        dirty = await self._gate.back(target)
        await asyncio.to_thread(shutil.rmtree, place.job.directory, ignore_errors=True)
        return dirty, target

    async def _end(self, place: Place, handle: Handle, *, polite: bool, configured_s: float | None) -> None:
        farewell = place.engine.farewell(place.job)
        if polite:
            for question in farewell.first:
                await self._asker.ask(place.job.host, place.job.port, question)
        usual_s = farewell.grace_s if configured_s is None else configured_s
        grace_s = usual_s if polite else 0.0
        while True:
            try:
                await self._supervisor.stop(handle, grace_s)
            except SupervisorError as error:
                log.warning("%s; trying again in %.0f s, its memory is not used meanwhile", error, KILL_AGAIN_S)
                await asyncio.sleep(KILL_AGAIN_S)
                grace_s = 0.0
            else:
                return


async def _port_refused(job: Job) -> None:
    end = asyncio.get_running_loop().time() + PORT_LIMIT_S
    while not await ports.is_refused(job.host, job.port):
        if asyncio.get_running_loop().time() > end:
            log.warning("port %d still answers after its engine is gone: held by %s", job.port, ports.held_by(job.port))
            return
        await asyncio.sleep(0.05)
