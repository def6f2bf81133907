"""A supervisor in memory, which keeps the contract of the real ones (tests/contracts).

What runs belongs to a ``Machine``, so that it outlives the supervisor as real engines outlive the router.
"""

import asyncio
import itertools
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llm_router.core.words import InstanceId
from llm_router.engines.engine import Launch
from llm_router.host.supervisors.supervisor import Exit, Handle, SupervisorError


@dataclass(frozen=True, slots=True)
class Program:
    """How a program behaves: what it says, whether it obeys SIGTERM, whether it ends at once by itself."""

    says: str = ""
    deaf: bool = False
    ends_with: int | None = None


@dataclass(eq=False)
class Running:
    """One instance on the machine."""

    handle: Handle
    program: Program
    launch: Launch
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    exit: Exit | None = None
    asked: bool = False

    def end(self, code: int, *, killed: bool = False) -> None:
        if self.exit is None:
            self.exit = Exit(code, self.asked, killed)
            self.ended.set()


class Machine:
    """What lives and what has lived. ``programs`` are known by the first word of a command line."""

    def __init__(self, folder: Path, programs: Mapping[str, Program]) -> None:
        self.folder = folder
        self.programs = dict(programs)
        self.instances: dict[str, Running] = {}
        self.numbers = itertools.count(1)

    def of(self, instance: InstanceId) -> Running:
        """The latest incarnation under this id."""
        return [running for running in self.instances.values() if running.handle.instance == instance][-1]


class FakeSupervisor:
    """Implements ``Supervisor``. Signals act at once, but a deaf program's grace passes in real time."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    async def start(self, instance: InstanceId, launch: Launch, note: Mapping[str, str]) -> Handle:
        await asyncio.sleep(0)
        program = self.machine.programs.get(launch.argv[0])
        if program is None:
            raise SupervisorError(f"cannot start {instance}: there is no program {launch.argv[0]}")
        number = next(self.machine.numbers)
        log = self.machine.folder / f"{number}.log"
        log.write_text(program.says)
        handle = Handle(instance, f"token-{number}", 1_000_000 + number, log, dict(note))
        running = self.machine.instances[handle.token] = Running(handle, program, launch)
        if program.ends_with is not None:
            running.end(program.ends_with)
        return handle

    async def stop(self, handle: Handle, grace_s: float) -> Exit:
        running = self.machine.instances[handle.token]
        if running.exit is None:
            running.asked = True
            if grace_s > 0 and not running.program.deaf:
                running.end(-signal.SIGTERM)
            try:
                async with asyncio.timeout(grace_s):
                    await running.ended.wait()
            except TimeoutError:
                running.end(-signal.SIGKILL, killed=True)
        return await self.watch(handle)

    async def watch(self, handle: Handle) -> Exit:
        running = self.machine.instances[handle.token]
        await running.ended.wait()
        assert running.exit is not None
        return running.exit

    async def find(self) -> list[Handle]:
        await asyncio.sleep(0)
        return [running.handle for running in self.machine.instances.values() if running.exit is None]

    def pids(self, handle: Handle) -> frozenset[int]:
        running = self.machine.instances[handle.token]
        return frozenset({handle.pid}) if running.exit is None else frozenset()

    async def aclose(self) -> None:
        """What runs belongs to the machine and lives on."""
