"""Two supervisors as one: the router's own engines by one of them, the operator's units by the other.

It only sends each call to whom it belongs to, by the launch's unit or the handle's token.
"""

import asyncio
from collections.abc import Mapping

from llm_router.core.words import InstanceId
from llm_router.engines.engine import Launch
from llm_router.host.supervisors.service import ServiceSupervisor
from llm_router.host.supervisors.supervisor import Exit, Handle, Supervisor


class Supervisors:
    """Implements ``Supervisor`` by the two. ``services`` is also asked directly, for what only units have."""

    def __init__(self, owned: Supervisor, services: ServiceSupervisor) -> None:
        self._owned = owned
        self.services = services

    def __repr__(self) -> str:
        return f"<{self._owned!r} and {self.services!r}>"

    async def start(self, instance: InstanceId, launch: Launch, note: Mapping[str, str]) -> Handle:
        """See ``Supervisor.start``."""
        return await (self.services if launch.unit else self._owned).start(instance, launch, note)

    async def stop(self, handle: Handle, grace_s: float) -> Exit:
        """See ``Supervisor.stop``."""
        return await self._of(handle).stop(handle, grace_s)

    async def watch(self, handle: Handle) -> Exit:
        """See ``Supervisor.watch``."""
        return await self._of(handle).watch(handle)

    async def find(self) -> list[Handle]:
        """See ``Supervisor.find``."""
        owned, services = await asyncio.gather(self._owned.find(), self.services.find())
        return [*owned, *services]

    def pids(self, handle: Handle) -> frozenset[int]:
        """See ``Supervisor.pids``."""
        return self._of(handle).pids(handle)

    async def aclose(self) -> None:
        """Let go of both."""
        await self._owned.aclose()
        await self.services.aclose()

    def _of(self, handle: Handle) -> Supervisor:
        return self.services if self.services.knows(handle) else self._owned
