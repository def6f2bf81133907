"""A connection that leaves HTTP (WebSocket): after the engine's ``101`` bytes pass both ways as they come.

It knows the switch and flow control. It refuses to know what is spoken inside.
"""

import asyncio
from typing import Final, Protocol, cast

import httptools

from llm_router.host.road.incoming import Client
from llm_router.host.road.upstream import Pools
from llm_router.wire import errors, heads
from llm_router.wire.errors import Fault

_HEAD_LIMIT: Final = 64 * 1024


class Owner(Protocol):
    """Who wants the tunnel."""

    def tunnel_closed(self, fault: Fault | None) -> None:
        """It ended; ``fault`` if it never came about (then nothing was written to the client)."""
        ...


class Tunnel(asyncio.Protocol):
    """The side of a tunnel that leads to the engine."""

    def __init__(self, owner: Owner, client: Client, pools: Pools) -> None:
        self._owner: Owner | None = owner
        self._client = client
        self._pools = pools
        self._transport: asyncio.Transport | None = None
        self._request = b""
        self._early: list[bytes] = []
        self._head = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self.switched = False
        #: Bytes that passed, both ways.
        self.moved = 0

    def open(self, host: str, port: int, head: bytes) -> None:
        """Connect and ask for the switch."""
        self._request = head
        self._pools.connect(host, port, lambda: self, self._unreachable)

    def from_client(self, data: bytes) -> None:
        """Bytes of the client. Before the switch they wait."""
        if self.switched and self._transport is not None:
            self.moved += len(data)
            self._transport.write(data)
        else:
            self._early.append(data)

    def pause(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def abort(self) -> None:
        """Nobody wants it any more."""
        self._owner = None
        if self._transport is not None:
            self._transport.abort()

    def _unreachable(self, text: str) -> None:
        self._close(errors.engine("engine_unreachable", text))

    # What the network does

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop's are not of that class
        self._transport = transport
        if self._owner is None:
            transport.abort()
            return
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self.switched:
            self.moved += len(data)
            self._client.transport.write(data)
            return
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end >= 0:
            self._switch(self._head[: end + 4], self._head[end + 4 :])
        elif len(self._head) > _HEAD_LIMIT:
            self._close(errors.engine("engine_answered_badly", "the engine's answer has too large a head"))

    def pause_writing(self) -> None:
        if not self._client.transport.is_closing():
            self._client.transport.pause_reading()

    def resume_writing(self) -> None:
        if not self._client.transport.is_closing():
            self._client.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._transport = None
        if self.switched:
            self._close(None)
        else:
            self._close(errors.engine("engine_broke_off", "the engine closed the connection before it switched"))

    def _switch(self, head: bytes, rest: bytes) -> None:
        parser = httptools.HttpResponseParser(self)
        try:
            parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            pass  # the switch itself
        except httptools.HttpParserError as error:
            self._close(errors.engine("engine_answered_badly", f"the engine's answer cannot be read: {error}"))
            return
        status = parser.get_status_code()
        if status != 101:
            text = f"the engine did not switch the protocol: it answered with status {status}"
            self._close(Fault(status if status >= 400 else 502, "no_switch", text))
            return
        self.switched = True
        protocol = heads.value_of(self._headers, b"upgrade")
        lines = heads.answer_headers(self._headers)
        self._client.transport.write(
            b"".join(
                (
                    heads.status_line(101),
                    *lines,
                    b"connection: Upgrade\r\nupgrade: %b\r\n\r\n" % protocol,
                    rest,
                )
            )
        )
        early, self._early = self._early, []
        for data in early:
            self.from_client(data)
        self.resume_writing()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def _close(self, fault: Fault | None) -> None:
        owner, self._owner = self._owner, None
        if self._transport is not None:
            self._transport.abort()
        if owner is not None:
            owner.tunnel_closed(fault)
