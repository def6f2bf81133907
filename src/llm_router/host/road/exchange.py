"""One exchange: a request's way from its last byte to the end of its answer.

It asks the desk for an instance, sends the request there, and sees to it that each step is told to the client. Each
step is a callback; no task waits here. It refuses to know how a model comes to be loaded and what is written to the
client. A lease is given back exactly once, by whatever road the exchange ends.
"""

import asyncio
import time
from enum import Enum
from typing import Final

from llm_router.core.words import EndReason, Notice, Outcome, Refusal, TicketId
from llm_router.host import desk as seam
from llm_router.host.road import bodies, outgoing
from llm_router.host.road.careful import careful
from llm_router.host.road.connection import Sending, Trouble
from llm_router.host.road.hearing import Hearing, hear
from llm_router.host.road.incoming import Client, Request
from llm_router.host.road.record import record
from llm_router.host.road.reply import Reply
from llm_router.host.road.road import Road
from llm_router.host.road.telling import Telling
from llm_router.host.road.tunnel import Tunnel
from llm_router.wire import errors, heads, ollama, sse
from llm_router.wire.errors import BadRequestError, Fault

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
    """See the module. It is a ``desk.Waiter`` towards the desk and a ``connection.Receiver`` towards the engine."""

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
        self._telling = Telling(self._reply, request, self._id, road.limits, self._began)
        self._hearing: Hearing | None = None
        self._ticket: TicketId | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._lease: seam.Lease | None = None
        self._tries = 0
        self._sending: Sending | None = None
        self._tunnel = Tunnel(self, client, road.pools) if request.upgrade else None
        #: Seconds from the grant to the head of the answer.
        self._first_byte_s: float | None = None
        road.exchanges.add(self)

    def __repr__(self) -> str:
        model = self._hearing.model if self._hearing is not None else "?"
        return f"<exchange {self._id} {model} {self._place.value}>"

    # Reading and waiting

    @careful
    def begin(self) -> None:
        """The request is whole: find its model and take a place in line."""
        wall, began = time.time(), time.perf_counter()
        try:
            heard = hear(self._request, self._road, self._id, int(wall))
        except BadRequestError as error:
            self._break(error.fault, Outcome.failed)
            return
        self._hearing = heard
        self._began = self._loop.time()
        self._telling.agree(heard, self._began, wall)
        only = heard.only
        if only is not None and only.keep_s == 0 and heard.model not in self._road.desk.serving():
            self._answer_only(only, unloaded=True)
            return
        self._telling.own_s = time.perf_counter() - began
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
        if self._telling.speaker is not None:
            self._timer = self._loop.call_later(self._road.limits.commit_s, self._commit)
        elif self._road.manners.hold_s is not None:
            self._timer = self._loop.call_later(self._road.manners.hold_s, self._let_go)

    def _line_up_again(self) -> None:
        """The engine was dead when the request came to it. Nothing was answered, so nothing is lost by another try:
        as soon as its end is known, the request waits for the next one."""
        self._release(Outcome.failed)
        self._tries += 1
        self._ticket = None
        self._telling.again()
        self._place = Place.waiting
        self._timer = self._loop.call_later(self._road.limits.again_s, self._line_up)

    @careful
    def _commit(self) -> None:
        """The wait is long enough to be told."""
        self._timer = None
        self._telling.commit(self._news(), self._loop.time())

    @careful
    def _let_go(self) -> None:
        """A held request was held as long as it may be."""
        self._timer = None
        notice = self._news()
        hearing = self._hearing
        assert hearing is not None
        if self._ticket is not None:
            desk = self._road.desk
            (desk.withdraw if hearing.wish.background else desk.let_go)(self._ticket)
        self._break(errors.still_waiting(notice, hearing.model), Outcome.failed)

    def _news(self) -> Notice | None:
        return None if self._ticket is None else self._road.desk.notice(self._ticket)

    @careful
    def tick(self, now: float) -> None:
        """About once a second: whatever has to be said for the sake of time."""
        telling = self._telling
        if self._place is Place.waiting and telling.speaker is not None:
            telling.speaker.tell(self._news(), now)
        elif self._place is Place.asking:
            telling.silence(now)
        elif self._place is not Place.over:
            telling.breathe(now)

    # What the desk says

    @careful
    def told(self) -> None:
        speaker = self._telling.speaker
        if self._place is Place.waiting and speaker is not None:
            speaker.tell(self._news(), self._loop.time())

    @careful
    def refused(self, refusal: Refusal) -> None:
        if self._place is not Place.waiting:
            return
        speaker = self._telling.speaker
        told = None if speaker is None else speaker.notice
        operator = self._request.visitor.operator
        self._break(errors.refusal(refusal, told or self._news(), operator=operator), Outcome.failed)

    @careful
    def granted(self, lease: seam.Lease) -> None:
        self._lease = lease
        if self._place is not Place.waiting:
            self._release(Outcome.left)
            return
        began, hearing = time.perf_counter(), self._hearing
        assert hearing is not None
        self._stop_timer()
        self._place = Place.asking
        self._ticket = lease.ticket
        self._telling.served(lease, self._loop.time())
        if self._tunnel is not None:
            self._tunnel.open(lease.host, lease.port, outgoing.switch(self._request, hearing, lease, self._id))
            return
        if hearing.only is not None:
            self._answer_only(hearing.only, unloaded=hearing.only.keep_s == 0)
            return
        try:
            self._ask(hearing, lease)
        except BadRequestError as error:
            self._break(error.fault, Outcome.done)
        self._telling.own_s += time.perf_counter() - began

    @careful
    def ended(self, reason: EndReason) -> None:
        self._break(errors.ended(reason), Outcome.failed)

    def moved(self) -> int | None:
        return self._telling.moved() if self._tunnel is None else self._tunnel.moved

    # What the engine is asked, and says

    def _ask(self, hearing: Hearing, lease: seam.Lease) -> None:
        asking = hearing.ask(lease, self._request.content, self._road.join)
        self._telling.expect(asking, lease.dialect)
        if asking.answer is not None:
            self._telling.at_once(asking.answer)
            self._over(Outcome.done)
            return
        self._sending = outgoing.sending(self._request, asking, lease, self._id, self)
        self._road.pools.send(lease.host, lease.port, self._sending)

    @careful
    def answered(self, status: int, headers: heads.Headers, length: int | None) -> None:
        self._place = Place.answering
        bodies.let_go(self._road, self._request)
        self._first_byte_s = self._loop.time() - self._telling.terms.asked_at
        self._telling.begin(status, headers, length)

    @careful
    def received(self, data: bytes) -> None:
        try:
            done = self._telling.body(data, self._loop.time())
        except sse.EventTooLongError as error:
            self._break(errors.engine("engine_answered_badly", f"{error}"), Outcome.failed)
            return
        if done:
            self._close()

    @careful
    def completed(self) -> None:
        self._sending = None
        fault = self._telling.end(self._loop.time())
        if fault is None:
            self._close()
        else:
            self._break(fault, Outcome.failed if fault.status >= 500 else Outcome.done)

    @careful
    def failed(self, trouble: Trouble) -> None:
        self._sending = None
        most = _TRIES.get(trouble.code, 0)
        if self._place is Place.asking and self._tries < most and not trouble.answered:
            self._line_up_again()
            return
        self._break(errors.engine(trouble.code, trouble.text), Outcome.failed)

    def tunnel_closed(self, fault: Fault | None) -> None:
        """The tunnel ended; ``fault`` if it never came about."""
        if fault is not None:
            self._break(fault, Outcome.failed)
        else:
            self._telling.status = 101
            self._over(Outcome.done)

    # What the client does

    def from_client(self, data: bytes) -> None:
        """Bytes of a client that asked for another protocol."""
        if self._tunnel is not None:
            self._tunnel.from_client(data)

    def pause(self) -> None:
        """The client reads more slowly than the engine writes."""
        way = self._tunnel or self._sending
        if way is not None:
            way.pause()

    def resume(self) -> None:
        way = self._tunnel or self._sending
        if way is not None:
            way.resume()

    def client_left(self) -> None:
        """The client's connection is gone."""
        if self._place is Place.over:
            return
        self._withdraw()
        self._over(Outcome.left)

    # The end

    def shut_down(self) -> None:
        """The router ends, and so must this."""
        self._withdraw()
        self._break(Fault(503, "shutting_down", "the router is shutting down", retry_after_s=5.0), Outcome.failed)

    def give_up(self) -> None:
        """Something went wrong that nobody foresaw."""
        self._withdraw()
        self._break(errors.OWN_FAULT, Outcome.failed)

    def _answer_only(self, only: ollama.Asked, *, unloaded: bool) -> None:
        """The model is there, or is not: more was not asked for."""
        self._telling.only(only, self._loop.time(), unloaded=unloaded)
        self._over(Outcome.done)

    def _close(self) -> None:
        """The client has all it gets."""
        outcome = self._telling.close()
        sending, self._sending = self._sending, None
        if sending is not None:
            sending.leave()
        self._over(outcome)

    def _break(self, fault: Fault, outcome: Outcome) -> None:
        """It cannot go on."""
        if self._place is Place.over:
            return
        if self._tunnel is not None and self._tunnel.switched:
            self._reply.abort()
        else:
            self._telling.fault(fault, self._loop.time(), served=self._lease is not None)
        self._over(outcome)

    def _over(self, outcome: Outcome) -> None:
        self._place = Place.over
        self._stop_timer()
        self._road.exchanges.discard(self)
        bodies.let_go(self._road, self._request)
        sending, self._sending = self._sending, None
        if sending is not None:
            sending.abort()
        if self._tunnel is not None:
            self._tunnel.abort()
        self._release(outcome)
        self._client.finished(self._reply.keep)

    def _withdraw(self) -> None:
        """Leave the line, if the exchange stands in it."""
        if self._place is Place.waiting and self._ticket is not None:
            self._road.desk.withdraw(self._ticket)

    def _release(self, outcome: Outcome) -> None:
        lease, self._lease = self._lease, None
        if lease is None:
            return
        self._road.desk.release(
            lease.ticket,
            record(
                lease,
                self._request,
                self._telling.terms,
                ident=self._id,
                status=self._telling.status,
                stream=self._hearing is not None and self._hearing.order.asked.stream,
                outcome=outcome,
                first_byte_s=self._first_byte_s,
                total_s=self._loop.time() - self._began,
            ),
        )

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
