"""Tokens and times of one answer: what the engine counted, else what the router saw.

This file knows the words in which the engines report: ``usage`` of OpenAI, Anthropic and the responses
API, TabbyAPI's rates in it, and llama.cpp's ``timings``. Times are in seconds on one clock, which the caller reads.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Struct

#: Of a large answer only so much of its end is kept.
TAIL: Final = 16 * 1024
_WHOLE: Final = 64 * 1024
#: In a shorter time than this, the engine's reading cannot be told from the way there and back.
_MEASURABLE_S: Final = 0.01


class Meter(Struct):
    """What is known of an answer so far. Counts are ``None`` until the engine tells them.

    ``events`` are the pieces with content that passed: a token each with nearly all engines, and the only
    count when the engine gives none.
    """

    prompt: int | None = None
    completion: int | None = None
    cached: int | None = None
    decode_per_s: float | None = None
    prompt_per_s: float | None = None
    decode_s: float | None = None
    events: int = 0
    first_at: float | None = None
    last_at: float | None = None

    def moved(self, now: float, events: int) -> None:
        """Content passed: so many events, at this time."""
        if self.first_at is None:
            self.first_at = now
        self.last_at = now
        self.events += events

    def usage(self, raw: bytes | msgspec.Raw) -> None:
        """Take a ``usage`` object; later ones win where they say something."""
        try:
            simple = _simple(raw)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
        else:
            self.prompt, self.completion = simple.prompt_tokens, simple.completion_tokens
            return
        usage = _object(raw)
        self.prompt = _first(usage, self.prompt, "prompt_tokens", "input_tokens")
        self.completion = _first(usage, self.completion, "completion_tokens", "output_tokens")
        details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, dict) else usage.get("cache_read_input_tokens")
        self.cached = self.cached if _count(cached) is None else _count(cached)
        self.decode_per_s = _rate(usage.get("completion_tokens_per_sec")) or self.decode_per_s
        self.prompt_per_s = _rate(usage.get("prompt_tokens_per_sec")) or self.prompt_per_s
        self.decode_s = _rate(usage.get("completion_time")) or self.decode_s

    def timings(self, raw: bytes | msgspec.Raw) -> None:
        """Take llama.cpp's ``timings``: ``prompt_n`` counts without what came from the cache."""
        timings = _object(raw)
        cached = _count(timings.get("cache_n"))
        read = _count(timings.get("prompt_n"))
        if read is not None and self.prompt is None:
            self.prompt = read + (cached or 0)
        if cached is not None:
            self.cached = cached
        made = _count(timings.get("predicted_n"))
        if made is not None:
            self.completion = made
        self.decode_per_s = _rate(timings.get("predicted_per_second")) or self.decode_per_s
        self.prompt_per_s = _rate(timings.get("prompt_per_second")) or self.prompt_per_s
        spent = _rate(timings.get("predicted_ms"))
        self.decode_s = spent / 1000 if spent else self.decode_s

    @property
    def estimated(self) -> bool:
        """Whether the count of tokens is the router's own."""
        return self.completion is None

    @property
    def tokens(self) -> int:
        """Tokens of the answer, as the engine counted them or as they passed."""
        return self.events if self.completion is None else self.completion

    def seconds(self) -> float | None:
        """Time from the first token to the last; ``None`` if it all came at once."""
        if self.decode_s is not None:
            return self.decode_s
        if self.first_at is None or self.last_at is None or self.last_at <= self.first_at:
            return None
        return self.last_at - self.first_at

    def per_second(self) -> float | None:
        """Speed of decoding: the engine's own figure, else tokens after the first over the time since it."""
        if self.decode_per_s is not None:
            return self.decode_per_s
        seconds = self.seconds()
        return (self.tokens - 1) / seconds if seconds and self.tokens > 1 else None

    def prompt_rate(self, asked_at: float) -> float | None:
        """Speed of reading the prompt, in tokens per second: the engine's own figure, else what was not in its
        cache over the time from the request to the first token."""
        if self.prompt_per_s is not None:
            return self.prompt_per_s
        if self.prompt is None or self.first_at is None or self.first_at - asked_at < _MEASURABLE_S:
            return None
        return max(0, self.prompt - (self.cached or 0)) / (self.first_at - asked_at)


class _Whole(msgspec.Struct):
    usage: msgspec.Raw = msgspec.Raw()
    timings: msgspec.Raw = msgspec.Raw()
    choices: msgspec.Raw = msgspec.Raw()
    stop_reason: msgspec.Raw = msgspec.Raw()


class _Choice(msgspec.Struct):
    finish_reason: object = None


class _Simple(msgspec.Struct, forbid_unknown_fields=True):
    """The usage of most whole answers: nothing else is in it."""

    prompt_tokens: Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
    completion_tokens: Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
    total_tokens: int = 0


_simple: Final = msgspec.json.Decoder(_Simple).decode
_whole: Final = msgspec.json.Decoder(_Whole).decode
_choices: Final = msgspec.json.Decoder(list[_Choice]).decode
_any: Final = msgspec.json.Decoder().decode


class Tail:
    """Keeps a JSON answer while it is small, and only its end when it is large."""

    __slots__ = ("_kept", "_large", "_size")

    def __init__(self) -> None:
        self._kept: list[bytes] = []
        self._size = 0
        self._large = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body."""
        self._kept.append(data)
        self._size += len(data)
        if self._size > _WHOLE:
            self._large = True
            tail = data[-TAIL:] if len(data) >= TAIL else b"".join(self._kept)[-TAIL:]
            self._kept = [tail]
            self._size = len(tail)

    def read(self, meter: Meter) -> bool:
        """Tell the meter what the answer says; gives whether the answer asks for tools."""
        body = b"".join(self._kept)
        if self._large:
            for key, take in ((b'"usage"', meter.usage), (b'"timings"', meter.timings)):
                found = _value_after(body, key)
                if found:
                    take(found)
            return b'"tool_calls"' in body or b'"tool_use"' in body
        try:
            whole = _whole(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        if bytes(whole.usage):
            meter.usage(whole.usage)
        if bytes(whole.timings):
            meter.timings(whole.timings)
        return bytes(whole.stop_reason) == b'"tool_use"' or _asks_for_tools(whole.choices)


def _asks_for_tools(raw: msgspec.Raw) -> bool:
    try:
        return any(choice.finish_reason == "tool_calls" for choice in _choices(raw))
    except msgspec.DecodeError:
        return False


def _value_after(body: bytes, key: bytes) -> bytes:
    """The flat-enough object after the last ``key``, found by its braces; ``b""`` if there is none."""
    at = body.rfind(key)
    begin = body.find(b"{", at) if at >= 0 else -1
    if begin < 0:
        return b""
    depth = 0
    for index in range(begin, len(body)):
        char = body[index]
        if char == 0x7B:
            depth += 1
        elif char == 0x7D:
            depth -= 1
            if depth == 0:
                return body[begin : index + 1]
    return b""


def _object(raw: bytes | msgspec.Raw) -> Mapping[str, Any]:
    try:
        value = _any(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _first(values: Mapping[str, Any], old: int | None, *names: str) -> int | None:
    for name in names:
        count = _count(values.get(name))
        if count is not None:
            return count
    return old


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None


def _rate(value: object) -> float | None:
    """A positive, finite number; TabbyAPI may say "Indeterminate" instead."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e12:
        return float(value)
    return None
