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
from llm_router.host.road.careful import careful
from llm_router.host.road.connection import Sending, Trouble
from llm_router.host.road.hearing import Hearing, hear
from llm_router.host.road.incoming import Client, Request
from llm_router.host.road.letter import JSON, Letter
from llm_router.host.road.reading import Reading
from llm_router.host.road.record import record
from llm_router.host.road.reply import Reply
from llm_router.host.road.road import Road
from llm_router.host.road.speaker import Speaker
from llm_router.host.road.tunnel import Tunnel
from llm_router.host.road.upstream import authority
from llm_router.wire import errors, faces, heads, ollama, ollama_answer, order, sse
from llm_router.wire.answer import Answer, PlainAnswer, Terms
from llm_router.wire.content import NOTHING
from llm_router.wire.errors import BadRequestError, Fault
from llm_router.wire.forms import Collected, Joined
from llm_router.wire.translated import Kept, TranslatedAnswer

_STREAM: Final = b"content-type: %b\r\ncache-control: no-cache\r\n"
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
        self._tries = 0
        #: Seconds of work of our own so far; the loop's clock is too coarse to tell.
        self._own_s = 0.0
        #: Bytes of the answer, without the engine's pings.
        self._heard = 0
        self._ticket: TicketId | None = None
        self._lease: seam.Lease | None = None
        self._sending: Sending | None = None
        self._answer: Answer | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._terms = Terms(asked_at=self._began)
        #: The router's own voice, where it may speak.
        self._speaker: Speaker | None = None
        self._letter = Letter(self._reply, request, self._id, road.limits.silence_s, self._began)
        self._hearing: Hearing | None = None
        self._reading: Reading | None = None
        self._model = ModelName("")
        self._talks = False
        #: The head of an answer that is kept until it is whole, and what makes a Unix time of the loop's clock.
        self._kept_lines: list[bytes] = []
        self._epoch = 0.0
        self._status = 0
        self._first: float | None = None
        self._asked = self._began
        self._tunnel: Tunnel | None = None
        self._early: list[bytes] = []
        road.exchanges.add(self)

    def __repr__(self) -> str:
        return f"<exchange {self._id} {self._model or '?'} {self._place.value}>"

    # Reading and waiting

    @careful
    def begin(self) -> None:
        """The request is whole: find its model and take a place in line."""
        wall, began = time.time(), time.perf_counter()
        try:
            heard = hear(self._request, self._road, self._id, int(wall))
        except BadRequestError as error:
            self._refuse(error.fault)
            return
        self._hearing = self._letter.hearing = heard
        self._model = heard.model
        self._talks = heard.talks
        terms, asked = self._terms, heard.order.asked
        terms.face = heard.face
        if heard.talks and heard.face is not None:
            self._speaker = Speaker(self._reply, terms, heard.face, self._road.limits, heard.model)
        if heard.talks and not faces.tells_errors(heard.face):
            terms.herald = faces.for_errors(self._request.route.api, self._id, heard.model, int(wall))
        terms.closing = not asked.structured
        terms.choices = asked.choices
        terms.wants_usage = asked.wants_usage
        self._began = terms.asked_at = self._loop.time()
        self._epoch = wall - self._began
        if heard.only is not None and heard.only.keep_s == 0 and self._model not in self._road.desk.serving():
            self._answer_only(heard.only, unloaded=True)
            return
        self._own_s = time.perf_counter() - began
        self._line_up()

    @careful
    def _line_up(self) -> None:
        """Take a place in line; the grant or the refusal may come before this returns."""
        assert self._hearing is not None
        self._place = Place.waiting
        ticket = self._road.desk.arrive(self._hearing.wish, self)
        if self._place is not Place.waiting:
            return
        self._ticket = ticket
        if self._speaker is not None:
            self._timer = self._loop.call_later(self._road.limits.commit_s, self._commit)
        elif self._road.manners.hold_s is not None:
            self._timer = self._loop.call_later(self._road.manners.hold_s, self._let_go)

    def _line_up_again(self) -> None:
        """The engine was dead when the request came to it. Nothing was answered, so nothing is lost by another try:
        as soon as its end is known, the request waits for the next one."""
        self._release(Outcome.failed)
        self._tries += 1
        self._ticket = self._answer = self._letter.lease = None
        if self._speaker is not None:
            self._speaker.line = self._terms.opened
        self._place = Place.waiting
        self._timer = self._loop.call_later(self._road.limits.again_s, self._line_up)

    @careful
    def _commit(self) -> None:
        """The wait is long enough to be told: from here on the answer is a stream with status 200."""
        self._timer = None
        if self._speaker is not None:
            self._speak(self._speaker, self._speaker.news(self._news()))

    def _speak(self, speaker: Speaker, text: str) -> None:
        """Promise a stream and say the first word in it, before the engine does."""
        if not self._reply.begun:
            self._status = 200
            speaker.open(text, self._letter.lines(), self._loop.time())

    def _news(self) -> Notice | None:
        return None if self._ticket is None else self._road.desk.notice(self._ticket)

    @careful
    def _let_go(self) -> None:
        """A held request was held as long as it may be."""
        self._timer = None
        notice = self._news()
        if self._ticket is not None and self._hearing is not None:
            desk = self._road.desk
            (desk.withdraw if self._hearing.wish.background else desk.let_go)(self._ticket)
        self._refuse(errors.still_waiting(notice, self._model))

    @careful
    def tick(self, now: float) -> None:
        """About once a second: whatever has to be said for the sake of time."""
        speaker = self._speaker
        if not self._talks:
            if self._hearing is not None and self._hearing.patient:
                self._space(now)
        elif speaker is None:
            return
        elif self._place is Place.waiting:
            speaker.tell(self._news(), now)
        elif self._place is Place.asking and not self._reply.begun:
            if now - self._asked > self._road.limits.silence_s:
                self._speak(speaker, speaker.reading())
        elif self._place is not Place.over and (self._answer is None or self._answer.spoken):
            speaker.breathe(now)

    def _space(self, now: float) -> None:
        """A sign of life that JSON permits before a value. The answer's status is promised with the first."""
        silent = self._answer is None or isinstance(self._answer, Joined | Kept)
        if self._place is not Place.over and silent and self._letter.space(now):
            self._status = 200

    # What the desk says

    @careful
    def told(self) -> None:
        if self._place is Place.waiting and self._speaker is not None:
            self._speaker.tell(self._news(), self._loop.time())

    @careful
    def refused(self, refusal: Refusal) -> None:
        if self._place is not Place.waiting:
            return
        told = None if self._speaker is None else self._speaker.notice
        operator = self._request.visitor.operator
        self._refuse(errors.refusal(refusal, told or self._news(), operator=operator))

    @careful
    def granted(self, lease: seam.Lease) -> None:
        self._lease = self._letter.lease = lease
        if self._place is not Place.waiting:
            self._release(Outcome.left)
            return
        began = time.perf_counter()
        self._stop_timer()
        now = self._loop.time()
        self._place = Place.asking
        self._ticket = lease.ticket
        self._asked = self._terms.asked_at = now
        self._terms.waited_s, self._terms.loaded_s = lease.waited_s, lease.loaded_s
        self._finish_line(now)
        if self._request.upgrade:
            self._tunnel = Tunnel(self, self._client, self._road.pools)
            for data in self._early:
                self._tunnel.from_client(data)
            self._tunnel.open(lease.host, lease.port, self._head(lease, None))
            return
        if self._hearing is not None and self._hearing.only is not None:
            self._answer_only(self._hearing.only)
            return
        try:
            self._send(lease)
        except BadRequestError as error:
            self._break(error.fault, Outcome.done)
        self._own_s += time.perf_counter() - began

    @careful
    def ended(self, reason: EndReason) -> None:
        self._break(errors.ended(reason), Outcome.failed)

    def moved(self) -> int | None:
        if self._tunnel is not None:
            return self._tunnel.moved
        streams = self._hearing is not None and self._hearing.order.asked.stream
        return self._heard if streams or isinstance(self._answer, Joined) else None

    def shut_down(self) -> None:
        """The router ends, and so must this."""
        if self._place is Place.waiting and self._ticket is not None:
            self._road.desk.withdraw(self._ticket)
        self._break(Fault(503, "shutting_down", "the router is shutting down", retry_after_s=5.0), Outcome.failed)

    def give_up(self) -> None:
        """Something went wrong that nobody foresaw."""
        self._break(errors.OWN_FAULT, Outcome.failed)

    # Asking the engine

    def _send(self, lease: seam.Lease) -> None:
        assert self._hearing is not None
        asking = self._letter.asking = self._hearing.ask(lease, self._request.content, self._road.join)
        if asking.answer is not None:
            self._answer_at_once(asking.answer)
            return
        body = asking.body
        self._terms.hide_usage = order.hides_usage(asking.order, lease.dialect)
        reading = self._reading = Reading(
            asking, self._request.route, self._terms, self._id, self._model, self._began, self._epoch
        )
        self._answer = reading.joined()
        has_body = bool(body) or self._request.method in (b"POST", b"PUT", b"PATCH")
        head = self._head(lease, len(body) if has_body else None)
        self._sending = Sending(head, body, self, no_body=self._request.method == b"HEAD")
        self._road.pools.send(lease.host, lease.port, self._sending)

    def _head(self, lease: seam.Lease, length: int | None) -> bytes:
        assert self._hearing is not None
        asking = self._letter.asking
        found, path = (asking.order, asking.path) if asking else (self._hearing.order, self._hearing.path)
        extra = {**heads.encoded(lease.dialect.headers), b"x-request-id": self._id.encode()}
        if found.asked.json:
            extra[b"content-type"] = b"application/json"
        return heads.request_head(
            self._request.method,
            order.target_for(found, path, lease.dialect, lease.model),
            self._request.headers,
            authority(lease.host, lease.port),
            length,
            extra=extra,
            upgrade=self._request.upgrade,
        )

    # What the engine says

    @careful
    def answered(self, status: int, headers: heads.Headers, length: int | None) -> None:
        self._place = Place.answering
        self._let_go_of_body()
        now, began = self._loop.time(), time.perf_counter()
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
        assert self._reading is not None
        self._answer = self._reading.reader(status, kind, length, events=events)
        if self._terms.opened or self._letter.spaced:
            return
        if isinstance(self._answer, TranslatedAnswer):
            lines = [_STREAM % self._answer.content_type]
        else:
            lines = heads.answer_headers(headers, self._road.limits.trust_pages)
        if not isinstance(self._answer, PlainAnswer):
            length = None
        if events:
            lines.append(b"x-accel-buffering: no\r\n")
        if isinstance(self._answer, Kept):
            self._kept_lines = lines
            return
        overhead = self._own_s + time.perf_counter() - began
        self._reply.begin(status, [*lines, *self._letter.lines(overhead)], length)

    @careful
    def received(self, data: bytes) -> None:
        answer = self._answer
        assert answer is not None
        now = self._loop.time()
        if not sse.is_ping(data):
            self._heard += len(data)
        try:
            out = answer.feed(data, now) if data else b""
        except sse.EventTooLongError as error:
            self._break(errors.engine("engine_answered_badly", f"{error}"), Outcome.failed)
            return
        speaker = self._speaker
        if speaker is not None:
            if speaker.line and out:
                speaker.finish_line(now)
            if out or self._reply.head:
                speaker.wrote(now)
        if out or self._reply.head:
            self._reply.body(out)
        if answer.done:
            self._close()

    @careful
    def completed(self) -> None:
        answer = self._answer
        assert answer is not None
        self._sending = None
        out = answer.end(self._loop.time())
        if isinstance(answer, Joined | Kept):
            self._close_whole(answer)
            return
        if out:
            self._finish_line(self._loop.time())
            self._reply.body(out)
        self._close()

    @careful
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

    def _close_whole(self, answer: Joined | Kept) -> None:
        if answer.fault is not None:
            self._break(answer.fault, Outcome.failed if answer.fault.status >= 500 else Outcome.done)
            return
        translated = self._reading is not None and self._reading.translated
        lines = [JSON] if translated or isinstance(answer, Joined) else self._kept_lines
        self._letter.whole(self._status, [*lines, *self._letter.lines(self._own_s), *answer.lines()], answer.result)
        self._close()

    def _answer_at_once(self, body: bytes) -> None:
        """Without asking an engine."""
        self._status = 200
        self._letter.whole(200, [JSON, *self._letter.lines()], body)
        self._over(Outcome.done)

    def _answer_only(self, only: ollama.Asked, *, unloaded: bool = False) -> None:
        """The model is there, or is not: more was not asked for."""
        at = self._loop.time() + self._epoch
        gone = unloaded or only.keep_s == 0
        self._answer_at_once(ollama_answer.loaded(only.form, only.model, at, unloaded=gone))

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
            self._letter.fault(fault)
        elif self._letter.spaced:
            self._letter.fault(fault)
        elif self._answer is None or isinstance(self._answer, Collected):
            self._finish_line(self._loop.time(), served=self._lease is not None)
            reply.body(self._terms.error(fault))
            reply.end()
        elif self._answer.spoken:
            self._finish_line(self._loop.time())
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
        self._request.content = NOTHING
        self._road.held_bytes -= self._request.held
        self._request.held = 0

    def _release(self, outcome: Outcome) -> None:
        lease, self._lease = self._lease, None
        if lease is None:
            return
        asked = self._hearing is not None and self._hearing.order.asked.stream
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

    def _finish_line(self, now: float, *, served: bool = True) -> None:
        if self._speaker is not None:
            self._speaker.finish_line(now, served=served)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
