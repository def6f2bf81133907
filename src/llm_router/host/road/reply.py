"""One answer on its way to the client: head, body in the framing that the client understands, end.

It knows HTTP/1.1 chunks, counted bodies, and bodies that end with the connection. It refuses to know what
is in them. Nothing is written to a client that has left.
"""

import asyncio
from collections.abc import Iterable
from enum import Enum

from llm_router.wire import heads


class Framing(Enum):
    """How the client learns where the body ends."""

    none = "none"
    length = "length"
    chunked = "chunked"
    close = "close"


class Reply:
    """Writes one answer. ``begun`` once the head is written; ``wrote`` counts the bytes of the body."""

    __slots__ = ("_framing", "_head_only", "_old", "_transport", "begun", "ended", "head", "keep", "wrote")

    def __init__(self, transport: asyncio.Transport, *, old: bool, head_only: bool, keep: bool) -> None:
        self._transport = transport
        #: HTTP/1.0 knows no chunks.
        self._old = old
        self._head_only = head_only
        #: Whether the connection may carry another answer.
        self.keep = keep
        self._framing = Framing.none
        #: The head that waits for the first bytes of the body.
        self.head = b""
        self.begun = False
        self.ended = False
        self.wrote = 0

    def begin(self, status: int, lines: Iterable[bytes], length: int | None) -> None:
        """Prepare the head; it is written with the first bytes of the body. ``lines`` each end in CRLF."""
        self.begun = True
        parts = [heads.status_line(status), *lines]
        if status in (204, 304):
            self._framing = Framing.none
        elif length is not None:
            self._framing = Framing.length
            parts.append(b"content-length: %d\r\n" % length)
        elif self._old:
            self._framing = Framing.close
            self.keep = False
        else:
            self._framing = Framing.chunked
            parts.append(b"transfer-encoding: chunked\r\n")
        if self._head_only:
            self._framing = Framing.none
        parts.append(b"\r\n" if self.keep else b"connection: close\r\n\r\n")
        self.head = b"".join(parts)

    def body(self, data: bytes) -> None:
        """Write a piece of the body, and the head if it waits."""
        head = self.head
        if head:
            self.head = b""
        if data and self._framing is Framing.none:
            data = b""
        if data:
            self.wrote += len(data)
            if self._framing is Framing.chunked:
                self._transport.write(b"%b%x\r\n%b\r\n" % (head, len(data), data))
                return
            self._transport.write(head + data if head else data)
        elif head:
            self._transport.write(head)

    def end(self) -> None:
        """The body is whole."""
        if self.ended:
            return
        self.ended = True
        head, self.head = self.head, b""
        last = b"0\r\n\r\n" if self._framing is Framing.chunked else b""
        if head or last:
            self._transport.write(head + last)

    def whole(self, status: int, lines: Iterable[bytes], body: bytes) -> None:
        """Write an answer that is there as a whole."""
        self.begin(status, lines, len(body))
        self.body(body)
        self.end()

    def abort(self) -> None:
        """Break the connection: only that tells the client that the body is not whole."""
        self.ended = True
        self.keep = False
        self._transport.abort()
