"""Chat completions as answers to ``/v1/messages``: whole, and event by event. The way there is ``anthropic``.

It knows the order that Anthropic's SDKs insist on: ``message_start``, each block opened, grown and closed before
the next, ``message_delta``, ``message_stop``. How pieces are put in a row is ``pieces``' business.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from llm_router.wire import errors, sse
from llm_router.wire.errors import Fault
from llm_router.wire.foreign import cached_tokens, count, encode, error_text
from llm_router.wire.join import read_arguments
from llm_router.wire.pieces import Begin, End, Failed, Finished, Grow, Kind, Pieces, Step, whole

_REASONS: Final = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
#: The field of a block that grows, and the type of its deltas.
_GROWS: Final = {
    Kind.thinking: ("thinking", "thinking_delta"),
    Kind.text: ("text", "text_delta"),
    Kind.tool: ("partial_json", "input_json_delta"),
}


def message_answer(body: bytes, stops: Sequence[str] = ()) -> bytes:
    """A whole chat completion as a message. ``stops`` are the stop sequences of the request.

    Raises ``ValueError`` for a body that is no whole chat completion.
    """
    answer, steps = whole(body)
    ident = str(answer.get("id") or "msg_0")
    blocks: list[dict[str, Any]] = []
    ending: dict[str, Any] = {}
    for step in steps:
        match step:
            case Begin():
                blocks.append(_block(step, ident, len(blocks)))
            case Grow(text):
                block = blocks[-1]
                grown = {"input": read_arguments(text)} if block["type"] == "tool_use" else {block["type"]: text}
                block.update(grown)
            case Finished():
                ending = {**_reason(step, stops), "usage": _usage(step.usage)}
            case _:
                pass  # an end needs no telling here, and a whole answer has not failed
    head = {"id": ident, "type": "message", "role": "assistant", "model": answer.get("model") or ""}
    return encode({**head, "content": blocks, **ending})


def error_answer(status: int, body: bytes) -> bytes:
    """An engine's HTTP error in Anthropic's form. ``status`` is the engine's; it decides the error's type."""
    return errors.anthropic_body(Fault(status, "engine_error", error_text(body)))


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
        self._pieces = Pieces()
        self._index = -1
        self._kind = Kind.text

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
        return self._write(self._pieces.feed(payload))

    def end(self) -> bytes:
        """The engine's stream is over: the end of the message, or an error if the answer has no end."""
        return self._write(self._pieces.end())

    def _write(self, steps: Iterable[Step]) -> bytes:
        return b"".join(self._event(step) for step in steps)

    def _event(self, step: Step) -> bytes:
        match step:
            case Begin(kind):
                self._kind, self._index = kind, self._index + 1
                block = _block(step, self._ident, self._index)
                return self.start() + _event("content_block_start", index=self._index, content_block=block)
            case Grow(text):
                key, delta = _GROWS[self._kind]
                return _event("content_block_delta", index=self._index, delta={"type": delta, key: text})
            case End():
                return _event("content_block_stop", index=self._index)
            case Finished():
                self.complete = True
                ending = _event("message_delta", delta=_reason(step, self._stops), usage=_usage(step.usage))
                return self.start() + ending + _event("message_stop")
            case Failed(text):
                self.failed = True
                return sse.named(b"error", errors.anthropic_body(Fault(502, "engine_error", text)))


def _block(begun: Begin, ident: str, index: int) -> dict[str, Any]:
    match begun.kind:
        case Kind.thinking:
            return {"type": "thinking", "thinking": "", "signature": ""}
        case Kind.text:
            return {"type": "text", "text": ""}
        case Kind.tool:
            return {"type": "tool_use", "id": begun.ident or f"{ident}_tool_{index}", "name": begun.name, "input": {}}


def _reason(finished: Finished, stops: Sequence[str]) -> dict[str, Any]:
    """Why the answer ended. Some engines say ``stop`` where they called a tool."""
    choice = finished.choice
    # vLLM names the stop sequence in ``stop_reason``, SGLang in ``matched_stop``; the others do not.
    hit = next((choice[key] for key in ("stop_reason", "matched_stop") if choice.get(key) in stops), None)
    if hit is not None:
        return {"stop_reason": "stop_sequence", "stop_sequence": hit}
    reason = _REASONS.get(str(choice.get("finish_reason")), "end_turn")
    return {"stop_reason": "tool_use" if finished.called and reason == "end_turn" else reason, "stop_sequence": None}


def _usage(usage: dict[str, Any]) -> dict[str, int]:
    """Anthropic counts the prompt without what came from the cache."""
    cached = cached_tokens(usage)
    out = {
        "input_tokens": max(0, count(usage.get("prompt_tokens")) - cached),
        "output_tokens": count(usage.get("completion_tokens")),
    }
    return out | ({"cache_read_input_tokens": cached} if cached else {})


def _event(kind: str, **fields: object) -> bytes:
    return sse.named(kind.encode(), encode({"type": kind, **fields}))
