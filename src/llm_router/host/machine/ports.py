"""TCP ports of this machine: a free one, whether anybody answers, and whose process listens.

It joins the listening sockets (listeners.py) with those that processes hold (``/proc/PID/fd``, proc(5)). It knows
nothing of engines, and what it tells may have changed when it is used: a free port is free until it is taken.
"""

import asyncio
import ipaddress
import os
import socket
from collections.abc import Collection, Iterator, Sequence
from typing import Final

from llm_router.host.machine import processes
from llm_router.host.machine.listeners import listeners

#: ip(7): listen on an address that no interface has yet. It serves both families.
_IP_FREEBIND: Final = 15


def free_port(host: str = "127.0.0.1") -> int:
    """A port on which nobody listens now. Raises ``OSError`` when the address is not of this machine."""
    with socket.socket(_family(host), socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


class BindError(Exception):
    """An address cannot be listened on; the text says why and what to do."""


def bind_all(hosts: Sequence[str], port: int) -> list[socket.socket]:
    """All of the addresses at one port: with 0 the first one chooses. Raises ``BindError`` and holds none of them.

    Those after the first may come up later, as the bridge of a container engine does.
    """
    bound: list[socket.socket] = []
    try:
        for host in hosts:
            bound.append(bind(host, bound[0].getsockname()[1] if bound else port, later=bool(bound)))
    except BindError:
        for one in bound:
            one.close()
        raise
    return bound


def bind(host: str, port: int, *, later: bool = False) -> socket.socket:
    """An address taken to listen on it, port 0 for any. ``later``: it need not be there yet. Raises ``BindError``."""
    bound = socket.socket(_family(host), socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if later:
            bound.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        holder = held_by(port)
        raise BindError(
            f"cannot listen on {host} port {port}: {error.strerror or error}{f' ({holder})' if holder else ''}; "
            "stop what has it, or choose another port"
        ) from None
    bound.setblocking(False)
    return bound


async def is_refused(host: str, port: int, timeout_s: float = 1.0) -> bool:
    """Whether nobody listens there. Who takes the connection, or keeps silent, is somebody."""
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(host, port)
    except ConnectionRefusedError:
        return True
    except OSError:  # TimeoutError is one: a full backlog drops what it cannot take
        return False
    writer.transport.abort()
    return False


def owned_by(port: int, pids: Collection[int], host: str = "127.0.0.1") -> bool | None:
    """Whether those who answer at ``host:port`` are among these processes. Takes some 0.1 ms.

    ``None``: nobody can know. Either nobody listens here (the engine may have a network of its own, as in a
    container), or the files of one of the processes may not be read.
    """
    wanted = _answering(port, host)
    if not wanted:
        return None
    seen: set[int] = set()
    readable = True
    for pid in pids:
        sockets = _sockets(pid)
        if sockets is None:
            readable = False
        else:
            seen |= sockets & wanted
        if seen == wanted:
            return True
    return False if readable else None


def listener_pids(port: int) -> frozenset[int]:
    """All processes that listen on the port, at any address, as far as they may be read. Looks at everybody."""
    wanted = {listener.inode for listener in listeners() if listener.port == port}
    if not wanted:
        return frozenset()
    everybody = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())  # noqa: PTH208 - names only
    return frozenset(pid for pid in everybody if (_sockets(pid) or set()) & wanted)


def held_by(port: int) -> str | None:
    """Who listens on the port, for people; ``None`` if nobody does."""
    if not any(listener.port == port for listener in listeners()):
        return None
    pids = listener_pids(port)
    if not pids:
        return "a process that this user may not look at"
    return ", ".join(processes.describe(pid) for pid in sorted(pids))


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _answering(port: int, host: str) -> set[int]:
    """The sockets that a connection to ``host:port`` may reach: the kernel prefers the nearest address."""
    there = [listener for listener in listeners() if listener.port == port]
    for address in _nearest_first(host):
        if inodes := {listener.inode for listener in there if listener.address == address}:
            return inodes
    return set()


def _nearest_first(host: str) -> Iterator[bytes]:
    address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    yield address.packed
    if isinstance(address, ipaddress.IPv4Address):
        yield ipaddress.ip_address(f"::ffff:{address}").packed
        yield bytes(4)
    yield bytes(16)


def _sockets(pid: int) -> set[int] | None:
    """The inodes of the process's sockets, ``None`` if they may not be read. A dead process has none."""
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)  # noqa: PTH208 - names only: some engines have a thousand open files
    except PermissionError:
        return None
    except OSError:
        return set()
    inodes = set()
    for name in names:
        try:
            target = os.readlink(f"{folder}/{name}")  # noqa: PTH115
        except OSError:
            continue  # closed since
        if target.startswith("socket:["):
            inodes.add(int(target[8:-1]))
    return inodes
