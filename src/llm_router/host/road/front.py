"""The door of the road: uvicorn's protocol, with a fast lane for model requests.

uvicorn parses every request with llhttp and serves the pages and lists as an ordinary ASGI application.
Requests for engines never become a task there: they are taken over as soon as their head is read. This
file knows connections, limits and uvicorn's protocol class. It refuses to know desks and engines.

The lane relies on inside parts of uvicorn; ``tests/host/road/test_front.py`` names them, and the dependency is bounded.
"""

import asyncio
from collections import deque
from typing import Any, Final, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from llm_router.host.road import bodies, letter
from llm_router.host.road.admission import admit, bad, judge, meant_for_engine
from llm_router.host.road.bodies import Intake
from llm_router.host.road.exchange import Exchange
from llm_router.host.road.hangup import has_hung_up
from llm_router.host.road.incoming import Request
from llm_router.host.road.road import Road
from llm_router.wire.errors import Fault

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
#: How long a client may go on sending after its request was refused unread, in seconds.
_LINGER_S: Final = 2.0
_HEAD_TOO_LARGE: Final = bad("cannot read the request: its head is too large", "head_too_large", 431)


class RoadConfig(Config):
    """uvicorn's configuration with the road beside it."""

    road: Road


class Front(HttpToolsProtocol):
    """One connection from a client."""

    config: RoadConfig
    #: Requests for engines stand where uvicorn keeps its own cycles.
    cycle: Any
    pipeline: deque[tuple[Any, Any]]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        assert isinstance(config, RoadConfig)
        self._road = config.road
        self._limits = config.road.limits
        self._exchange: Exchange | None = None
        self._intake = Intake(config.road)
        #: The request for an engine whose turn it is.
        self._serving: Request | None = None
        self._in_head = False
        self._head_bytes = 0
        #: No request is being read.
        self._between = True
        #: How many heads began in the read that is being parsed.
        self._begun = 0
        #: Size of the read that is being parsed.
        self._read = 0
        #: Nothing more is read: the framing is lost.
        self._dead = False
        self._tunnelled = False
        #: When patience with the client ends, on the loop's clock; 0: never.
        self._deadline = 0.0

    # The connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast("asyncio.Transport", transport))
        self._deadline = self.loop.time() + self._limits.first_s
        if self._road.connections() >= self._limits.max_connections:
            fault = Fault(503, "too_many_connections", "cannot serve: there are too many connections", retry_after_s=5)
            self._fail(fault)
            self.transport.close()
            return
        self._road.join_in(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._road.leave(self)
        self._dead = True
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_left()
        self._forget_bodies()
        super().connection_lost(exc)

    def tick(self, now: float) -> None:
        """About once a second: end what takes too long, let the exchange look at the clock."""
        if self._exchange is not None:
            if self._has_left_unseen(self._exchange):
                self.transport.abort()
                return
            self._exchange.tick(now)
        if self._deadline and now > self._deadline:
            self._deadline = 0.0
            if self._dead:
                self.transport.abort()
            elif self._in_head or self._intake.request is not None:
                self._fail(bad("cannot wait longer for the rest of the request", "request_timeout", 408))
            else:
                self.transport.close()

    def _has_left_unseen(self, exchange: Exchange) -> bool:
        """Whether the client is gone while nothing of it is read: the loop would tell only once somebody reads.

        Nothing is read while a further request waits for its turn, or another protocol for its engine. A tunnel
        that is held up for the sake of flow is another matter: what its client sent before it left must pass.
        """
        if self.transport.is_reading() or not (self.pipeline or not exchange.moved()):
            return False
        return has_hung_up(self.transport)

    def data_received(self, data: bytes) -> None:
        if self._dead:
            return
        if self._tunnelled:
            if self._exchange is not None:
                self._exchange.from_client(data)
            return
        self._read, self._begun, between = len(data), 0, self._between
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as error:
            self._switch(data[error.args[0] :])
            return
        except httptools.HttpParserError as error:
            if not self._dead:
                self._fail(bad(f"cannot read the request: {error}"))
            return
        if self._in_head:
            # In the read in which it began, other requests may stand before it.
            alone = self._begun == 0 or (self._begun == 1 and between)
            self._head_bytes += len(data) if alone else self._head_size()
            if self._head_bytes > self._limits.max_head:
                self._fail(_HEAD_TOO_LARGE)
        elif self._intake.big is not None:
            self._intake.big.take_over()
        elif self._intake.request is not None:
            self._deadline = self.loop.time() + self._limits.body_s

    def _switch(self, rest: bytes) -> None:
        """The parser stopped behind a request that asks for another protocol."""
        request = self.cycle
        if isinstance(request, Request) and request.upgrade and request is self._serving and self._exchange is not None:
            self._tunnelled = True
            self.flow.pause_reading()
            if rest:
                self._exchange.from_client(rest)
        elif self._should_upgrade() and not isinstance(request, Request):
            self._road.leave(self)
            self.handle_websocket_upgrade()
        else:
            # Whatever follows belongs to a protocol that was not agreed on. One that is asked for behind another
            # request is not served either: nobody does that, and its first bytes would have to wait somewhere.
            self._dead = True

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._exchange is not None:
            self._exchange.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._exchange is not None:
            self._exchange.resume()

    # What the parser finds

    def on_message_begin(self) -> None:
        # What uvicorn needs for the application is made when it turns out to be for the application.
        self.url = b""
        self.headers = []
        self._in_head = True
        self._head_bytes = 0
        self._begun += 1
        self._between = False
        self._deadline = self.loop.time() + self._limits.head_s

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > self._limits.max_line:
            self._fail(bad("cannot read the request: its address is too long", "uri_too_long", 414))

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # else a trailer: it must not look like a header of the request
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._dead:
            return
        headers = self.headers
        fields = dict(headers)
        hosts = int(b"host" in fields) if len(fields) == len(headers) else [name for name, _ in headers].count(b"host")
        self.expect_100_continue = fields.get(b"expect", b"").lower() == b"100-continue"
        fault = judge(self.parser.get_http_version(), hosts, self.url)
        if len(headers) > self._limits.max_headers or self._is_large():
            fault = _HEAD_TOO_LARGE
        if fault is not None:
            self._fail(fault)
            return
        self._deadline = 0.0
        request = meant_for_engine(self.parser.get_method(), self.url, headers, fields)
        if request is None:
            self._leave_to_application()
        else:
            self._take(request)

    def _leave_to_application(self) -> None:
        """Go on as uvicorn does, which has not seen the beginning."""
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)  # the list that is in the scope
        super().on_headers_complete()

    def _is_large(self) -> bool:
        """Whether the head is over its limit; it is only counted if what was read could hold so much."""
        limit = self._limits.max_head
        return self._head_bytes + self._read > limit and self._head_size() > limit

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _take(self, request: Request) -> None:
        """A request for the fast lane; it starts now or, pipelined, when the answer before it has ended."""
        old = self.parser.get_http_version() == "1.0"
        request.old = old
        request.keep_alive = not old and self.parser.should_keep_alive() and not self.parser.should_upgrade()
        request.expects = self.expect_100_continue and not old
        request.peer = self.client[0] if self.client else ""
        if self.parser.should_upgrade() and request.fields.get(b"upgrade", b"").lower() == b"websocket":
            request.upgrade = request.fields.get(b"upgrade", b"")
        request.fault = admit(request, self._limits, self._road.guard)
        before = self.cycle
        self.cycle = cast("Any", request)
        self._intake.request = request
        if before is None or before.response_complete:
            self._start(request)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        if isinstance(cycle, Request):
            self._start(cycle)
        else:
            super()._start_asgi_task(cycle, app)

    def _start(self, request: Request) -> None:
        """It is this request's turn."""
        if self._dead:
            bodies.let_go(self._road, request)
            self.transport.close()
            return
        request.started = True
        self._serving = request
        if request.fault is not None:
            self._forget_bodies()
            self.cycle = cast("Any", request)  # nothing behind it will be served
            self._intake.request = request
            self._fail(request.fault)
            return
        if not request.more_body:
            self._begin(request)
            return
        if request.expects:
            self.transport.write(_CONTINUE)
        self._deadline = self.loop.time() + self._limits.body_s
        fault = self._intake.prepare(self)
        if fault is not None:
            self._fail(fault)

    def on_body(self, body: bytes) -> None:
        if self._dead:
            return
        if self._intake.request is None:
            super().on_body(body)
            return
        fault = self._intake.add(body)
        if fault is not None:
            self._fail(fault)

    def on_message_complete(self) -> None:
        self._between = True
        if self._dead:
            return
        request = self._intake.close()
        if request is None:
            super().on_message_complete()
        elif request.started:
            self._begin(request)

    def body_moved(self, size: int) -> bool:
        """A large body came further by ``size`` bytes; whether it may go on."""
        self._deadline = self.loop.time() + self._limits.body_s
        if self._dead:
            return False
        fault = self._intake.count(size)
        if fault is not None:
            self._fail(fault)
        return fault is None

    def body_complete(self, parser: httptools.HttpRequestParser) -> None:
        """A large body was received past the parser; a new one reads what follows."""
        self._between = True
        self.parser = parser
        request = self._intake.close()
        assert request is not None
        self._begin(request)

    # The fast lane

    def _begin(self, request: Request) -> None:
        self._deadline = 0.0
        if not request.route.path:
            self.transport.write(letter.permission(request))
            self.finished(request.keep_alive)
            return
        self._exchange = Exchange(self, request, self._road)
        self._exchange.begin()

    def finished(self, keep: bool) -> None:
        """The answer has ended: the next request, or the end of the connection."""
        self._exchange = None
        serving, self._serving = self._serving, None
        if serving is not None:
            serving.response_complete = True
        if self.transport.is_closing():
            return
        if keep and serving is not None and serving.keep_alive and not self._dead:
            self.on_response_complete()
        else:
            self._dead = True
            self.transport.close()

    def on_response_complete(self) -> None:
        """As uvicorn has it, but with a deadline instead of a timer, and a pipelined request begins on a fresh stack."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self.loop.call_soon(self._start_asgi_task, *self.pipeline.pop())
        else:
            self._deadline = self.loop.time() + self._limits.idle_s

    def send_400_response(self, msg: str) -> None:
        """uvicorn's own complaint, in the form that clients of the API understand."""
        self._fail(bad(msg))

    def _fail(self, fault: Fault) -> None:
        """The framing is lost or the request is refused unread: an error, then the end of the connection.

        An answer that is still on its way comes first; then the end alone must do. What the client goes on
        sending is read for a moment and dropped: closing at once would take the error away from it.
        """
        if self._dead:
            return
        self._dead = True
        request = self._intake.drop()
        self._in_head = False
        if self._busy():
            for cycle in (self.cycle, self._serving):
                if cycle is not None:
                    cycle.keep_alive = False
            return
        if self.transport.is_closing():
            return
        ident = request.ident if request is not None and request.ident else self._road.new_id()
        self.transport.write(letter.last_word(fault, request, ident))
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self._deadline = self.loop.time() + _LINGER_S
        else:
            self.transport.close()

    def _busy(self) -> bool:
        """Whether an answer is on its way that the client must get first."""
        if self._exchange is not None or self.pipeline:
            return True
        cycle = self.cycle
        return cycle is not None and not isinstance(cycle, Request) and not cycle.response_complete

    def _forget_bodies(self) -> None:
        self._intake.drop()
        for cycle, _ in self.pipeline:
            if isinstance(cycle, Request):
                bodies.let_go(self._road, cycle)
        self.pipeline.clear()
