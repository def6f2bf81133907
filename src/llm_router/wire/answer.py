"""Streams on their way from the engine to the client: read where they must be, changed only where they must be.

An ``Answer`` takes the engine's bytes and gives the client's. It knows what ends a stream of its form, what
counts tokens in it, and what an engine must not say. It refuses to know sockets: whoever feeds it writes
what it gives, and ends the body when it is ``done``.
"""

# ruff: noqa: ARG002  every kind of answer has the same methods, and not every kind needs the clock

import re
from typing import Final, Protocol

from msgspec import Struct, field

from llm_router.wire import errors, sse
from llm_router.wire.errors import Fault
from llm_router.wire.meter import Meter, Tail
from llm_router.wire.status import Face
from llm_router.wire.wording import Speed

#: A piece of content, in whatever form: a non-empty text behind one of these keys.
CONTENT: Final = re.compile(
    rb'"(?:content|text|reasoning_content|reasoning|thinking|arguments|delta|partial_json)"\s*:\s*"[^"]'
)
#: One scan with a literal first character is faster than several searches (measured: 0.8 us for 250 bytes).
_NOTABLE: Final = re.compile(rb'"(?:usage|timings|error)"')


class Terms(Struct):
    """What both sides agreed on for one answer. Times in seconds.

    ``hide_usage``: the router asked for usage, the client did not. ``wants_usage``: the client did.
    ``choices`` must finish before the answer is whole. ``closing``: the speed may be said at the end.
    ``opened``: the router spoke first, as ``face``.
    """

    face: Face | None = None
    #: Tells of errors where ``face`` is silent or does not know how.
    herald: Face | None = None
    hide_usage: bool = False
    wants_usage: bool = False
    choices: int = 1
    closing: bool = True
    opened: bool = False
    waited_s: float = 0.0
    loaded_s: float = 0.0
    asked_at: float = 0.0
    meter: Meter = field(default_factory=Meter)

    @property
    def introduced(self) -> bool:
        """The router has said what the form's streams begin with; comments are no such beginning."""
        return self.opened and self.herald is None

    def error(self, fault: Fault) -> bytes:
        """The error as an event of this answer's form."""
        face = self.herald or self.face
        return sse.data(errors.openai_body(fault)) if face is None else face.error(fault)


def speed_lines(terms: Terms) -> list[bytes]:
    """What is known of a whole answer's speed, as header lines."""
    meter, lines = terms.meter, []
    if meter.tokens:
        lines.append(b"x-llm-router-tokens: %d\r\n" % meter.tokens)
    if (speed := meter.per_second()) is not None:
        lines.append(b"x-llm-router-tokens-per-second: %.1f\r\n" % speed)
    if meter.prompt is not None:
        lines.append(b"x-llm-router-prompt-tokens: %d\r\n" % meter.prompt)
    if (speed := meter.prompt_rate(terms.asked_at)) is not None:
        lines.append(b"x-llm-router-prompt-tokens-per-second: %.1f\r\n" % speed)
    return lines


class Answer(Protocol):
    """One answer passing by. Times are seconds on the caller's clock."""

    @property
    def done(self) -> bool:
        """The client has all: end its body now."""
        ...

    @property
    def failed(self) -> bool:
        """The engine broke the answer off or reported an error in it."""
        ...

    @property
    def continues(self) -> bool:
        """The answer asks for tools."""
        ...

    @property
    def spoken(self) -> bool:
        """Whether an error event can be written into it; else a broken connection must tell."""
        ...

    def feed(self, data: bytes, now: float) -> bytes:
        """The client's bytes for these bytes of the engine. Raises ``sse.EventTooLongError``."""
        ...

    def end(self, now: float) -> bytes:
        """The engine's body ended in good order: what is still to be said. May find that it is not whole."""
        ...

    def broken(self, fault: Fault) -> bytes:
        """It cannot go on: the error for the client, ``b""`` where none can be told."""
        ...


class PlainAnswer:
    """A body that is not a stream of events: passed as it comes, its end kept to read usage from."""

    spoken = False

    def __init__(self, terms: Terms, read: bool) -> None:
        self._terms = terms
        self._tail = Tail() if read else None
        self.done = False
        self.failed = False
        self.continues = False

    def feed(self, data: bytes, now: float) -> bytes:
        if self._tail is not None:
            self._tail.feed(data)
        return data

    def end(self, now: float) -> bytes:
        self.done = True
        if self._tail is not None:
            self.continues = self._tail.read(self._terms.meter)
        return b""

    def broken(self, fault: Fault) -> bytes:
        self.done = self.failed = True
        return b""


class EventAnswer:
    """A stream of events whose meaning is not known: aligned, so that comments and an error can stand in it."""

    spoken = True

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.meter = terms.meter
        self.done = False
        self.failed = False
        self.continues = False
        self._split = sse.Splitter()

    def feed(self, data: bytes, now: float) -> bytes:
        block = self._split.feed(data)
        if not block or self.done:
            return b""
        self.count(block, now)
        return self.look(block, now)

    def count(self, block: bytes, now: float) -> None:
        """Tell the meter of the pieces with content in a block; what has none is no token."""
        pieces = len(CONTENT.findall(block))
        if pieces:
            self.meter.moved(now, pieces)

    def look(self, block: bytes, now: float) -> bytes:
        """The client's bytes for a block of whole events."""
        if _NOTABLE.search(block):
            for event in sse.events(block):
                text = sse.payload(event)
                if text is not None:
                    self._note(text)
        return block

    def _note(self, text: bytes) -> None:
        tail = Tail()
        tail.feed(text)
        tail.read(self.meter)
        self.failed = self.failed or text.lstrip(b"{ ").startswith(b'"error"')

    def end(self, now: float) -> bytes:
        rest = self._split.rest()
        self.done = True
        return rest

    def broken(self, fault: Fault) -> bytes:
        self._split.rest()
        self.done = self.failed = True
        return self.terms.error(fault)

    def cut_short(self) -> bytes:
        """The stream ended without its proper end."""
        return self.broken(
            errors.engine("engine_broke_off", "the engine broke the answer off; what came so far is not complete")
        )

    def closing(self, now: float) -> bytes:
        """The speed, if it may be said here."""
        terms, meter = self.terms, self.meter
        if not terms.closing or terms.face is None or self.failed or self.continues or not meter.tokens:
            return b""
        spent = meter.seconds()
        if spent is None:
            spent = max(0.0, now - terms.asked_at)
        first = None if meter.first_at is None else meter.first_at - terms.asked_at
        speed = Speed(meter.tokens, spent, meter.per_second(), meter.estimated, first)
        return terms.face.closing(terms.face.words.speed(speed))
