"""What processes take of the machine: CPU time, memory, cores, the machine in general words.

This file knows /proc and the kernel's clocks. It refuses to know what the processes are for.
"""

import contextlib
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil


def cpu_seconds(pid: int) -> float:
    """CPU time (user and system) that the process has used, threads that ended included; 0.0 if it is gone.

    The kernel keeps such a clock for every process; its number is made of the process's id
    (``CPUCLOCK_SCHED`` in Linux's ``posix-timers_types.h``). It counts nanoseconds where ``/proc`` counts ticks.
    """
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def tree(pid: int, without: frozenset[int] = frozenset()) -> list[int]:
    """The process and all its descendants, but for the branches of ``without``."""
    children: dict[int, list[int]] = {}
    for process in psutil.process_iter(["pid", "ppid"]):
        children.setdefault(process.info["ppid"], []).append(process.info["pid"])
    found = [pid]
    for one in found:
        found += [child for child in children.get(one, []) if child not in without]
    return found


def rss_mb(pids: list[int]) -> float:
    """Resident memory of the processes together, in MB (10^6 bytes). Shared pages count in each."""
    pages = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class Peak:
    """The largest value of a function while the block runs, looked at every 20 ms."""

    def __init__(self, look: Callable[[], float]) -> None:
        self._look = look
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.value = 0.0

    def _run(self) -> None:
        while not self._over.wait(0.02):
            self.value = max(self.value, self._look())

    def __enter__(self) -> Self:
        self.value = self._look()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()


def cores() -> tuple[frozenset[int], frozenset[int]]:
    """The cores for what is measured and those for the rest. With one core both are the same."""
    allowed = sorted(os.sched_getaffinity(0))
    measured = frozenset(allowed[-1:])
    return measured, frozenset(allowed[:-1]) or measured


@contextlib.contextmanager
def on_cores(which: frozenset[int]) -> Iterator[None]:
    """Processes that are started in this block run on these cores only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, which)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def listeners(port: int) -> list[int]:
    """The processes that listen on the port of this machine, as far as this account may see."""
    found = set()
    for one in psutil.net_connections("tcp"):
        if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port and one.pid:
            found.add(one.pid)
    return sorted(found)


def describe() -> dict[str, str | int]:
    """The machine in general words."""
    model = platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
    }
