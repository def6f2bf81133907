"""Answers that reach the client in another form than the engine's, and answers that are kept until they are whole.

They know when an answer is whole and that a part of one is never handed out. They refuse to know the forms:
an interpreter's stream and a function turn one into the other.
"""

# ruff: noqa: ARG002  every kind of answer has the same methods, and not every kind needs the clock

import re
from collections.abc import Callable
from typing import Final

from llm_router.wire import errors, sse
from llm_router.wire.answer import EventAnswer, Terms, speed_lines
from llm_router.wire.errors import Fault
from llm_router.wire.interpreters import Stream, _Timeless
from llm_router.wire.meter import Tail
from llm_router.wire.status import Face, ResponsesFace

_FIGURES: Final = re.compile(rb'"(?:usage|timings|finish_reason"\s*:\s*")')

Turn = Callable[[bytes, float], bytes]
"""Turns a whole answer into the client's form, at a Unix time. Raises ``ValueError`` for what is none."""


class TranslatedAnswer(EventAnswer):
    """A stream of chunks that becomes a stream of another form.

    ``face`` writes errors in that form. ``epoch`` is what makes a Unix time of the caller's clock.
    """

    def __init__(self, terms: Terms, stream: Stream, face: Face, epoch: float) -> None:
        super().__init__(terms)
        self._stream = stream
        self._face = face
        self._epoch = epoch

    @property
    def content_type(self) -> bytes:
        """That of the client's form."""
        return self._face.content_type

    def look(self, block: bytes, now: float) -> bytes:
        return b"".join(self._event(event, now) for event in sse.events(block))

    def _event(self, event: bytes, now: float) -> bytes:
        text = sse.payload(event)
        if text is None or self.done:
            return b""
        if _FIGURES.search(text):
            tail = Tail()
            tail.feed(text)
            self.continues = tail.read(self.meter) or self.continues
        out = self._stream.feed(text, now + self._epoch)
        self._see()
        return out

    def _see(self) -> None:
        self.failed = self._stream.failed
        self.done = self._stream.complete or self._stream.failed

    def end(self, now: float) -> bytes:
        if self.done:
            return b""
        self._split.rest()
        out = self._stream.end(now + self._epoch)
        self._see()
        self.done = True
        return out

    def broken(self, fault: Fault) -> bytes:
        self._split.rest()
        self.done = self.failed = True
        if isinstance(self._face, ResponsesFace) and isinstance(self._stream, _Timeless):
            self._face.sequence = self._stream.sequence or 0
        return self._face.error(fault)


class Kept:
    """A whole answer that is kept until it is there: to be turned into another form, or to tell its speed above it.

    With ``turn`` an engine's error becomes a ``fault``; without, everything passes as it came.
    """

    spoken = False

    def __init__(self, terms: Terms, status: int, turn: Turn | None, epoch: float = 0.0) -> None:
        self._terms = terms
        self._status = status
        self._turn = turn
        self._epoch = epoch
        self._pieces: list[bytes] = []
        self.result = b""
        self.done = False
        self.failed = False
        self.continues = False
        self.fault: Fault | None = None

    def feed(self, data: bytes, now: float) -> bytes:
        self._pieces.append(data)
        return b""

    def end(self, now: float) -> bytes:
        self.done = True
        body = b"".join(self._pieces)
        tail = Tail()
        tail.feed(body)
        self.continues = tail.read(self._terms.meter)
        if self._turn is None:
            self.result = body
        elif self._status >= 400:
            self.fault = errors.of_engine(self._status, body)
        else:
            try:
                self.result = self._turn(body, now + self._epoch)
            except ValueError as error:
                self.fault = errors.engine("engine_answered_badly", f"{error}")
        self.failed = self.fault is not None
        return b""

    def broken(self, fault: Fault) -> bytes:
        self.done = self.failed = True
        return b""

    def lines(self) -> list[bytes]:
        """The speed as header lines: here the head is still to be written."""
        return speed_lines(self._terms)
