"""Whether a test left processes behind: every program of these tests has the test's folder in its command line."""

import asyncio
import os
import signal
import time
from pathlib import Path

from llm_router.host.machine.processes import is_alive


def running_below(folder: Path) -> dict[int, str]:
    """The living processes that name a path below the folder, with their command lines."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:
            continue
        if str(folder) in words and is_alive(int(entry.name)):
            found[int(entry.name)] = words
    return found


async def nobody_below(folder: Path, limit_s: float = 20.0) -> None:
    """Return when nobody is left. Fails, and kills who is left, after ``limit_s``."""
    end = time.monotonic() + limit_s
    while left := running_below(folder):
        if time.monotonic() > end:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            raise AssertionError(f"left behind: {left}")
        await asyncio.sleep(0.005)
