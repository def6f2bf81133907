"""Whether a client has hung up while nothing of it is read: the loop would tell only once somebody reads.

It knows poll(2). It refuses to know why nothing is read.
"""

import asyncio
import select


def has_hung_up(transport: asyncio.Transport) -> bool:
    """Whether the other side has closed the connection or its half of it."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return False
    poller = select.poll()
    poller.register(sock.fileno(), select.POLLRDHUP)
    return bool(poller.poll(0))
