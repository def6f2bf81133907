"""Chat completions as answers to ``/v1/messages``: whole, and event by event. The way there is ``anthropic``.

It knows the order that Anthropic's SDKs insist on: ``message_start``, each block opened, grown and closed before
the next, ``message_delta``, ``message_stop``. It refuses to give a clean end to an answer that has none.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from llm_router.wire import errors, sse
from llm_router.wire.errors import Fault
from llm_router.wire.foreign import (
    ABORTED,
    BROKEN,
    cached_tokens,
    count,
    encode,
    error_text,
    first_choice,
    spoken,
    thoughts,
)
from llm_router.wire.join import DONE, read, read_arguments

_REASONS: Final = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}


def message_answer(body: bytes, stops: Sequence[str] = ()) -> bytes:
    """A whole chat completion as a message. ``stops`` are the stop sequences of the request.

    Raises ``ValueError`` for a body that is no chat completion.
    """
    try:
        answer = read(body)
    except msgspec.DecodeError as error:
        raise ValueError(f"cannot translate the engine's answer: {error}") from error
    choice = first_choice(answer) if isinstance(answer, dict) else {}
    blocks = _blocks(choice.get("message"))
    if choice.get("finish_reason") == ABORTED:
        raise ValueError("cannot translate the engine's answer: it was broken off")
    called = any(block["type"] == "tool_use" for block in blocks)
    usage = answer.get("usage")
    return encode(
        {
            "id": answer.get("id") or "msg_0",
            "type": "message",
            "role": "assistant",
            "model": answer.get("model") or "",
            "content": blocks,
            **_ending(choice, called, stops),
            "usage": _usage(usage if isinstance(usage, dict) else {}),
        }
    )


def error_answer(status: int, body: bytes) -> bytes:
    """An engine's HTTP error in Anthropic's form. ``status`` is the engine's; it decides the error's type."""
    return errors.anthropic_body(Fault(status, "engine_error", error_text(body)))


def _blocks(message: object) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if not isinstance(message, dict):
        raise ValueError("cannot translate the engine's answer: it holds no message")  # noqa: TRY004  a wrong value
    if thought := thoughts(message):
        blocks.append({"type": "thinking", "thinking": thought, "signature": ""})
    if text := spoken(message):
        blocks.append({"type": "text", "text": text})
    calls = message.get("tool_calls")
    for number, call in enumerate(calls if isinstance(calls, list) else []):
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            tool = _tool_block(call.get("id"), number, function.get("name"))
            blocks.append({**tool, "input": read_arguments(str(function.get("arguments") or ""))})
    return blocks


def _tool_block(ident: object, number: int, name: object) -> dict[str, Any]:
    return {"type": "tool_use", "id": ident or f"toolu_{number}", "name": str(name or ""), "input": {}}


def _ending(choice: dict[str, Any], called: bool, stops: Sequence[str]) -> dict[str, Any]:
    """Why the answer ended. Some engines say ``stop`` where they called a tool."""
    # vLLM names the stop sequence in ``stop_reason``, SGLang in ``matched_stop``; the others do not.
    hit = next((choice[key] for key in ("stop_reason", "matched_stop") if choice.get(key) in stops), None)
    if hit is not None:
        return {"stop_reason": "stop_sequence", "stop_sequence": hit}
    reason = _REASONS.get(str(choice.get("finish_reason")), "end_turn")
    return {"stop_reason": "tool_use" if called and reason == "end_turn" else reason, "stop_sequence": None}


def _usage(usage: dict[str, Any]) -> dict[str, int]:
    """Anthropic counts the prompt without what came from the cache."""
    cached = cached_tokens(usage)
    out = {
        "input_tokens": max(0, count(usage.get("prompt_tokens")) - cached),
        "output_tokens": count(usage.get("completion_tokens")),
    }
    return out | ({"cache_read_input_tokens": cached} if cached else {})


class MessageStream:
    """Turns the chunks of one chat completion into the events of one message.

    ``ident`` and ``model`` stand in the message's start. ``opened``: that start was sent already, by whoever
    spoke while the client waited.
    """

    def __init__(self, ident: str, model: str, stops: Sequence[str] = (), *, opened: bool = False) -> None:
        self.complete = False
        self.failed = False
        self._ident, self._model, self._stops = ident, model, stops
        self._opened = opened
        self._closed = 0
        #: What is growing: ``thinking``, ``text``, the index of a tool call, or nothing.
        self._open: str | int | None = None
        #: The highest index of a tool call so far, and those that are told in full.
        self._highest = -1
        self._told: set[int] = set()
        #: Fragments of tool calls that wait for the one before them to end: engines may mix them, blocks may not.
        self._later: dict[int, list[dict[str, Any]]] = {}
        self._finish: dict[str, Any] | None = None
        self._usage: dict[str, Any] = {}

    def start(self) -> bytes:
        """The start of the message, once; nothing if it was sent."""
        if self._opened:
            return b""
        self._opened = True
        message: dict[str, Any] = {
            "id": self._ident,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }
        return _event("message_start", message=message)

    def feed(self, payload: bytes) -> bytes:
        """Take one payload of the engine's stream (JSON or ``[DONE]``); gives the events that follow from it."""
        if self.complete or self.failed:
            return b""
        if payload.strip() == DONE:
            return self.end()
        try:
            chunk = read(payload)
        except msgspec.DecodeError:
            return self.fail(502, "the engine sent an event that cannot be read")
        if not isinstance(chunk, dict):
            return b""
        if chunk.get("error") is not None or chunk.get("object") == "error":
            return self.fail(502, error_text(payload))
        return self._take(chunk)

    def end(self) -> bytes:
        """The engine's stream is over: the end of the message, or an error if the answer has no end."""
        if self.complete or self.failed:
            return b""
        if self._finish is None:
            return self.fail(502, BROKEN)
        self.complete = True
        events = self.start() + self._flush()
        ending = _ending(self._finish, self._highest >= 0, self._stops)
        return events + _event("message_delta", delta=ending, usage=_usage(self._usage)) + _event("message_stop")

    def fail(self, status: int, message: str) -> bytes:
        """The error event that ends the stream instead."""
        self.failed = True
        return sse.named(b"error", errors.anthropic_body(Fault(status, "engine_error", message)))

    def _take(self, chunk: dict[str, Any]) -> bytes:
        if isinstance(usage := chunk.get("usage"), dict):
            self._usage = usage
        choice = first_choice(chunk)
        delta = choice.get("delta")
        events = self.start() if choice else b""
        if isinstance(delta, dict):
            if thought := thoughts(delta):
                events += self._grow("thinking", "thinking_delta", "thinking", thought)
            if text := spoken(delta):
                events += self._grow("text", "text_delta", "text", text)
            calls = delta.get("tool_calls")
            for call in calls if isinstance(calls, list) else []:
                events += self._tool(call) if isinstance(call, dict) and not self.failed else b""
        reason = choice.get("finish_reason")
        if reason == ABORTED:
            return events + self.fail(502, BROKEN)
        self._finish = choice if reason is not None else self._finish
        return events

    def _grow(self, kind: str, delta: str, key: str, fragment: str) -> bytes:
        events = b""
        if self._open != kind:
            more = {"signature": ""} if kind == "thinking" else {}
            events = self._flush() + self._begin(kind, {"type": kind, key: "", **more})
        return events + self._delta({"type": delta, key: fragment})

    def _tool(self, call: dict[str, Any]) -> bytes:
        known = self._open if isinstance(self._open, int) else None
        index = call.get("index")
        if not isinstance(index, int):
            # Engines without indices send whole calls, one after the other.
            index = self._highest + 1
        self._highest = max(self._highest, index)
        if index in self._told:
            return self.fail(502, "the engine went on with a tool call that it had ended")
        if known is None:
            events = self._flush()
            return events + self._begin_tool(index, call)
        if index == known:
            return self._argument(call)
        self._later.setdefault(index, []).append(call)
        return b""

    def _begin_tool(self, index: int, call: dict[str, Any]) -> bytes:
        function = call.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        ident = call.get("id") or f"{self._ident}_tool_{index}"
        return self._begin(index, _tool_block(ident, index, name)) + self._argument(call)

    def _argument(self, call: dict[str, Any]) -> bytes:
        function = call.get("function")
        fragment = function.get("arguments") if isinstance(function, dict) else None
        return (
            self._delta({"type": "input_json_delta", "partial_json": fragment})
            if isinstance(fragment, str) and fragment
            else b""
        )

    def _flush(self) -> bytes:
        """Close what is open, then write the tool calls that waited for it."""
        events = self._close()
        for index, calls in sorted(self._later.items()):
            events += self._begin_tool(index, calls[0])
            events += b"".join(self._argument(call) for call in calls[1:])
            events += self._close()
        self._later.clear()
        return events

    def _begin(self, what: str | int, block: dict[str, Any]) -> bytes:
        self._open = what
        return _event("content_block_start", index=self._closed, content_block=block)

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return _event("content_block_delta", index=self._closed, delta=delta)

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        if isinstance(self._open, int):
            self._told.add(self._open)
        self._open = None
        self._closed += 1
        return _event("content_block_stop", index=self._closed - 1)


def _event(kind: str, **fields: object) -> bytes:
    return sse.named(kind.encode(), encode({"type": kind, **fields}))
