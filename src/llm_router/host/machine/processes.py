"""Processes of this machine: who lives, who belongs to whom, who carries a mark.

It reads ``/proc`` and tells. It ends nobody, and it knows nothing of engines or supervisors. Every answer may be
out of date when it arrives: whoever acts on one opens a pidfd first and asks afterwards.
"""

import os
import signal
from functools import cache
from pathlib import Path

import psutil

#: The variable that carries an instance's private token in the environment of all its processes.
MARKER = "LLM_ROUTER_INSTANCE"

_PROC = Path("/proc")


@cache
def boot_id() -> str:
    """The kernel's name for this boot. Start times of processes can be compared only within one boot."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def _stat(pid: int) -> list[str] | None:
    """The fields of ``/proc/PID/stat`` from the third one on (the second may hold blanks and brackets)."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def start_time(pid: int) -> int | None:
    """When the process began, in clock ticks since boot (field 22 of proc(5) stat), ``None`` if there is none."""
    fields = _stat(pid)
    return int(fields[19]) if fields else None


def is_alive(pid: int, start: int | None = None) -> bool:
    """Whether it lives, and is the one that began at ``start``. A zombie is dead: it holds no memory, no port.

    Nobody may ever reap it, where process 1 is not an init.
    """
    fields = _stat(pid)
    if not fields or fields[0] in "ZX":
        return False
    return start is None or int(fields[19]) == start


def tree(pid: int) -> frozenset[int]:
    """The process and all its living descendants; empty if it is gone."""
    if not is_alive(pid):
        return frozenset()
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return frozenset()
    return frozenset({pid, *(child.pid for child in children if is_alive(child.pid))})


def token_of(pid: int) -> str | None:
    """The marker in the environment with which the process was started, ``None`` if there is none to be read.

    The kernel shows it only to the same user and to root.
    """
    try:
        environ = (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return None
    name = MARKER.encode() + b"="
    for entry in environ.split(b"\0"):
        if entry.startswith(name):
            return entry[len(name) :].decode(errors="replace")
    return None


def marked() -> dict[str, frozenset[int]]:
    """All living processes with a marker, by token. One pass over ``/proc``, some 20 us a process."""
    found: dict[str, set[int]] = {}
    for entry in os.listdir(_PROC):  # noqa: PTH208 - names only: Path objects for all of /proc would double the cost
        if entry.isdigit() and (token := token_of(int(entry))) and is_alive(int(entry)):
            found.setdefault(token, set()).add(int(entry))
    return {token: frozenset(pids) for token, pids in found.items()}


def environ_marked(token: str) -> frozenset[int]:
    """The living processes that carry this token."""
    return marked().get(token, frozenset())


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may be gone already."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def describe(pid: int) -> str:
    """The process for people: ``python3 (pid 4711 of alice)``."""
    try:
        process = psutil.Process(pid)
        name, user = process.name(), process.username()
    except psutil.Error:
        return f"pid {pid}"
    return f"{name} (pid {pid} of {user})"
