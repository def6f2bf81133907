"""What one client is told: news of its wait, then the engine's answer or an error, each in a form that still fits.

It knows what was said so far, and so what can still be said. It refuses to know desks and connections to engines, and
when an exchange is over.
"""

import time
from typing import Final

from llm_router.core.words import Notice, Outcome
from llm_router.host.desk import Lease
from llm_router.host.road.hearing import Asking, Hearing
from llm_router.host.road.incoming import Request
from llm_router.host.road.letter import JSON, Letter
from llm_router.host.road.reading import Reading
from llm_router.host.road.reply import Reply
from llm_router.host.road.road import Limits
from llm_router.host.road.speaker import Speaker
from llm_router.wire import faces, heads, ollama, ollama_answer, order, sse
from llm_router.wire.answer import Answer, PlainAnswer, Terms
from llm_router.wire.dialect import Dialect
from llm_router.wire.errors import Fault
from llm_router.wire.forms import Collected, Joined
from llm_router.wire.translated import Kept, TranslatedAnswer

_STREAM: Final = b"content-type: %b\r\ncache-control: no-cache\r\n"


class Telling:
    """All that is written into one reply. Times are on the loop's clock, in seconds."""

    __slots__ = (
        "_answer",
        "_began",
        "_epoch",
        "_heard",
        "_hearing",
        "_ident",
        "_kept_lines",
        "_letter",
        "_limits",
        "_reading",
        "_reply",
        "_request",
        "own_s",
        "speaker",
        "status",
        "terms",
    )

    def __init__(self, reply: Reply, request: Request, ident: str, limits: Limits, now: float) -> None:
        self._reply = reply
        self._request = request
        self._ident = ident
        self._limits = limits
        self._letter = Letter(reply, request, ident, limits.silence_s, now)
        self._hearing: Hearing | None = None
        self._reading: Reading | None = None
        self._answer: Answer | None = None
        #: The head of an answer that is kept until it is whole.
        self._kept_lines: list[bytes] = []
        #: Bytes of the answer, without the engine's pings.
        self._heard = 0
        self._began = now
        #: What makes a Unix time of the loop's clock.
        self._epoch = 0.0
        self.terms = Terms(asked_at=now)
        #: The router's own voice, where it may speak.
        self.speaker: Speaker | None = None
        #: Of the answer, once it is promised.
        self.status = 0
        #: Seconds of work of our own so far; the loop's clock is too coarse to tell.
        self.own_s = 0.0

    # Before the engine's answer

    def agree(self, hearing: Hearing, now: float, wall: float) -> None:
        """The request is understood, and with it in which forms the client may be told something."""
        self._hearing = self._letter.hearing = hearing
        self._began, self._epoch = now, wall - now
        terms, asked, face = self.terms, hearing.order.asked, hearing.face
        if hearing.talks:
            if face is not None:
                self.speaker = Speaker(self._reply, terms, face, self._limits, hearing.model)
            if not faces.tells_errors(face):
                terms.herald = faces.for_errors(self._request.route.api, self._ident, hearing.model, int(wall))
        terms.face = face
        terms.closing = not asked.structured
        terms.choices = asked.choices
        terms.wants_usage = asked.wants_usage
        terms.asked_at = now

    def commit(self, notice: Notice | None, now: float) -> None:
        """The wait is long enough to be told: from here on the answer is a stream with status 200."""
        if self.speaker is not None:
            self._speak(self.speaker, self.speaker.news(notice), now)

    def served(self, lease: Lease, now: float) -> None:
        """An engine is asked: whatever was said of the wait comes to its end."""
        self._letter.lease = lease
        terms = self.terms
        terms.asked_at = now
        terms.waited_s, terms.loaded_s = lease.waited_s, lease.loaded_s
        self._finish_line(now)

    def expect(self, asking: Asking, dialect: Dialect) -> None:
        """What the engine is asked decides how its answer is read."""
        self._letter.asking = asking
        self.terms.hide_usage = order.hides_usage(asking.order, dialect)
        hearing = self._hearing
        assert hearing is not None
        reading = self._reading = Reading(
            asking, self._request.route, self.terms, self._ident, hearing.model, self._began, self._epoch
        )
        self._answer = reading.joined()

    def again(self) -> None:
        """The engine did not answer, and another will be asked."""
        self._answer = self._letter.lease = None
        if self.speaker is not None:
            self.speaker.line = self.terms.opened

    # For the sake of time

    def silence(self, now: float) -> None:
        """The engine was asked and has not answered yet."""
        speaker = self.speaker
        if speaker is None or self._reply.begun:
            self.breathe(now)
        elif now - self.terms.asked_at > self._limits.silence_s:
            self._speak(speaker, speaker.reading(), now)

    def breathe(self, now: float) -> None:
        """Give a sign of life, if the client was told nothing for long and one can be given."""
        answer = self._answer
        if self.speaker is not None:
            if answer is None or answer.spoken:
                self.speaker.breathe(now)
        elif self._hearing is not None and self._hearing.patient:
            # Spaces may come before a JSON value. The answer's status is promised with the first.
            silent = answer is None or isinstance(answer, Joined | Kept)
            if silent and self._letter.space(now):
                self.status = 200

    def _speak(self, speaker: Speaker, text: str, now: float) -> None:
        """Promise a stream and say the first word in it, before the engine does."""
        if not self._reply.begun:
            self.status = 200
            speaker.open(text, self._letter.lines(), now)

    def _finish_line(self, now: float, *, served: bool = True) -> None:
        if self.speaker is not None:
            self.speaker.finish_line(now, served=served)

    # The engine's answer

    def begin(self, status: int, headers: heads.Headers, length: int | None) -> None:
        """The engine's head; ``length``: bytes of its body, ``None`` if not told."""
        began = time.perf_counter()
        kind = heads.value_of(headers, b"content-type").lower()
        events = kind.startswith(b"text/event-stream")
        good = events and status == 200
        if self.terms.opened and not good:
            self._answer = Collected(self.terms, status, kind)
            return
        self.status = status
        if self._answer is not None and good:
            return  # to be joined: its head is written when it is whole
        assert self._reading is not None
        answer = self._answer = self._reading.reader(status, kind, length, events=events)
        if self.terms.opened or self._letter.spaced:
            return
        if isinstance(answer, TranslatedAnswer):
            lines = [_STREAM % answer.content_type]
        else:
            lines = heads.answer_headers(headers, self._limits.trust_pages)
        if events:
            lines.append(b"x-accel-buffering: no\r\n")
        if isinstance(answer, Kept):
            self._kept_lines = lines
            return
        overhead = self.own_s + time.perf_counter() - began
        known = length if isinstance(answer, PlainAnswer) else None
        self._reply.begin(status, [*lines, *self._letter.lines(overhead)], known)

    def body(self, data: bytes, now: float) -> bool:
        """Bytes of the engine; whether the client has all it gets. Raises ``sse.EventTooLongError``."""
        answer, reply, speaker = self._answer, self._reply, self.speaker
        assert answer is not None
        if not sse.is_ping(data):
            self._heard += len(data)
        out = answer.feed(data, now) if data else b""
        if out or reply.head:
            if speaker is not None:
                if out and speaker.line:
                    speaker.finish_line(now)
                speaker.wrote(now)
            reply.body(out)
        return answer.done

    def end(self, now: float) -> Fault | None:
        """The engine's answer is whole; why it is of no use, if it is not."""
        answer = self._answer
        assert answer is not None
        out = answer.end(now)
        if isinstance(answer, Joined | Kept):
            if answer.fault is not None:
                return answer.fault
            translated = self._reading is not None and self._reading.translated
            lines = [JSON] if translated or isinstance(answer, Joined) else self._kept_lines
            self._letter.whole(self.status, [*lines, *self._letter.lines(self.own_s), *answer.lines()], answer.result)
        elif out:
            self._finish_line(now)
            self._reply.body(out)
        return None

    def close(self) -> Outcome:
        """The client has all it gets. Gives what became of it."""
        answer = self._answer
        assert answer is not None
        self._reply.end()
        if answer.failed or self.status >= 500:
            return Outcome.failed
        return Outcome.continues if answer.continues else Outcome.done

    def moved(self) -> int | None:
        """Bytes of the answer so far, ``None`` if it comes whole at its end."""
        streams = self._hearing is not None and self._hearing.order.asked.stream
        return self._heard if streams or isinstance(self._answer, Joined) else None

    # Instead of the engine's answer

    def at_once(self, body: bytes) -> None:
        """A whole answer, without asking an engine."""
        self.status = 200
        self._letter.whole(200, [JSON, *self._letter.lines()], body)

    def only(self, only: ollama.Asked, now: float, *, unloaded: bool) -> None:
        """The model is there, or is not: more was not asked for."""
        self.at_once(ollama_answer.loaded(only.form, only.model, now + self._epoch, unloaded=unloaded))

    def fault(self, fault: Fault, now: float, *, served: bool) -> None:
        """It cannot go on: an error in whatever form is still possible. ``served``: there was an engine for it."""
        reply, answer = self._reply, self._answer
        if not reply.begun:
            self.status = fault.status
            self._letter.fault(fault)
        elif self._letter.spaced:
            self._letter.fault(fault)
        elif answer is None or isinstance(answer, Collected):
            self._finish_line(now, served=served)
            reply.body(self.terms.error(fault))
            reply.end()
        elif answer.spoken:
            self._finish_line(now)
            reply.body(answer.broken(fault))
            reply.end()
        else:
            reply.abort()
