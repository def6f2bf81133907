"""Streams of the responses API and of Anthropic's messages, as the clients may see them.

Both end with an event of their own; only that one, errors and what the router has already said itself are
looked at. Their other events pass byte for byte.
"""

# ruff: noqa: ARG002  every kind of answer has the same methods, and not every kind needs the clock

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from llm_router.wire import sse
from llm_router.wire.answer import EventAnswer
from llm_router.wire.content import open_object
from llm_router.wire.status import ResponsesFace

_SEQUENCE: Final = re.compile(rb'("sequence_number"\s*:\s*)\d+')
_encode: Final = msgspec.json.encode


class _Response(msgspec.Struct):
    usage: msgspec.Raw = msgspec.Raw()
    output: msgspec.Raw = msgspec.Raw()


class _Message(msgspec.Struct):
    usage: msgspec.Raw = msgspec.Raw()


_response: Final = msgspec.json.Decoder(_Response).decode
_message: Final = msgspec.json.Decoder(_Message).decode


def _read(text: bytes) -> dict[str, msgspec.Raw]:
    try:
        return open_object(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


def _kind(fields: dict[str, msgspec.Raw]) -> str:
    return bytes(fields.get("type", b"")).decode(errors="replace").strip('"')


class ResponsesAnswer(EventAnswer):
    """A stream of the responses API: whole with ``response.completed``, ``.incomplete`` or ``.failed``."""

    _NOTABLE: Final = re.compile(rb'"(?:event"|error"|response\.(?:completed|incomplete|failed)"|\\u00)|\[DONE\]')
    _OPENING: Final = ("response.created", "response.in_progress", "response.queued")

    def look(self, block: bytes, now: float) -> bytes:
        if not self.terms.introduced and not self._NOTABLE.search(block) and b"\\u00" not in block:
            return block
        return b"".join(self._each(block))

    def _each(self, block: bytes) -> Iterator[bytes]:
        for event in sse.events(block):
            if self.done:
                return
            text = sse.payload(event)
            if text is None:
                yield sse.KEEP_ALIVE
            else:
                yield self._event(event, text)

    def _event(self, event: bytes, text: bytes) -> bytes:
        fields = _read(text)
        kind = _kind(fields)
        if self.terms.introduced and kind in self._OPENING:
            return b""
        if kind == "error" or bytes(fields.get("error", b"null")) != b"null":
            self.failed = True
        if kind in ("response.completed", "response.incomplete", "response.failed"):
            self._finish(kind, fields)
        if fields.pop("event", None) is not None:
            event = sse.named(kind.encode(), _encode(fields))
        face = self.terms.face
        if self.terms.introduced and isinstance(face, ResponsesFace):
            number, face.sequence = face.sequence, face.sequence + 1
            event = _SEQUENCE.sub(rb"\g<1>%d" % number, event, count=1)
        return event

    def _finish(self, kind: str, fields: dict[str, msgspec.Raw]) -> None:
        self.done = True
        self.failed = self.failed or kind == "response.failed"
        try:
            response = _response(fields.get("response", msgspec.Raw(b"{}")))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        self.continues = b'"function_call"' in bytes(response.output)
        if bytes(response.usage):
            self.meter.usage(response.usage)

    def end(self, now: float) -> bytes:
        if self.done:
            return b""
        self._split.rest()
        if not self.failed:
            return self.cut_short()
        self.done = True
        return b""


class MessagesAnswer(EventAnswer):
    """A stream of Anthropic's messages: whole with ``message_stop``."""

    _NOTABLE: Final = re.compile(rb'"(?:message_(?:start|delta|stop)"|error")')

    def __init__(self, *args: object, **more: object) -> None:
        super().__init__(*args, **more)  # type: ignore[arg-type]
        self._dropped: msgspec.Raw | None = None

    def look(self, block: bytes, now: float) -> bytes:
        if not self._NOTABLE.search(block):
            return block
        return b"".join(self._each(block))

    def _each(self, block: bytes) -> Iterator[bytes]:
        for event in sse.events(block):
            if self.done:
                return
            text = sse.payload(event)
            yield event if text is None else self._event(event, text)

    def _event(self, event: bytes, text: bytes) -> bytes:
        fields = _read(text)
        match _kind(fields):
            case "message_start":
                return self._start(event, fields)
            case "message_delta":
                return self._delta(event, fields)
            case "message_stop":
                self.done = True
            case "error":
                self.failed = True
            case _:
                pass
        return event

    def _start(self, event: bytes, fields: dict[str, msgspec.Raw]) -> bytes:
        try:
            usage = _message(fields.get("message", msgspec.Raw(b"{}"))).usage
        except (msgspec.DecodeError, UnicodeDecodeError):
            return b"" if self.terms.introduced else event
        if bytes(usage):
            self.meter.usage(usage)
            self.meter.completion = None  # the start counts what is not made yet
        if not self.terms.introduced:
            return event
        self._dropped = usage
        return b""

    def _delta(self, event: bytes, fields: dict[str, msgspec.Raw]) -> bytes:
        self.continues = self.continues or b'"tool_use"' in bytes(fields.get("delta", b""))
        usage = fields.get("usage")
        if usage is None:
            return event
        self.meter.usage(usage)
        if not self._dropped or not bytes(self._dropped):
            return event
        # The start that told of the prompt was the router's own: the last usage tells it instead.
        fields["usage"] = msgspec.Raw(_encode({**_read(bytes(self._dropped)), **_read(bytes(usage))}))
        return sse.named(b"message_delta", _encode(fields))

    def end(self, now: float) -> bytes:
        if self.done:
            return b""
        self._split.rest()
        if not self.failed:
            return self.cut_short()
        self.done = True
        return b""
