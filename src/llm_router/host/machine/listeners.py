"""Who listens for TCP on this machine, as the kernel tells it: address, port and the socket's inode.

Asked by sock_diag(7), which walks the few listening sockets in 0.1 ms; ``/proc/net/tcp`` walks the table of all
connections there could be (4 ms and more), so it is only for kernels that lack the former. This file knows no
processes.
"""

import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

#: linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h
_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_REQUEST_DUMP: Final = 0x301
_ERROR, _DONE = 2, 3
_LISTEN: Final = 10
_HEADER: Final = struct.Struct("=IHHII")
_REQUEST: Final = struct.Struct("=BBBxI48x")
#: Family; the two ports in network order; source address; inode.
_MESSAGE: Final = struct.Struct("=B3x2s2x16s44xI")


class Listener(NamedTuple):
    """A listening socket. ``address`` has 4 or 16 bytes, in network order."""

    address: bytes
    port: int
    inode: int


def listeners() -> list[Listener]:
    """All listening TCP sockets in this network namespace."""
    try:
        return [listener for family in (socket.AF_INET, socket.AF_INET6) for listener in _by_netlink(family)]
    except OSError:  # no such protocol, not permitted, or not in this kernel
        return list(_by_proc())


def _by_netlink(family: socket.AddressFamily) -> Iterator[Listener]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(1.0)
        request = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 1 << _LISTEN)
        kernel.send(_HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0) + request)
        while True:
            reply = kernel.recv(65536)
            at = 0
            while at < len(reply):
                length, kind, *_ = _HEADER.unpack_from(reply, at)
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    raise OSError(-int.from_bytes(reply[at + 16 : at + 20], sys.byteorder, signed=True), "sock_diag")
                found, port, address, inode = _MESSAGE.unpack_from(reply, at + _HEADER.size)
                size = 4 if found == socket.AF_INET else 16
                yield Listener(address[:size], int.from_bytes(port), inode)
                at += (length + 3) & ~3


def _by_proc() -> Iterator[Listener]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except FileNotFoundError:  # a kernel without IPv6
            continue
        for line in lines:
            fields = line.split()
            if int(fields[3], 16) == _LISTEN:
                address, _, port = fields[1].partition(":")
                yield Listener(_packed(address), int(port, 16), int(fields[9]))


def _packed(address: str) -> bytes:
    """The table prints addresses as words of 32 bits in the machine's own byte order."""
    raw = bytes.fromhex(address)
    if sys.byteorder == "big":
        return raw
    return b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
