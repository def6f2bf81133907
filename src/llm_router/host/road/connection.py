"""One connection to an instance: a request goes out, a parser follows the answer, a ``Receiver`` hears of it.

This file knows how HTTP/1.1 answers are framed and when a connection may be used again. It refuses to know
what the answers mean and who keeps connections: that is its ``Home``.
"""

import asyncio
import socket
from dataclasses import dataclass
from typing import Final, Protocol, cast

import httptools

from llm_router.wire import heads

#: Limit for the head of an answer, in bytes.
HEAD_LIMIT: Final = 256 * 1024
#: After the client has its whole answer, so long may the engine take to end the body, and so much may it say.
_DRAIN_S: Final = 2.0
_DRAIN_BYTES: Final = 64 * 1024
_BODY_APART: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why there is no whole answer. ``answered``: its head was passed on before."""

    code: str
    text: str
    answered: bool = False


class Receiver(Protocol):
    """Who gets an answer: ``answered`` once, then ``received`` for each read, then ``completed``; or ``failed``.

    The first ``received`` comes at once after the head; it is empty if no byte of the body came with it.
    """

    def answered(self, status: int, headers: heads.Headers, length: int | None) -> None:
        """The head. ``length``: bytes of the body, ``None`` if not told."""
        ...

    def received(self, data: bytes) -> None: ...

    def completed(self) -> None: ...

    def failed(self, trouble: Trouble) -> None: ...


class Sending:
    """One request on its way. ``abort`` ends it at any time; nothing is reported after that."""

    __slots__ = ("body", "connection", "head", "no_body", "receiver", "retried", "sent")

    def __init__(self, head: bytes, body: bytes | bytearray, receiver: Receiver, no_body: bool = False) -> None:
        self.head = head
        self.body = body
        self.receiver: Receiver | None = receiver
        #: The answer has no body, whatever its head says (HEAD).
        self.no_body = no_body
        self.retried = False
        #: Some engine may have it: what befalls that engine may be the request's doing.
        self.sent = False
        self.connection: Connection | None = None

    def abort(self) -> None:
        """The answer is not wanted any more: the engine sees a closed connection at once."""
        self.receiver = None
        if self.connection is not None:
            self.connection.abort()

    def leave(self) -> None:
        """All that matters has come: let the answer end by itself, so that the connection can be used again."""
        self.receiver = None
        if self.connection is not None:
            self.connection.drain()

    def pause(self) -> None:
        """Read no more for now."""
        if self.connection is not None:
            self.connection.pause()

    def resume(self) -> None:
        if self.connection is not None:
            self.connection.resume()


class Home(Protocol):
    """Who keeps connections between two requests."""

    def keep(self, connection: "Connection") -> None:
        """The answer is whole and the connection in step."""
        ...

    def forget(self, connection: "Connection") -> None:
        """The kept connection was closed."""
        ...

    def retry(self, host: str, port: int, sending: Sending) -> None:
        """The kept connection was closed before a byte came back: send once more on a new one."""
        ...


class Connection(asyncio.Protocol):
    """One connection to an instance. Between two answers it belongs to its pool."""

    __slots__ = (
        "_discarding",
        "_done",
        "_extra",
        "_fields",
        "_head_bytes",
        "_headed",
        "_home",
        "_keep",
        "_length",
        "_out",
        "_parser",
        "_paused",
        "_sending",
        "_status",
        "_timer",
        "_told",
        "_until_end",
        "_used",
        "host",
        "idle_since",
        "port",
        "transport",
    )

    def __init__(self, home: Home, host: str, port: int) -> None:
        self._home = home
        self.host = host
        self.port = port
        self.idle_since = 0.0
        self.transport: asyncio.Transport | None = None
        self._sending: Sending | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._used = False
        self._paused = False
        self._reset()

    def _reset(self) -> None:
        self._fields: list[tuple[bytes, bytes]] = []
        self._out: list[bytes] = []
        self._status = 0
        self._length: int | None = None
        self._head_bytes = 0
        self._discarding = -1
        self._headed = self._done = self._extra = self._keep = self._told = self._until_end = False

    # What its owner does

    def send(self, sending: Sending) -> None:
        """Send a request; the connection is free."""
        transport = self.transport
        if transport is None or transport.is_closing():
            self._home.retry(self.host, self.port, sending)
            return
        self._reset()
        self._sending = sending
        sending.connection = self
        sending.sent = True
        self._parser = httptools.HttpResponseParser(self)
        if len(sending.body) > _BODY_APART:
            transport.write(sending.head)
            transport.write(sending.body)
        else:
            transport.write(sending.head + sending.body)

    def pause(self) -> None:
        if not self._paused and self.transport is not None and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        if self._paused and self.transport is not None and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()

    def abort(self) -> None:
        """Close now; nobody is told."""
        self._sending = None
        self._parser = None
        self._stop_timer()
        if self.transport is not None:
            self.transport.abort()

    def drain(self) -> None:
        """Read the end of an answer that nobody waits for, within limits."""
        self._discarding = 0
        self.resume()
        if not self._done:
            self._timer = asyncio.get_running_loop().call_later(_DRAIN_S, self.abort)

    # What the network does

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop's are not of that class
        self.transport = transport
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        parser = self._parser
        if parser is None:  # unasked bytes on an idle connection: it is out of step
            self._home.forget(self)
            self.abort()
            return
        self._used = True
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._done:
                self._fail(Trouble("engine_answered_badly", f"the engine's answer cannot be read: {error}"))
                return
            self._extra = True
        if self._headed:
            self._pass_on()
        else:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_LIMIT:
                self._fail(Trouble("engine_answered_badly", "the engine's answer has too large a head"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._stop_timer()
        sending, self._sending = self._sending, None
        self._parser = None
        if sending is None:
            self._home.forget(self)
        elif sending.receiver is None:
            return
        elif self._headed and self._until_end and exc is None:
            sending.receiver.completed()
        elif not self._used and not sending.retried and self.idle_since:
            self._home.retry(self.host, self.port, sending)
        else:
            sending.receiver.failed(
                Trouble("engine_broke_off", "the engine closed the connection before its answer was whole", self._told)
            )

    # What the parser finds

    def on_message_begin(self) -> None:
        if self._done:
            self._extra = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._headed:
            self._fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        parser = self._parser
        if parser is None or self._done:
            return
        status = parser.get_status_code()
        if 100 <= status < 200:
            self._fields = []
            return
        self._headed = True
        self._status = status
        self._keep = parser.should_keep_alive()
        chunked = False
        for name, value in self._fields:
            if name == b"content-length":
                self._length = int(value)
            elif name == b"transfer-encoding":
                chunked = True
        self._until_end = self._length is None and not chunked and status not in (204, 304)

    def on_body(self, body: bytes) -> None:
        if not self._done:
            self._out.append(body)

    def on_message_complete(self) -> None:
        if self._headed:
            self._done = True

    # What follows

    def _pass_on(self) -> None:
        """Tell the receiver what this read brought. It may leave or abort in each of the calls."""
        sending = self._sending
        assert sending is not None
        if sending.no_body:
            self._done, self._keep, self._out = True, False, []
        receiver = sending.receiver
        if receiver is not None and not self._told:
            self._told = True
            receiver.answered(self._status, self._fields, self._length)
            receiver = sending.receiver
            if receiver is not None and not self._out:
                receiver.received(b"")
                receiver = sending.receiver
        out = self._out
        if out:
            self._out = []
            data = out[0] if len(out) == 1 else b"".join(out)
            if receiver is not None:
                receiver.received(data)
                receiver = sending.receiver
            elif self._discarding >= 0:
                self._discarding += len(data)
        if self._done:
            self._finish()
            if receiver is not None:
                sending.receiver = None
                receiver.completed()
        elif self._discarding > _DRAIN_BYTES:
            self.abort()

    def _finish(self) -> None:
        """The answer is whole: back to the pool, if both sides are in step."""
        sending, self._sending = self._sending, None
        self._parser = None
        self._stop_timer()
        if sending is not None:
            sending.connection = None
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        self.resume()
        if self._keep and not self._extra and transport.get_write_buffer_size() == 0:
            self._used = False
            self._home.keep(self)
        else:
            transport.abort()

    def _fail(self, trouble: Trouble) -> None:
        sending = self._sending
        told = self._told
        self.abort()
        if sending is not None and sending.receiver is not None:
            receiver, sending.receiver = sending.receiver, None
            receiver.failed(Trouble(trouble.code, trouble.text, told))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
