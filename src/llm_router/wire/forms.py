"""Which kind of answer belongs to which request, and the two kinds that are kept until they are whole.

It knows the forms; it refuses to know framing and heads.
"""

# ruff: noqa: ARG002  every kind of answer has the same methods, and not every kind needs the clock

from typing import Final

import msgspec

from llm_router.wire import errors, sse
from llm_router.wire.answer import Answer, EventAnswer, PlainAnswer, Terms
from llm_router.wire.chunks import ChunkAnswer
from llm_router.wire.errors import Fault
from llm_router.wire.events import MessagesAnswer, ResponsesAnswer
from llm_router.wire.join import Joiner
from llm_router.wire.meter import Tail
from llm_router.wire.paths import Api

_COLLECT: Final = 256 * 1024


def answer_for(api: Api, events: bool, kind: bytes, terms: Terms) -> Answer:
    """The answer's reader. ``events``: it is a stream of events. ``kind`` is its content type in lower case."""
    if not events:
        return PlainAnswer(terms, read=b"json" in kind)
    match api:
        case Api.chat | Api.completions:
            return ChunkAnswer(terms)
        case Api.responses:
            return ResponsesAnswer(terms)
        case Api.messages:
            return MessagesAnswer(terms)
        case Api.other:
            return EventAnswer(terms)


class _Error(msgspec.Struct):
    error: object = None
    message: object = None
    detail: object = None
    code: object = None


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
        return self.broken(engine_fault(self._status, b"".join(self._body)))

    def broken(self, fault: Fault) -> bytes:
        self.done = True
        face = self._terms.face
        return b"" if face is None else face.error(fault)


class Joined:
    """A stream that is put together for a client that asked for the whole answer."""

    spoken = False

    def __init__(self, joiner: Joiner, terms: Terms) -> None:
        self._joiner = joiner
        self._terms = terms
        self._split = sse.Splitter()
        self.result = b""
        self.done = False
        self.failed = False
        self.continues = False
        #: Why there is no result.
        self.fault: Fault | None = None

    def feed(self, data: bytes, now: float) -> bytes:
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
            self.fault = engine_fault(502, error)
        elif not self._joiner.complete:
            self.fault = errors.engine("engine_broke_off", "the engine broke the answer off before it was whole")
        else:
            self.result = self._joiner.result()
            tail = Tail()
            tail.feed(self.result)
            self.continues = tail.read(self._terms.meter)
        self.failed = self.fault is not None
        return b""

    def broken(self, fault: Fault) -> bytes:
        self.done = self.failed = True
        return b""

    def lines(self) -> list[bytes]:
        """The speed as header lines: here the head is still to be written."""
        meter = self._terms.meter
        per_s = meter.per_second()
        lines = [b"x-llm-router-tokens: %d\r\n" % meter.tokens] if meter.tokens else []
        if per_s is not None:
            lines.append(b"x-llm-router-tokens-per-second: %.1f\r\n" % per_s)
        return lines


def engine_fault(status: int, body: bytes) -> Fault:
    """An engine's error, in any of the shapes in which engines write it, as one of ours."""
    text = body.decode(errors="replace").strip()[:2000]
    code = "engine_error"
    try:
        found: object = msgspec.json.decode(body, type=_Error)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = None
    if isinstance(found, _Error):
        inner = found.error if isinstance(found.error, dict) else {}
        for message in (inner.get("message"), found.error, found.message, found.detail):
            if isinstance(message, str) and message:
                text = message
                break
        for word in (inner.get("code"), inner.get("type"), found.code):
            if isinstance(word, str) and word:
                code = word
                break
    kind = "invalid_request_error" if 400 <= status < 500 else "server_error"
    wrong = status if status >= 400 else 502
    return Fault(wrong, code, text or f"the engine answered with status {status} and no text", kind)
