"""What is done for an instance whose guard is gone: find what is left of it, end that, write down how it ended.

It is the second best, after the guard: it finds processes by the token in their environment and by descent, so
one that emptied its environment and left its session while the guard was already dead stays unknown.
"""

import asyncio
import logging
import signal
import time

from llm_router.host.machine import processes
from llm_router.host.supervisors.records import Folder, RecordError
from llm_router.host.supervisors.supervisor import Exit, SupervisorError

log = logging.getLogger(__name__)


async def aftermath(folder: Folder, name: str, limit_s: float, *, killed: bool) -> Exit:
    """The exit as it was written; if it was not, sweep and write it. ``killed``: the guard itself was.

    Raises ``SupervisorError`` when something lives on ``limit_s`` seconds after SIGKILL.
    """
    try:
        if (known := folder.exit()) is not None:
            return known
    except RecordError as error:
        log.warning("%s", error)
    swept = await sweep(folder.token, name, limit_s)
    end = Exit(None, asked=folder.asked, killed=killed or swept)
    try:
        folder.write_exit(end)
    except FileNotFoundError:
        log.debug("%s was forgotten while it ended, or never lived", name)
    except OSError as error:
        log.warning("cannot keep the exit of %s: %s", name, error)
    return end


async def sweep(token: str, name: str, limit_s: float) -> bool:
    """Kill what carries the token, and all below it; whether there was anything. Raises ``SupervisorError``."""
    began: float | None = None
    while left := await asyncio.to_thread(belonging, token):
        now = time.monotonic()
        began = now if began is None else began
        if now - began > limit_s:
            raise SupervisorError(survivors(name, left))
        for pid in left:
            processes.send(pid, signal.SIGKILL)
        await asyncio.sleep(0.01)
    return began is not None


def belonging(token: str) -> frozenset[int]:
    """Who carries the token, and all below them."""
    return frozenset[int]().union(*(processes.tree(pid) for pid in processes.environ_marked(token)))


def survivors(name: str, pids: frozenset[int]) -> str:
    """The sentence for those who do not even obey SIGKILL."""
    who = ", ".join(processes.describe(pid) for pid in sorted(pids))
    return (
        f"cannot end {name}: {who} survived SIGKILL; it hangs in the kernel (a GPU driver or a network disk, as a"
        " rule), or belongs to another user. Its memory is not free"
    )
