"""Joins a stream of events to the one JSON answer that the same request would have got without streaming.

It knows the event payloads of chat completions, completions, responses and messages, and what each of them
leaves to the reader to put together. It refuses to know SSE framing, sockets and the engine's name: every
engine's extra fields are kept as they came. What is not complete is never handed out as an answer.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import msgspec

DONE: Final = b"[DONE]"
#: vLLM's ``finish_reason`` for an answer that it gave up when it was stopped: no end, though it looks like one.
ABORTED: Final = "abort"

#: Text that comes in fragments, wherever it stands in a delta. ``data`` and ``transcript`` are those of audio.
_GROWING: Final = frozenset(
    {"content", "reasoning_content", "reasoning", "thinking", "refusal", "arguments", "text", "data", "transcript"}
)
#: Keys of chunks that mean something to some clients and are never an engine's to send (see ``docs``).
_FOREIGN: Final = frozenset({"event", "selected_model_id", "sources", "type"})


class Joiner(Protocol):
    """Takes the payloads of a stream in order and gives the whole answer."""

    @property
    def error(self) -> bytes | None:
        """The error event that ended the stream, as it came, ``None`` if there was none."""
        ...

    @property
    def complete(self) -> bool:
        """Whether all that an answer needs was seen: only then is there a ``result``."""
        ...

    def feed(self, event: bytes) -> None:
        """Take one payload (the text after ``data:``): JSON or ``[DONE]``. Never fails."""
        ...

    def result(self) -> bytes:
        """The JSON answer. Raises ``ValueError`` while the stream is not complete."""
        ...


def joiner(path: str) -> Joiner | None:
    """The joiner for answers of this request path (without query), ``None`` where none is known."""
    make = _JOINERS.get(path.removeprefix("/v1"))
    return make() if make else None


def read(payload: bytes) -> Any:
    """The value of a payload. Bytes that are not UTF-8 become U+FFFD. Raises ``msgspec.DecodeError``."""
    try:
        try:
            return msgspec.json.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return msgspec.json.decode(payload.decode(errors="replace"))
    except RecursionError as error:
        raise msgspec.DecodeError("cannot read JSON that is nested as deep as this") from error


def read_arguments(text: str) -> dict[str, Any]:
    """The arguments of a tool call as an object; ``{"raw": text}`` where a model wrote something else."""
    if not text.strip():
        return {}
    try:
        value = read(text.encode(errors="replace"))
    except msgspec.DecodeError:
        return {"raw": text}
    return value if isinstance(value, dict) else {"raw": text}


class _Text:
    """A text that grows; its fragments are put together once, when it is written."""

    # Not a dataclass: the encoder would write its fields and never ask for the text.
    __slots__ = ("fragments",)

    def __init__(self, first: str) -> None:
        self.fragments = [first]


def _write(value: object) -> object:
    assert isinstance(value, _Text)  # all else in an answer came out of JSON
    return "".join(value.fragments)


_encode: Final = msgspec.json.Encoder(enc_hook=_write).encode


def _grow(into: dict[str, Any], fragment: dict[str, Any], levels: int = 4) -> None:
    """Add a fragment: texts and lists get longer, objects are grown inside, ``null`` only fills a gap.

    No protocol spreads a text deeper than ``levels`` objects; what lies deeper comes whole.
    """
    for key, new in fragment.items():
        old = into.get(key)
        if new is None:
            into.setdefault(key, None)
        elif isinstance(new, str) and key in _GROWING:
            if isinstance(old, _Text):
                old.fragments.append(new)
            else:
                into[key] = _Text(new)
        elif isinstance(new, list) and isinstance(old, list):
            old.extend(new)
        elif isinstance(new, dict) and levels:
            into[key] = old if isinstance(old, dict) else {}
            _grow(into[key], new, levels - 1)
        else:
            into[key] = new


@dataclass(slots=True)
class ToolCalls:
    """Tool calls put together from their fragments, by ``index``; where there is none, by ``id``, else in turn."""

    by_index: dict[int, dict[str, Any]] = field(default_factory=dict)

    def add(self, fragments: object) -> None:
        """Take the ``tool_calls`` of one delta; anything but a list of objects is passed over."""
        for fragment in fragments if isinstance(fragments, list) else []:
            if isinstance(fragment, dict):
                self._add(dict(fragment))

    def _add(self, fragment: dict[str, Any]) -> None:
        call = self.by_index.setdefault(self._place(fragment), {})
        function = fragment.pop("function", None)
        # Some engines repeat id and type as "" or null in every later fragment.
        _grow(call, {key: value for key, value in fragment.items() if value or key not in call})
        if isinstance(function, dict):
            _grow_function(call.setdefault("function", {}), dict(function))

    def _place(self, fragment: dict[str, Any]) -> int:
        index = fragment.pop("index", None)
        if isinstance(index, int):
            return index
        for known, call in self.by_index.items():
            if fragment.get("id") and call.get("id") == fragment["id"]:
                return known
        return max(self.by_index, default=-1) + 1

    def whole(self) -> list[dict[str, Any]]:
        """The calls in order, with ``arguments`` as text; writable by this module's encoder only."""
        return [call for _, call in sorted(self.by_index.items())]

    def plain(self) -> list[dict[str, Any]]:
        """The calls in order, as they stand in a whole answer."""
        calls: list[dict[str, Any]] = msgspec.json.decode(_encode(self.whole()))
        return calls


def _grow_function(into: dict[str, Any], fragment: dict[str, Any]) -> None:
    """A name comes whole, is repeated whole, or comes in pieces, as the engine likes."""
    name = fragment.pop("name", None)
    known = into.setdefault("name", "")
    if isinstance(name, str) and name != known:
        into["name"] = known + name
    _grow(into, fragment)


@dataclass(slots=True)
class _Choice:
    """One choice while it grows. ``extra`` is what stands beside message and text."""

    message: dict[str, Any] = field(default_factory=dict)
    tools: ToolCalls = field(default_factory=ToolCalls)
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        return self.extra.get("finish_reason") not in (None, ABORTED)

    def add(self, fragment: dict[str, Any]) -> None:
        delta = fragment.pop("delta", None)
        _grow(self.extra, fragment)
        if isinstance(delta, dict):
            self.tools.add(delta.pop("tool_calls", None))
            _grow(self.message, delta)

    def as_text(self, index: int) -> dict[str, Any]:
        return {"text": "", **self.extra, "index": index}

    def as_message(self, index: int) -> dict[str, Any]:
        calls = self.tools.whole()
        message: dict[str, Any] = {"role": "assistant", "content": None if calls else "", **self.message}
        message["role"] = message["role"] or "assistant"
        if message["content"] is None and not calls:
            message["content"] = ""
        if calls:
            # Streams begin with an empty content that the whole answer of the same engine has as null.
            if isinstance(message["content"], _Text) and not any(message["content"].fragments):
                message["content"] = None
            message["tool_calls"] = calls
        return {**self.extra, "index": index, "message": message}


@dataclass(slots=True)
class _ChoicesJoiner:
    """Chat completions and completions. Complete when each choice that was seen has its ``finish_reason``.

    ``[DONE]`` proves nothing: some engines never send it, some send it after an error.
    """

    chat: bool
    error: bytes | None = None
    _broken: bool = False
    _top: dict[str, Any] = field(default_factory=dict)
    _choices: dict[int, _Choice] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        whole = bool(self._choices) and all(choice.finished for choice in self._choices.values())
        return whole and not self._broken and self.error is None

    def feed(self, event: bytes) -> None:
        if self.error is not None or event.strip() == DONE:
            return
        try:
            chunk = read(event)
        except msgspec.DecodeError:
            self._broken = True
            return
        if isinstance(chunk, dict):
            self._add(event, chunk)

    def _add(self, event: bytes, chunk: dict[str, Any]) -> None:
        if chunk.get("error") is not None or chunk.get("object") == "error":
            self.error = event
            return
        choices = chunk.pop("choices", None)
        for fragment in choices if isinstance(choices, list) else []:
            if isinstance(fragment, dict):
                index = fragment.pop("index", 0)
                self._choices.setdefault(index if isinstance(index, int) else 0, _Choice()).add(fragment)
        self._top.update(
            (key, value)
            for key, value in chunk.items()
            if key not in _FOREIGN and (value is not None or key not in self._top)
        )

    def result(self) -> bytes:
        _require(self.complete)
        choices = sorted(self._choices.items())
        if self.chat:
            whole = [choice.as_message(index) for index, choice in choices]
        else:
            whole = [choice.as_text(index) for index, choice in choices]
        kind = "chat.completion" if self.chat else "text_completion"
        return _encode({**self._top, "object": kind, "choices": whole})


@dataclass(slots=True)
class _ResponsesJoiner:
    """Responses: the last event carries the whole answer, so nothing has to be put together."""

    error: bytes | None = None
    _whole: Any = None

    @property
    def complete(self) -> bool:
        return self._whole is not None and self.error is None

    def feed(self, event: bytes) -> None:
        try:
            message = read(event)
        except msgspec.DecodeError:
            return
        if not isinstance(message, dict) or self.error is not None:
            return
        kind = message.get("type")
        if kind == "error" or message.get("error") is not None:
            self.error = event
        elif kind in ("response.completed", "response.incomplete", "response.failed"):
            self._whole = message.get("response")

    def result(self) -> bytes:
        _require(self.complete)
        return _encode(self._whole)


@dataclass(slots=True)
class _MessagesJoiner:
    """Messages in Anthropic's form: blocks with their deltas, then ``message_stop``."""

    error: bytes | None = None
    _stopped: bool = False
    _broken: bool = False
    _message: dict[str, Any] | None = None
    _blocks: dict[int, dict[str, Any]] = field(default_factory=dict)
    _inputs: dict[int, list[str]] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return self._stopped and self._message is not None and not self._broken and self.error is None

    def feed(self, event: bytes) -> None:
        try:
            message = read(event)
        except msgspec.DecodeError:
            self._broken = self._broken or event.strip() != DONE
            return
        if isinstance(message, dict) and self.error is None:
            self._add(event, message)

    def _add(self, event: bytes, message: dict[str, Any]) -> None:
        match message:
            case {"type": "error"} | {"error": dict() | str()}:
                self.error = event
            case {"type": "message_start", "message": dict() as whole}:
                self._message = whole
            case {"type": "content_block_start", "index": int() as index, "content_block": dict() as block}:
                self._blocks[index] = {}
                _grow(self._blocks[index], block)
            case {"type": "content_block_delta", "index": int() as index, "delta": dict() as delta}:
                self._delta(index, delta)
            case {"type": "message_delta", "delta": dict() as delta} if self._message is not None:
                self._message.update(delta)
                usage = {**_object(self._message.get("usage")), **_object(message.get("usage"))}
                self._message["usage"] = usage
            case {"type": "message_stop"}:
                self._stopped = True
            case _:
                pass  # a ping, the end of a block, or an event of a later version: the protocol asks to ignore it

    def _delta(self, index: int, delta: dict[str, Any]) -> None:
        block = self._blocks.setdefault(index, {})
        match delta:
            case {"type": "input_json_delta", "partial_json": str() as fragment}:
                self._inputs.setdefault(index, []).append(fragment)
            case {"type": "citations_delta", "citation": citation}:
                _grow(block, {"citations": [citation]})
            case _:
                _grow(block, {key: value for key, value in delta.items() if key != "type"})

    def result(self) -> bytes:
        _require(self.complete)
        for index, fragments in self._inputs.items():
            self._blocks[index]["input"] = read_arguments("".join(fragments))
        return _encode({**(self._message or {}), "content": [block for _, block in sorted(self._blocks.items())]})


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _require(complete: bool) -> None:
    if not complete:
        raise ValueError("cannot join the stream: it ended before its answer was complete; report it as an error")


_JOINERS: Final[dict[str, Callable[[], Joiner]]] = {
    "/chat/completions": lambda: _ChoicesJoiner(chat=True),
    "/completions": lambda: _ChoicesJoiner(chat=False),
    "/responses": _ResponsesJoiner,
    "/messages": _MessagesJoiner,
}
