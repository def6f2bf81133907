"""Receives the rest of a large body of known length straight into one buffer, past the parser.

It knows how to take a connection over and give it back. It refuses to know what the body is for.
"""

import asyncio
from typing import Protocol

import httptools


class Owner(Protocol):
    """The connection whose body is received."""

    @property
    def transport(self) -> asyncio.Transport: ...

    def body_moved(self, size: int) -> bool: ...

    def body_complete(self, parser: httptools.HttpRequestParser) -> None: ...

    def connection_lost(self, exc: Exception | None) -> None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...


class BigBody(asyncio.BufferedProtocol):
    """The buffer is touched only as far as bytes arrive: a length that is only claimed costs no memory."""

    def __init__(self, owner: Owner, size: int) -> None:
        self._owner = owner
        self.body = bytearray(size)
        self._view = memoryview(self.body)
        self._at = 0

    def add(self, piece: bytes) -> None:
        """The beginning of the body, which came with the head."""
        self._view[self._at : self._at + len(piece)] = piece
        self._at += len(piece)

    def take_over(self) -> None:
        """Receive all further bytes of the connection, until the body is whole."""
        self._switch(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        # Never beyond the body: what follows it belongs to the parser.
        return self._view[self._at :]

    def buffer_updated(self, nbytes: int) -> None:
        self._at += nbytes
        if not self._owner.body_moved(nbytes):
            self._view.release()
            self._switch(self._owner)
            return
        if self._at < len(self.body):
            return
        self._view.release()
        parser = httptools.HttpRequestParser(self._owner)
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._switch(self._owner)
        self._owner.body_complete(parser)

    def eof_received(self) -> None:
        """The client left: the transport closes by itself."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._owner.pause_writing()

    def resume_writing(self) -> None:
        self._owner.resume_writing()

    def _switch(self, protocol: object) -> None:
        transport = self._owner.transport
        transport.pause_reading()
        transport.set_protocol(protocol)  # type: ignore[arg-type]
        transport.resume_reading()
