"""The contract of everything that can start and stop instances on a machine.

A supervisor keeps no state of its own that a restart of the router would lose: what it knows of a living
instance is in the ``Handle``, and ``find`` gives all handles back. It knows nothing of models or readiness.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from llm_router.core.words import InstanceId
from llm_router.engines.engine import Launch


class SupervisorError(Exception):
    """A start or a stop could not be done; the text begins with "cannot" and names thing, cause and remedy.

    ``passing``: nothing is wrong with what was wanted. The machine lacks something now (disk, memory, processes,
    files), so that another try may work.
    """

    def __init__(self, text: str, *, passing: bool = False) -> None:
        super().__init__(text)
        self.passing = passing


@dataclass(frozen=True, slots=True)
class Handle:
    """One started instance, enough to find it again after a restart of the router.

    ``token`` is the private id in its environment. ``pid`` is the engine's main process. ``note`` is what
    the router wants to find again (model, port, devices), as given to ``start``.
    """

    instance: InstanceId
    token: str
    pid: int
    log: Path
    note: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Exit:
    """How an instance ended. ``code`` as subprocess has it, ``None`` if nobody can know any more.

    ``killed``: something had to be killed, now or in the sweep after the main process.
    """

    code: int | None
    asked: bool
    killed: bool


class Supervisor(Protocol):
    """Starts and stops instances here. All methods may be called at the same time for different instances."""

    async def start(self, instance: InstanceId, launch: Launch, note: Mapping[str, str]) -> Handle:
        """Start it; returns when its main process lives. Raises ``SupervisorError``."""
        ...

    async def stop(self, handle: Handle, grace_s: float) -> Exit:
        """SIGTERM, after ``grace_s`` SIGKILL to all of it; returns when nothing of it is left.

        ``grace_s`` 0 kills at once. A second call while the first one waits may shorten the grace.
        Stopping what is already gone returns its exit. Raises ``SupervisorError`` when something survives.
        """
        ...

    async def watch(self, handle: Handle) -> Exit:
        """Return when the instance ended and is swept, by whatever cause. May be called more than once."""
        ...

    async def find(self) -> list[Handle]:
        """The instances of this router's state folder that live; leftovers of dead ones are swept."""
        ...

    def pids(self, handle: Handle) -> frozenset[int]:
        """All living processes of the instance."""
        ...

    async def aclose(self) -> None:
        """Let go of what is held here. It stops nobody; what becomes of the engines is the supervisor's policy."""
        ...
