import asyncio
import socket

import pytest

from llm_router.host.road.hangup import has_hung_up


@pytest.mark.parametrize("rudely", [False, True])
async def test_a_hang_up_is_seen_while_nothing_is_read(rudely: bool) -> None:
    ours, theirs = socket.socketpair()
    transport, _ = await asyncio.get_running_loop().connect_accepted_socket(asyncio.Protocol, ours)
    try:
        transport.pause_reading()
        theirs.send(b"bytes that wait to be read are no hang-up")
        assert not has_hung_up(transport)
        if rudely:
            theirs.close()
        else:
            theirs.shutdown(socket.SHUT_WR)
        assert has_hung_up(transport)
    finally:
        theirs.close()
        transport.abort()


async def test_a_transport_that_is_closed_here_has_nobody_to_hang_up() -> None:
    ours, theirs = socket.socketpair()
    transport, _ = await asyncio.get_running_loop().connect_accepted_socket(asyncio.Protocol, ours)
    theirs.close()
    transport.abort()
    await asyncio.sleep(0)
    assert not has_hung_up(transport)
