"""One exchange: a request's way from its last byte to the end of its answer.

It asks the desk for an instance, tells the client of the wait, sends the request, and passes the answer on.
Each step is a callback; no task waits here. It refuses to know how a model comes to be loaded and what
the bytes of an answer mean. A lease is given back exactly once, by whatever road the exchange ends.
"""

import asyncio
import time
from enum import Enum
from typing import Final

from llm_router.core.words import EndReason, ModelName, Notice, Outcome, Refusal, TicketId
from llm_router.host import desk as seam
from llm_router.host.connection import Sending, Trouble
from llm_router.host.incoming import Client, Request
from llm_router.host.record import record
from llm_router.host.reply import Reply
from llm_router.host.road import Road
from llm_router.host.speaker import Speaker
from llm_router.host.tunnel import Tunnel
from llm_router.host.upstream import authority
from llm_router.wire import access, errors, heads, order, sse, status
from llm_router.wire.answer import Answer, PlainAnswer, Terms
from llm_router.wire.errors import BadRequestError, Fault
from llm_router.wire.forms import Collected, Joined, answer_for
from llm_router.wire.order import Order
from llm_router.wire.paths import Api

#: How often a request is tried again by what befell it before any answer: an engine
#: that has just died refuses connections until its end is known; one that died of the request must not kill many.
_TRIES: Final = {"engine_unreachable": 20, "engine_broke_off": 1}


class Place(Enum):
    """Where the exchange is. ``over`` is the end of all."""

    reading = "reading"
    waiting = "waiting"
    asking = "asking"
    answering = "answering"
    over = "over"


class Exchange:
    """See the module. It is a ``desk.Waiter`` towards the desk and an ``upstream.Receiver`` towards the engine."""

    def __init__(self, client: Client, request: Request, road: Road) -> None:
        self._client = client
        self._request = request
        self._road = road
        self._loop = asyncio.get_running_loop()
        self._place = Place.reading
        self._began = self._loop.time()
        self._id = request.ident or road.new_id()
        self._reply = Reply(
            client.transport, old=request.old, head_only=request.method == b"HEAD", keep=request.keep_alive
        )
        self._wish: seam.Wish | None = None
        self._tries = 0
        self._ticket: TicketId | None = None
        self._lease: seam.Lease | None = None
        self._sending: Sending | None = None
        self._answer: Answer | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._terms = Terms(asked_at=self._began)
        self._speaker = Speaker(self._reply, self._terms, road.limits, self._news)
        self._order: Order | None = None
        self._model = ModelName("")
        self._path = request.path
        self._talks = False
        self._status = 0
        self._first: float | None = None
        self._asked = self._began
        self._tunnel: Tunnel | None = None
        self._early: list[bytes] = []
        road.exchanges.add(self)

    def __repr__(self) -> str:
        return f"<exchange {self._id} {self._model or '?'} {self._place.value}>"

    # Reading and waiting

    def begin(self) -> None:
        """The request is whole: find its model and take a place in line."""
        try:
            self._order = order.read(
                self._request.route,
                self._request.query,
                self._request.fields.get(b"content-type", b""),
                self._request.body,
            )
            self._find(self._order)
        except BadRequestError as error:
            self._refuse(error.fault)
            return
        asked = self._order.asked
        mode = order.status_mode(self._request.fields, self._road.limits.status_mode)
        api = self._request.route.api
        self._talks = asked.stream and api is not Api.other
        self._speaker.model = self._model
        if asked.stream:
            self._terms.face = status.face(api, mode, self._id, self._model, int(time.time()))
        self._terms.closing = not asked.structured
        self._terms.choices = asked.choices
        self._terms.wants_usage = asked.wants_usage
        background = order.is_background(self._request.fields, asked)
        visitor = self._request.visitor
        self._began = self._terms.asked_at = self._loop.time()
        self._wish = seam.Wish(self._model, visitor.caller, visitor.priority, background)
        self._line_up()

    def _line_up(self) -> None:
        """Take a place in line; the grant or the refusal may come before this returns."""
        assert self._wish is not None
        self._place = Place.waiting
        ticket = self._road.desk.arrive(self._wish, self)
        if self._place is not Place.waiting:
            return
        self._ticket = ticket
        if self._talks and self._terms.face is not None:
            self._timer = self._loop.call_later(self._road.limits.commit_s, self._commit)
        elif self._road.limits.hold_s is not None:
            self._timer = self._loop.call_later(self._road.limits.hold_s, self._let_go)

    def _line_up_again(self) -> None:
        """The engine was dead when the request came to it. Nothing was answered, so nothing is lost by another try:
        as soon as its end is known, the request waits for the next one."""
        self._release(Outcome.failed)
        self._tries += 1
        self._ticket = self._answer = None
        self._speaker.line = self._terms.opened
        self._place = Place.waiting
        self._timer = self._loop.call_later(self._road.limits.again_s, self._line_up)

    def _find(self, found: Order) -> None:
        desk = self._road.desk
        for name, path in found.models:
            model = desk.find(name)
            if model is not None:
                self._model, self._path = model, path
                return
        first = found.models[0][0]
        nearest = desk.nearest(first)
        raise _UnusableError(errors.unknown_model(first, nearest) if first else errors.no_model(nearest))

    def _commit(self) -> None:
        """The wait is long enough to be told: from here on the answer is a stream with status 200."""
        self._timer = None
        self._speak(self._speaker.news())

    def _speak(self, text: str) -> None:
        """Promise a stream and say the first word in it, before the engine does."""
        if self._reply.begun or self._terms.face is None:
            return
        self._status = 200
        self._speaker.open(text, self._own_lines(), self._loop.time())

    def _news(self) -> Notice | None:
        return None if self._ticket is None else self._road.desk.notice(self._ticket)

    def _let_go(self) -> None:
        """A held request was held as long as it may be."""
        self._timer = None
        self._speaker.news()
        if self._ticket is not None:
            self._road.desk.withdraw(self._ticket)
        self._refuse(errors.still_waiting(self._speaker.notice, self._model))

    def tick(self, now: float) -> None:
        """About once a second: whatever has to be said for the sake of time."""
        if not self._talks:
            return
        if self._place is Place.waiting:
            self._speaker.tell(now)
        elif self._place is Place.asking and not self._reply.begun:
            if now - self._asked > self._road.limits.silence_s:
                self._speak(f"{self._model} is reading the prompt")
        elif self._place is not Place.over and (self._answer is None or self._answer.spoken):
            self._speaker.breathe(now)

    # What the desk says

    def told(self) -> None:
        if self._place is Place.waiting:
            self._speaker.tell(self._loop.time())

    def refused(self, refusal: Refusal) -> None:
        if self._place is not Place.waiting:
            return
        if self._speaker.notice is None:
            self._speaker.news()
        self._refuse(errors.refusal(refusal, self._speaker.notice))

    def granted(self, lease: seam.Lease) -> None:
        self._lease = lease
        if self._place is not Place.waiting:
            self._release(Outcome.left)
            return
        self._stop_timer()
        now = self._loop.time()
        self._place = Place.asking
        self._ticket = lease.ticket
        self._asked = self._terms.asked_at = now
        self._terms.waited_s, self._terms.loaded_s = lease.waited_s, lease.loaded_s
        if self._terms.opened:
            self._speaker.finish_line(now)
        if self._request.upgrade:
            self._tunnel = Tunnel(self, self._client, self._road.pools)
            for data in self._early:
                self._tunnel.from_client(data)
            self._tunnel.open(lease.host, lease.port, self._head(lease, None))
            return
        try:
            self._send(lease)
        except BadRequestError as error:
            self._break(error.fault, Outcome.done)

    def ended(self, reason: EndReason) -> None:
        self._break(errors.ended(reason), Outcome.failed)

    def moved(self) -> int:
        return self._reply.wrote if self._tunnel is None else self._tunnel.moved

    def shut_down(self) -> None:
        """The router ends, and so must this."""
        if self._place is Place.waiting and self._ticket is not None:
            self._road.desk.withdraw(self._ticket)
        self._break(Fault(503, "shutting_down", "the router is shutting down", retry_after_s=5.0), Outcome.failed)

    # Asking the engine

    def _send(self, lease: seam.Lease) -> None:
        found = self._order
        assert found is not None
        join = None
        if order.may_join(found, lease.dialect):
            join = self._road.join(found.route.path.decode())
        body = order.body_for(found, self._request.body, lease.dialect, lease.model, join is not None)
        self._terms.hide_usage = order.hides_usage(found, lease.dialect)
        if join is not None:
            self._answer = Joined(join, self._terms)
        has_body = bool(body) or self._request.method in (b"POST", b"PUT", b"PATCH")
        head = self._head(lease, len(body) if has_body else None)
        self._sending = Sending(head, body, self, no_body=self._request.method == b"HEAD")
        self._road.pools.send(lease.host, lease.port, self._sending)

    def _head(self, lease: seam.Lease, length: int | None) -> bytes:
        found = self._order
        assert found is not None
        extra = [*lease.dialect.headers, ("x-request-id", self._id)]
        if found.asked.json:
            extra.append(("content-type", "application/json"))
        return heads.request_head(
            self._request.method,
            order.target_for(found, self._path, lease.dialect, lease.model),
            self._request.headers,
            authority(lease.host, lease.port),
            length,
            extra=extra,
            upgrade=self._request.upgrade,
        )

    # What the engine says

    def answered(self, status: int, headers: heads.Headers, length: int | None) -> None:
        self._place = Place.answering
        self._let_go_of_body()
        now = self._loop.time()
        self._first = now - self._asked
        kind = heads.value_of(headers, b"content-type").lower()
        events = kind.startswith(b"text/event-stream")
        if self._terms.opened and not (events and status == 200):
            self._answer = Collected(self._terms, status, kind)
            return
        if self._answer is not None and events and status == 200:
            self._status = 200
            return  # to be joined: its head is written when it is whole
        self._status = status
        raw = self._request.route.raw
        self._answer = answer_for(self._request.route.api, events and not raw, kind, self._terms)
        if self._terms.opened:
            return
        if not isinstance(self._answer, PlainAnswer):
            length = None
        lines = heads.answer_headers(headers, self._road.limits.trust_pages)
        if events:
            lines.append(b"x-accel-buffering: no\r\n")
        overhead = max(0.0, self._asked - self._began - self._terms.waited_s) + self._loop.time() - now
        self._reply.begin(status, [*lines, *self._own_lines(overhead)], length)

    def received(self, data: bytes) -> None:
        answer = self._answer
        assert answer is not None
        now = self._loop.time()
        try:
            out = answer.feed(data, now) if data else b""
        except sse.EventTooLongError as error:
            self._break(errors.engine("engine_answered_badly", f"{error}"), Outcome.failed)
            return
        if self._speaker.line and out:
            self._speaker.finish_line(now)
        if out or self._reply.head:
            self._speaker.wrote(now)
            self._reply.body(out)
        if answer.done:
            self._close()

    def completed(self) -> None:
        answer = self._answer
        assert answer is not None
        self._sending = None
        out = answer.end(self._loop.time())
        if isinstance(answer, Joined):
            self._close_joined(answer)
            return
        if out:
            self._speaker.finish_line(self._loop.time())
            self._reply.body(out)
        self._close()

    def failed(self, trouble: Trouble) -> None:
        self._sending = None
        most = _TRIES.get(trouble.code, 0)
        if self._place is Place.asking and self._tries < most and not trouble.answered:
            self._line_up_again()
            return
        self._break(errors.engine(trouble.code, trouble.text), Outcome.failed)

    # The end

    def client_left(self) -> None:
        """The client's connection is gone."""
        if self._place is Place.over:
            return
        if self._place is Place.waiting and self._ticket is not None:
            self._road.desk.withdraw(self._ticket)
        self._over(Outcome.left)

    def from_client(self, data: bytes) -> None:
        """Bytes of a client that asked for another protocol."""
        if self._tunnel is not None:
            self._tunnel.from_client(data)
        else:
            self._early.append(data)

    def pause(self) -> None:
        """The client reads more slowly than the engine writes."""
        if self._tunnel is not None:
            self._tunnel.pause()
        elif self._sending is not None:
            self._sending.pause()

    def resume(self) -> None:
        if self._tunnel is not None:
            self._tunnel.resume()
        elif self._sending is not None:
            self._sending.resume()

    def tunnel_closed(self, fault: Fault | None) -> None:
        """The tunnel ended; ``fault`` if it never came about."""
        if fault is not None:
            self._break(fault, Outcome.failed)
        else:
            self._status = 101
            self._over(Outcome.done)

    def _refuse(self, fault: Fault) -> None:
        """The request gets no instance."""
        self._break(fault, Outcome.failed)

    def _close_joined(self, answer: Joined) -> None:
        if answer.fault is not None:
            self._break(answer.fault, Outcome.failed)
            return
        lines = [b"content-type: application/json\r\n", *self._own_lines(), *answer.lines()]
        self._reply.whole(200, lines, answer.result)
        self._close()

    def _close(self) -> None:
        """The client has all it gets."""
        answer = self._answer
        assert answer is not None
        self._reply.end()
        sending, self._sending = self._sending, None
        if sending is not None:
            sending.leave()
        if answer.failed or self._status >= 500:
            outcome = Outcome.failed
        else:
            outcome = Outcome.continues if answer.continues else Outcome.done
        self._over(outcome)

    def _break(self, fault: Fault, outcome: Outcome) -> None:
        """It cannot go on: an error in whatever form is still possible."""
        if self._place is Place.over:
            return
        reply = self._reply
        if self._tunnel is not None and self._tunnel.switched:
            reply.abort()
        elif not reply.begun:
            self._status = fault.status
            messages = self._request.route.api is Api.messages or self._path.startswith(b"/v1/messages")
            body = errors.anthropic_body(fault) if messages else errors.openai_body(fault)
            lines = [b"%b: %b\r\n" % header for header in errors.headers(fault)]
            reply.whole(fault.status, [*lines, *self._own_lines()], body)
        elif self._answer is None or isinstance(self._answer, Collected):
            face = self._terms.face
            if face is not None:
                self._speaker.finish_line(self._loop.time())
                reply.body(face.error(fault))
            reply.end()
        elif self._answer.spoken:
            self._speaker.finish_line(self._loop.time())
            reply.body(self._answer.broken(fault))
            reply.end()
        else:
            reply.abort()
        self._over(outcome)

    def _over(self, outcome: Outcome) -> None:
        self._place = Place.over
        self._stop_timer()
        self._road.exchanges.discard(self)
        self._let_go_of_body()
        sending, self._sending = self._sending, None
        if sending is not None:
            sending.abort()
        if self._tunnel is not None:
            self._tunnel.abort()
        self._release(outcome)
        self._client.finished(self._reply.keep)

    def _let_go_of_body(self) -> None:
        self._request.body = b""
        self._road.held_bytes -= self._request.held
        self._request.held = 0

    def _release(self, outcome: Outcome) -> None:
        lease, self._lease = self._lease, None
        if lease is None:
            return
        asked = self._order is not None and self._order.asked.stream
        self._road.desk.release(
            lease.ticket,
            record(
                lease,
                self._request,
                self._terms,
                ident=self._id,
                status=self._status,
                stream=asked,
                outcome=outcome,
                first_byte_s=self._first,
                total_s=self._loop.time() - self._began,
            ),
        )

    def _own_lines(self, overhead: float | None = None) -> list[bytes]:
        lease = self._lease
        lines = heads.own_lines(self._id, self._model)
        if lease is not None:
            lines += heads.lease_lines(lease.instance, lease.waited_s, lease.loaded_s, overhead)
        return lines + access.answer(self._request.origin) if self._request.origin else lines

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _UnusableError(BadRequestError):
    """Carries a fault that is made already."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault
