"""Which kind of answer belongs to which request, and the two kinds that are kept until they are whole.

It knows the forms; it refuses to know framing and heads.
"""

# ruff: noqa: ARG002  every kind of answer has the same methods, and not every kind needs the clock

from typing import Final

from llm_router.wire import errors, sse
from llm_router.wire.answer import Answer, EventAnswer, PlainAnswer, Terms, speed_lines
from llm_router.wire.chunks import ChunkAnswer
from llm_router.wire.errors import Fault
from llm_router.wire.events import MessagesAnswer, ResponsesAnswer
from llm_router.wire.join import Joiner
from llm_router.wire.meter import Tail
from llm_router.wire.paths import Api
from llm_router.wire.translated import Kept, Turn

_COLLECT: Final = 256 * 1024
#: A stream that is put together stays in memory; one without end must not fill it (bytes).
JOINED_LIMIT: Final = 256 * 1024 * 1024
#: An answer of known length up to this is kept until it is whole, so that its head can tell its speed.
_KEEP: Final = 512 * 1024


def answer_for(api: Api, events: bool, kind: bytes, terms: Terms, length: int | None = None) -> Answer:
    """The answer's reader. ``events``: it is a stream of events. ``kind`` is its content type in lower case.

    ``length`` is that of an answer which is whole and good, in bytes, ``None`` if it is neither or not known.
    """
    if not events:
        if length is not None and length <= _KEEP and b"json" in kind and api is not Api.other:
            return Kept(terms, 200, None)
        return PlainAnswer(terms, read=b"json" in kind)
    match api:
        case Api.chat | Api.completions:
            return ChunkAnswer(terms)
        case Api.responses:
            return ResponsesAnswer(terms)
        case Api.messages:
            return MessagesAnswer(terms)
        case Api.other | Api.ollama:
            return EventAnswer(terms)


class Collected:
    """What an engine answers instead of a stream, after the client was promised one: it becomes an error event."""

    spoken = True
    continues = False

    def __init__(self, terms: Terms, status: int, kind: bytes) -> None:
        self._terms = terms
        self._status = status
        self._kind = kind
        self._body: list[bytes] = []
        self._size = 0
        self.done = False
        self.failed = True

    def feed(self, data: bytes, now: float) -> bytes:
        if self._size < _COLLECT:
            self._body.append(data)
            self._size += len(data)
        return b""

    def end(self, now: float) -> bytes:
        return self.broken(errors.of_engine(self._status, b"".join(self._body)))

    def broken(self, fault: Fault) -> bytes:
        self.done = True
        return self._terms.error(fault)


class Joined:
    """A stream that is put together for a client that asked for the whole answer.

    ``turn`` puts that into another form; ``epoch`` is what makes a Unix time of the caller's clock.
    """

    spoken = False

    def __init__(self, joiner: Joiner, terms: Terms, turn: Turn | None = None, epoch: float = 0.0) -> None:
        self._joiner = joiner
        self._turn = turn
        self._epoch = epoch
        self._terms = terms
        self._split = sse.Splitter()
        self._size = 0
        self.result = b""
        self.done = False
        self.failed = False
        self.continues = False
        #: Why there is no result.
        self.fault: Fault | None = None

    def feed(self, data: bytes, now: float) -> bytes:
        self._size += len(data)
        if self._size > JOINED_LIMIT:
            raise sse.EventTooLongError(f"cannot put together an answer of more than {JOINED_LIMIT} bytes")
        block = self._split.feed(data)
        if block:
            self._terms.meter.moved(now, block.count(b"data:"))
        for event in sse.events(block):
            text = sse.payload(event)
            if text is not None:
                self._joiner.feed(text)
        return b""

    def end(self, now: float) -> bytes:
        self.done = True
        error = self._joiner.error
        if error is not None:
            self.fault = errors.of_engine(502, error)
        elif not self._joiner.complete:
            self.fault = errors.engine("engine_broke_off", "the engine broke the answer off before it was whole")
        else:
            self.result = self._joiner.result()
            tail = Tail()
            tail.feed(self.result)
            self.continues = tail.read(self._terms.meter)
            if self._turn is not None:
                self._translate(self._turn, now)
        self.failed = self.fault is not None
        return b""

    def broken(self, fault: Fault) -> bytes:
        self.done = self.failed = True
        return b""

    def lines(self) -> list[bytes]:
        """The speed as header lines: here the head is still to be written."""
        return speed_lines(self._terms)

    def _translate(self, turn: Turn, now: float) -> None:
        try:
            self.result = turn(self.result, now + self._epoch)
        except ValueError as error:
            self.fault = errors.engine("engine_answered_badly", f"{error}")
