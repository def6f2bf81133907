"""What the router itself writes around and instead of an engine's answer: its header lines, whole bodies, errors.

It knows the forms in which clients understand errors, and the spaces that may come before a JSON value. It refuses to
know when something is to be written.
"""

from typing import Final

from llm_router.host.desk import Lease
from llm_router.host.road.hearing import Asking, Hearing
from llm_router.host.road.incoming import Request
from llm_router.host.road.reply import Reply
from llm_router.wire import access, errors, heads
from llm_router.wire.errors import Fault

JSON: Final = b"content-type: application/json\r\n"
_SPACED: Final = b"x-llm-router-keep-alive: whitespace\r\n"


class Letter:
    """The router's own writing in one reply. ``lease`` stays known after it was given back. Times in seconds."""

    __slots__ = ("_ident", "_reply", "_request", "_silence_s", "_spaced_at", "asking", "hearing", "lease", "spaced")

    def __init__(self, reply: Reply, request: Request, ident: str, silence_s: float, now: float) -> None:
        self._reply = reply
        self._request = request
        self._ident = ident
        self._silence_s = silence_s
        self._spaced_at = now
        #: Spaces were sent to a client that waits for a whole answer, so that its head is out.
        self.spaced = False
        self.hearing: Hearing | None = None
        self.asking: Asking | None = None
        self.lease: Lease | None = None

    def lines(self, overhead: float | None = None) -> list[bytes]:
        """The router's own header lines, as far as their facts are known."""
        hearing, lease = self.hearing, self.lease
        lines = heads.own_lines(self._ident, hearing.model if hearing else "")
        if lease is not None:
            lines += heads.lease_lines(lease.instance, lease.waited_s, lease.loaded_s, overhead)
        if hearing is not None and (told := hearing.told(self.asking)):
            lines.append(told)
        return lines + access.answer(self._request.origin) if self._request.origin else lines

    def space(self, now: float) -> bool:
        """A sign of life that JSON permits before a value, if it is time. Promises status 200 with the first.

        Gives whether it did promise.
        """
        if now - self._spaced_at < self._silence_s:
            return False
        self._spaced_at = now
        first, self.spaced = not self.spaced, True
        if first:
            self._reply.begin(200, [JSON, _SPACED, *self.lines()], None)
        self._reply.body(b" ")
        return first

    def whole(self, status: int, lines: list[bytes], body: bytes) -> None:
        """A whole body, behind the spaces that were sent while it was waited for."""
        if self.spaced:
            self._reply.body(body)
            self._reply.end()
        else:
            self._reply.whole(status, lines, body)

    def fault(self, fault: Fault) -> None:
        """An error instead of an answer, in the form of the client's API."""
        lines = [b"%b: %b\r\n" % header for header in errors.headers(fault)]
        self.whole(fault.status, [*lines, *self.lines()], errors.body_for(self._path, fault))

    @property
    def _path(self) -> bytes:
        """The path that tells which API the client speaks."""
        return self.hearing.path if self.hearing and self._request.route.raw else self._request.path


def last_word(fault: Fault, request: Request | None, ident: str) -> bytes:
    """An error for a request that comes to no exchange, read or not. The connection ends behind it."""
    body = errors.body_for(b"" if request is None else request.path, fault)
    lines = [b"%b: %b\r\n" % header for header in errors.headers(fault)]
    lines.append(b"x-request-id: %b\r\n" % ident.encode())
    if request is not None and request.origin and fault.status != 403:
        lines += access.answer(request.origin)
    lines.append(b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body))
    return b"".join((heads.status_line(fault.status), *lines, body))


def permission(request: Request) -> bytes:
    """The answer to a browser's preflight."""
    lines = access.preflight(request.origin, request.headers) if request.origin else []
    close = b"" if request.keep_alive else b"connection: close\r\n"
    return b"".join((heads.status_line(204), *lines, close, b"\r\n"))
