"""The supervisors that must keep the contract, each with what a test needs to try it.

A new supervisor adds one kit to ``KITS`` (``pytest.param(MyKit, id=..., marks=...)``) and nothing else.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Final, Protocol

import pytest

from fakes.leftovers import nobody_below
from fakes.supervisor import FakeSupervisor, Machine, Program
from llm_router.engines.engine import Launch
from llm_router.host.supervisors.child import ChildSupervisor
from llm_router.host.supervisors.manager import Manager, Scope
from llm_router.host.supervisors.supervisor import Handle, Supervisor
from llm_router.host.supervisors.systemd import SystemdSupervisor
from support.systemd_sandbox import INSIDE

UNRULY: Final = Path(__file__).parents[1] / "fakes" / "unruly.py"


class Kit(Protocol):
    """One supervisor under test, on a machine of its own below ``folder``."""

    def __init__(self, folder: Path) -> None: ...

    def supervisor(self, state: str = "state") -> Supervisor:
        """Another supervisor over the same state, as after a restart of the router. Engines live on."""
        ...

    def obedient(self) -> Launch:
        """It says ``ready``, waits, and obeys SIGTERM."""
        ...

    def deaf(self) -> Launch:
        """It says ``ready``, waits, and ignores SIGTERM."""
        ...

    def brief(self) -> Launch:
        """It says ``ready`` and ends by itself with code 3."""
        ...

    def missing(self) -> Launch:
        """Its program does not exist."""
        ...

    def kill_main(self, handle: Handle) -> None:
        """SIGKILL to the engine's main process, from outside."""
        ...

    async def close(self) -> None:
        """End of the test: fails if a process is left."""
        ...


class FakeKit:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._machines: dict[str, Machine] = {}

    def supervisor(self, state: str = "state") -> FakeSupervisor:
        programs = {
            "obedient": Program(says="ready\n"),
            "deaf": Program(says="ready\n", deaf=True),
            "brief": Program(says="ready\n", ends_with=3),
        }
        place = self._folder / state
        place.mkdir(exist_ok=True)
        return FakeSupervisor(self._machines.setdefault(state, Machine(place, programs)))

    def obedient(self) -> Launch:
        return Launch(("obedient",))

    def deaf(self) -> Launch:
        return Launch(("deaf",))

    def brief(self) -> Launch:
        return Launch(("brief",))

    def missing(self) -> Launch:
        return Launch(("missing",))

    def kill_main(self, handle: Handle) -> None:
        for machine in self._machines.values():
            if handle.token in machine.instances:
                machine.instances[handle.token].end(-signal.SIGKILL)

    async def close(self) -> None:
        for machine in self._machines.values():
            assert all(running.exit for running in machine.instances.values())


class ChildKit:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._supervisors: list[ChildSupervisor | SystemdSupervisor] = []

    def supervisor(self, state: str = "state") -> Supervisor:
        supervisor = ChildSupervisor(self._folder / state, "keep")
        self._supervisors.append(supervisor)
        return supervisor

    def obedient(self) -> Launch:
        return self._unruly()

    def deaf(self) -> Launch:
        return self._unruly("deaf")

    def brief(self) -> Launch:
        return self._unruly("gone")

    def missing(self) -> Launch:
        return Launch((str(self._folder / "missing"),))

    def kill_main(self, handle: Handle) -> None:
        os.kill(handle.pid, signal.SIGKILL)

    async def close(self) -> None:
        for supervisor in self._supervisors:
            await supervisor.aclose()
        await nobody_below(self._folder)

    def _unruly(self, *words: str) -> Launch:
        return Launch((sys.executable, "-I", "-S", str(UNRULY), str(self._folder / "pids"), *words))


class SystemdKit(ChildKit):
    """Inside the sandbox of tests/systemd only: on the system's bus as root, or on the user's."""

    def supervisor(self, state: str = "state") -> Supervisor:
        scope: Scope = "system" if os.geteuid() == 0 else "user"
        return self._kept(SystemdSupervisor(self._folder / state, Manager(scope)))

    def _kept(self, supervisor: SystemdSupervisor) -> SystemdSupervisor:
        self._supervisors.append(supervisor)
        return supervisor


class TemplateKit(SystemdKit):
    """Inside the sandbox only: a plain account, the installed template, and polkit."""

    def supervisor(self, state: str = "state") -> Supervisor:
        return self._kept(SystemdSupervisor(self._folder / state, Manager("system"), "template", jobs=JOBS))


#: Where the template that tests/systemd installs looks for what to run.
JOBS: Final = Path("/var/lib/llm-router-test/jobs")

KITS: list[object] = [pytest.param(FakeKit, id="fake"), pytest.param(ChildKit, id="child")]
if os.environ.get(INSIDE):
    KITS = [pytest.param(TemplateKit if os.environ[INSIDE] == "template" else SystemdKit, id=os.environ[INSIDE])]
