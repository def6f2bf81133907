"""Child supervisors and unruly programs below the test's own folder; nothing of them may be left."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Final

from fakes.leftovers import nobody_below
from llm_router.core.words import InstanceId
from llm_router.engines.engine import Launch
from llm_router.host.machine.logs import LogTail
from llm_router.host.machine.processes import is_alive
from llm_router.host.supervisors.child import ChildSupervisor, Policy
from llm_router.host.supervisors.supervisor import Handle

FAKES: Final = Path(__file__).parent
SMALL: Final = InstanceId("small#1")


class Bench:
    """Supervisors over one state folder, and what they start."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self._supervisors: list[ChildSupervisor] = []
        self._routers: list[subprocess.Popen[bytes]] = []

    def supervisor(self, policy: Policy = "keep", *, keep: int = 10, log_limit: int = 0) -> ChildSupervisor:
        supervisor = ChildSupervisor(self.state, policy, keep=keep, log_limit=log_limit, end_limit_s=5)
        self._supervisors.append(supervisor)
        return supervisor

    def unruly(self, *words: str) -> Launch:
        return Launch((sys.executable, "-I", "-S", str(FAKES / "unruly.py"), str(self.folder / "pids"), *words))

    async def start(self, supervisor: ChildSupervisor, *words: str) -> Handle:
        """An unruly program that has said that it is ready."""
        handle = await supervisor.start(SMALL, self.unruly(*words), {"model": "small"})
        await said(handle, "ready")
        return handle

    async def router(self, policy: Policy, grace_s: float, *words: str) -> tuple["subprocess.Popen[bytes]", Handle]:
        """A router of its own, in another process, with one unruly program that is ready."""
        program = self.unruly(*words).argv
        arguments = [str(FAKES / "small_router.py"), str(self.state), policy, str(grace_s), *program]
        router = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE)  # noqa: ASYNC220 - short
        self._routers.append(router)
        assert router.stdout is not None
        told = json.loads(await asyncio.to_thread(router.stdout.readline))
        handle = Handle(InstanceId(told["instance"]), told["token"], told["pid"], Path(told["log"]), {"model": "small"})
        await said(handle, "ready")
        return router, handle

    def pids(self) -> set[int]:
        """All processes that the unruly programs have ever been."""
        return {int(line) for line in (self.folder / "pids").read_text().split()}

    def alive(self) -> set[int]:
        return {pid for pid in self.pids() if is_alive(pid)}

    def place(self, handle: Handle) -> Path:
        return handle.log.parent

    async def close(self) -> None:
        for router in self._routers:
            router.kill()
            router.wait()
            assert router.stdout is not None
            router.stdout.close()
        for supervisor in self._supervisors:
            await supervisor.aclose()
        await nobody_below(self.folder)


async def said(handle: Handle, line: str) -> None:
    tail = LogTail(handle.log)
    async with asyncio.timeout(10):
        while line not in tail.read_new():
            await asyncio.sleep(0.005)
