"""Streams of chat completions and completions, as the clients may see them.

What passes, passes byte for byte; an event is taken apart only if a cheap search finds something in it:
the end, usage, timings, an error, or a key that some client would obey (Open WebUI runs a top-level
``event`` of type ``execute`` as a script, and loses chunks with ``timings`` or ``delta`` of ``null``).
"""

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from llm_router.wire import errors, sse
from llm_router.wire.answer import CONTENT, EventAnswer
from llm_router.wire.content import open_object

#: ``type`` is also part of tool calls: then the look finds nothing to change.
_NOTABLE: Final = re.compile(
    rb'"(?:usage"|timings"|error"|event"|selected_model_id"|sources"|type"|finish_reason"\s*:\s*"|delta"\s*:\s*null)'
)
_FOREIGN: Final = frozenset({"event", "selected_model_id", "sources", "type"})
_NULL: Final = b"null"

_encode: Final = msgspec.json.encode


class _Choice(msgspec.Struct):
    finish_reason: object = None


_choices: Final = msgspec.json.Decoder(list[_Choice]).decode
_loose_choices: Final = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode


def notable(block: bytes) -> bool:
    """Whether a block of events must be taken apart. An escaped letter may be part of any key."""
    return (
        _NOTABLE.search(block) is not None
        or b"[DONE]" in block
        or b"\\u00" in block
        or block.startswith((b":", b"event", b"retry"))
    )


class ChunkAnswer(EventAnswer):
    """One stream of chunks. It is whole when every choice has a ``finish_reason``, or with ``[DONE]``."""

    def __init__(self, *args: object, **more: object) -> None:
        super().__init__(*args, **more)  # type: ignore[arg-type]
        self._finished = 0
        self._summed = False
        #: The chunk with the end of the text, where the router's footer has to come before it.
        self._last = b""
        face = self.terms.face
        self._keeps = face is not None and face.footer and self.terms.choices == 1

    def look(self, block: bytes, now: float) -> bytes:
        if not self._last and not notable(block):
            return block
        return b"".join(self._each(block, now))

    def _each(self, block: bytes, now: float) -> Iterator[bytes]:
        for event in sse.events(block):
            text = sse.payload(event)
            if text is None:
                yield sse.KEEP_ALIVE
            elif text == b"[DONE]":
                yield self._finish(now) + sse.DONE
                self.done = True
                return
            elif self._last:
                out = self._chunk(event, text)
                yield self._footer(now) + out
            else:
                yield self._chunk(event, text)

    def _footer(self, now: float) -> bytes:
        """The speed, and the end of the text that was kept for it."""
        last, self._last = self._last, b""
        return self.closing(now) + last if last else b""

    def _finish(self, now: float) -> bytes:
        if self._keeps:
            return self._footer(now)
        face = self.terms.face
        return b"" if face is not None and face.footer else self.closing(now)

    def _chunk(self, event: bytes, text: bytes) -> bytes:
        try:
            fields = open_object(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return event
        error = fields.get("error")
        if error is not None and bytes(error) != _NULL:
            self.failed = True
            return _error_event(bytes(error))
        before = len(fields)
        for key in _FOREIGN & fields.keys():
            del fields[key]
        self._take_timings(fields)
        finished = self._finished
        changed = self._take_choices(fields)
        ends = self._keeps and self._finished > finished
        usage = fields.get("usage")
        if usage is not None and bytes(usage) != _NULL:
            self.meter.usage(usage)
            if self._hide(fields):
                return b""
            changed = self._sum_up(fields, usage) or changed
        out = sse.data(_encode(fields)) if changed or len(fields) != before or sse.name(event) else event
        return self._keep(fields, out) if ends else out

    def _keep(self, fields: dict[str, msgspec.Raw], out: bytes) -> bytes:
        """Keep the chunk that ends the text; what text it holds itself goes on at once."""
        self._last = out
        if self.continues or not CONTENT.search(bytes(fields["choices"])):
            return b""
        said = _loose_choices(fields["choices"])
        ended = [{**choice, "delta": msgspec.Raw(b"{}")} for choice in said]
        for choice in said:
            choice["finish_reason"] = msgspec.Raw(_NULL)
        self._last = sse.data(_encode({**fields, "choices": ended}))
        without_end = {key: value for key, value in fields.items() if key not in ("usage", "timings")}
        return sse.data(_encode({**without_end, "choices": said}))

    def _take_timings(self, fields: dict[str, msgspec.Raw]) -> None:
        timings = fields.get("timings")
        if timings is None:
            return
        if bytes(timings) == _NULL:
            del fields["timings"]
        else:
            self.meter.timings(timings)

    def _take_choices(self, fields: dict[str, msgspec.Raw]) -> bool:
        """Count what is finished; leave out ``delta`` where it is ``null``. Gives whether something changed."""
        raw = fields.get("choices")
        if raw is None:
            return False
        try:
            for choice in _choices(raw):
                if isinstance(choice.finish_reason, str) and choice.finish_reason:
                    self._finished += 1
                    self.continues = self.continues or choice.finish_reason in ("tool_calls", "function_call")
            loose = _loose_choices(raw)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return False
        if not any(bytes(one.get("delta", b"")) == _NULL for one in loose):
            return False
        for one in loose:
            if bytes(one.get("delta", b"")) == _NULL:
                one["delta"] = msgspec.Raw(b"{}")
        fields["choices"] = msgspec.Raw(_encode(loose))
        return True

    def _hide(self, fields: dict[str, msgspec.Raw]) -> bool:
        """Whether the chunk is only there because the router asked; usage in another chunk is taken out."""
        if not self.terms.hide_usage:
            return False
        if bytes(fields.get("choices", b"[]")).replace(b" ", b"") == b"[]":
            return True
        del fields["usage"]
        return False

    def _sum_up(self, fields: dict[str, msgspec.Raw], usage: msgspec.Raw) -> bool:
        """Add the router's own figures to the usage that the client asked for, once."""
        if not self.terms.wants_usage or self._summed or not self._finished:
            return False
        try:
            values = open_object(usage)
        except msgspec.DecodeError:
            return False
        self._summed = True
        values["llm_router"] = msgspec.Raw(_encode(self._figures()))
        fields["usage"] = msgspec.Raw(_encode(values))
        return True

    def _figures(self) -> dict[str, float]:
        terms, meter = self.terms, self.meter
        first = None if meter.first_at is None else meter.first_at - terms.asked_at
        values = {
            "waited_s": terms.waited_s,
            "loaded_s": terms.loaded_s,
            "first_token_s": first,
            "decode_s": meter.seconds(),
            "tokens_per_s": meter.per_second(),
            "prompt_tokens_per_s": meter.prompt_rate(terms.asked_at),
        }
        return {name: round(value, 3) for name, value in values.items() if value is not None}

    def end(self, now: float) -> bytes:
        if self.done:
            return b""
        self._split.rest()
        if self.failed:
            self.done = True
            return self._footer(now) + sse.DONE
        if self._finished < max(1, self.terms.choices):
            return self.cut_short()
        self.done = True
        return self._finish(now) + sse.DONE

    def broken(self, fault: errors.Fault) -> bytes:
        told = self.failed
        self._split.rest()
        self.done = self.failed = True
        return sse.DONE if told else sse.data(errors.openai_body(fault)) + sse.DONE


def _error_event(error: bytes) -> bytes:
    """An engine's error in OpenAI's form: transformers sends a text where others send an object."""
    if error.startswith(b"{"):
        return sse.data(b'{"error":%b}' % error)
    message = error if error.startswith(b'"') else _encode(error.decode(errors="replace"))
    return sse.data(b'{"error":{"message":%b,"type":"server_error","param":null,"code":"engine_error"}}' % message)
