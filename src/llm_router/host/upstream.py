"""Connections to instances: kept alive, one request at a time, every answer followed by a parser.

This file knows how HTTP/1.1 answers are framed and when a connection may be used again. It refuses to know
what the answers mean, who asked, and whether an instance is well: it reports to a ``Receiver``.
"""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, cast

import httptools

from llm_router.engines.engine import Answer, Question
from llm_router.host.tasks import Tasks
from llm_router.wire import heads

#: Limit for the head of an answer, in bytes.
HEAD_LIMIT: Final = 256 * 1024
#: Limit for the answer to one of the router's own questions, in bytes.
_ANSWER_LIMIT: Final = 4 * 1024 * 1024
_CONNECT_S: Final = 5.0
#: Engines close idle connections after 5 s and more; one that rested longer than this is not worth a try.
_IDLE_S: Final = 30.0
_IDLE_MAX: Final = 128
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

    __slots__ = ("body", "connection", "head", "no_body", "receiver", "retried")

    def __init__(self, head: bytes, body: bytes | bytearray, receiver: Receiver, no_body: bool = False) -> None:
        self.head = head
        self.body = body
        self.receiver: Receiver | None = receiver
        #: The answer has no body, whatever its head says (HEAD).
        self.no_body = no_body
        self.retried = False
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


class Pools:
    """The connections to all instances. One for the whole router."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._idle: dict[tuple[str, int], list[Connection]] = {}
        self._tasks = Tasks("upstream")

    def send(self, host: str, port: int, sending: Sending) -> None:
        """Send a request, on a kept connection if there is one. The receiver is not called before this returns."""
        now = self._loop.time()
        idle = self._idle.get((host, port))
        while idle:
            connection = idle.pop()
            if now - connection.idle_since < _IDLE_S:
                connection.send(sending)
                return
            connection.abort()
        self._tasks.spawn("connect", self._connect(host, port, sending))

    async def _connect(self, host: str, port: int, sending: Sending) -> None:
        def failed(text: str) -> None:
            if sending.receiver is not None:
                sending.receiver.failed(Trouble("engine_unreachable", text))

        connection = await self._open(host, port, lambda: Connection(self, host, port), failed)
        if not isinstance(connection, Connection):
            return
        if sending.receiver is None:
            self.keep(connection)
        else:
            connection.send(sending)

    def connect(
        self, host: str, port: int, make: Callable[[], asyncio.BaseProtocol], failed: Callable[[str], None]
    ) -> None:
        """Open a connection that is not pooled. ``failed`` gets the reason if it cannot be opened."""
        self._tasks.spawn("connect", self._open(host, port, make, failed))

    async def _open(
        self, host: str, port: int, make: Callable[[], asyncio.BaseProtocol], failed: Callable[[str], None]
    ) -> asyncio.BaseProtocol | None:
        try:
            async with asyncio.timeout(_CONNECT_S):
                _, protocol = await self._loop.create_connection(make, host, port)
        except TimeoutError:
            failed(f"cannot reach the engine at {host}:{port}: no answer within {_CONNECT_S:.0f} s")
        except OSError as error:
            failed(f"cannot reach the engine at {host}:{port}: {error.strerror or error}")
        else:
            return protocol
        return None

    def retry(self, host: str, port: int, sending: Sending) -> None:
        """Send once more on a new connection: the kept one was closed before a byte came back."""
        sending.retried = True
        self._tasks.spawn("connect", self._connect(host, port, sending))

    def keep(self, connection: "Connection") -> None:
        """Take a connection back whose answer is whole."""
        idle = self._idle.setdefault((connection.host, connection.port), [])
        if len(idle) >= _IDLE_MAX:
            connection.abort()
            return
        connection.idle_since = self._loop.time()
        idle.append(connection)

    def forget(self, connection: "Connection") -> None:
        """The idle connection was closed."""
        idle = self._idle.get((connection.host, connection.port), [])
        if connection in idle:
            idle.remove(connection)

    def close(self, host: str, port: int) -> None:
        """The instance leaves: close its idle connections. Running answers end by themselves."""
        for connection in self._idle.pop((host, port), []):
            connection.abort()

    async def aclose(self) -> None:
        """Close all idle connections and stop connecting."""
        for key in list(self._idle):
            self.close(*key)
        await self._tasks.aclose()

    async def ask(self, host: str, port: int, question: Question) -> Answer:
        """Ask the instance a question of the router's own. Never raises; status 0: nothing (whole) came back."""
        asking = _Asking(self._loop.create_future())
        extra = list(question.headers)
        if question.body is not None and not any(name.lower() == "content-type" for name, _ in extra):
            extra.append(("content-type", "application/json"))
        length = None if question.body is None else len(question.body)
        head = heads.request_head(
            question.method.encode(), question.path.encode(), (), authority(host, port), length, extra=extra
        )
        sending = Sending(head, question.body or b"", asking, no_body=question.method == "HEAD")
        self.send(host, port, sending)
        try:
            async with asyncio.timeout(question.timeout_s):
                return await asking.future
        except TimeoutError:
            return Answer(0, body=b"no answer within %.1f s" % question.timeout_s)
        finally:
            if not asking.over:
                sending.abort()


class _Asking:
    """Collects the answer to a question."""

    def __init__(self, future: "asyncio.Future[Answer]") -> None:
        self.future = future
        self.over = False
        self._status = 0
        self._headers: heads.Headers = ()
        self._body = bytearray()

    def answered(self, status: int, headers: heads.Headers, length: int | None) -> None:  # noqa: ARG002
        self._status = status
        self._headers = headers

    def received(self, data: bytes) -> None:
        if len(self._body) + len(data) > _ANSWER_LIMIT:
            self._set(Answer(0, body=b"the answer is longer than %d bytes" % _ANSWER_LIMIT))
        else:
            self._body += data

    def completed(self) -> None:
        self.over = True
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in self._headers}
        self._set(Answer(self._status, headers, bytes(self._body)))

    def failed(self, trouble: Trouble) -> None:
        self.over = True
        self._set(Answer(0, body=trouble.text.encode()))

    def _set(self, answer: Answer) -> None:
        if not self.future.done():
            self.future.set_result(answer)


class Connection(asyncio.Protocol):
    """One connection to an instance. Between two answers it belongs to its pool."""

    __slots__ = (
        "_discarding",
        "_done",
        "_extra",
        "_fields",
        "_head_bytes",
        "_headed",
        "_keep",
        "_length",
        "_out",
        "_parser",
        "_paused",
        "_pools",
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

    def __init__(self, pools: Pools, host: str, port: int) -> None:
        self._pools = pools
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
            self._pools.retry(self.host, self.port, sending)
            return
        self._reset()
        self._sending = sending
        sending.connection = self
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
            self._pools.forget(self)
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
            self._pools.forget(self)
        elif sending.receiver is None:
            return
        elif self._headed and self._until_end and exc is None:
            sending.receiver.completed()
        elif not self._used and not sending.retried and self.idle_since:
            self._pools.retry(self.host, self.port, sending)
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
            self._pools.keep(self)
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


def authority(host: str, port: int) -> bytes:
    """The ``Host`` of an address."""
    return (f"[{host}]:{port}" if ":" in host else f"{host}:{port}").encode()
