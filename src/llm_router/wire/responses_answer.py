"""Chat completions as answers to ``/v1/responses``: whole, and event by event. The way there is ``responses``.

It knows the official events and their order, which the SDKs' helpers insist on, and numbers them without a gap. How
pieces are put in a row is ``pieces``' business.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from llm_router.wire import sse
from llm_router.wire.foreign import cached_tokens, count, encode
from llm_router.wire.pieces import Begin, End, Failed, Finished, Grow, Kind, Pieces, Step, whole

#: ``finish_reason`` of an answer that has an end, but not its own.
_INCOMPLETE: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}
#: What a response says of a request that did not say it.
_DEFAULTS: Final[Mapping[str, Any]] = {
    "error": None,
    "incomplete_details": None,
    "instructions": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "temperature": None,
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
}


def response_answer(body: bytes, ident: str, created: int, echo: Mapping[str, Any]) -> bytes:
    """A whole chat completion as a response. ``created`` is a Unix time in seconds, ``echo`` from the request.

    Raises ``ValueError`` for a body that is no whole chat completion.
    """
    answer, steps = whole(body)
    items = _Items(ident)
    for step in steps:
        items.take(step)
    head = _head(ident, str(answer.get("model") or ""), created, echo)
    return encode({**head, **_ending(steps[-1]), "output": items.done})


class ResponseStream:
    """Turns the chunks of one chat completion into the events of one response.

    ``opened`` tells that ``response.created`` was sent already, by whoever spoke while the client waited, and
    ``sequence`` is the number of the next event.
    """

    def __init__(
        self, ident: str, model: str, created: int, echo: Mapping[str, Any], *, opened: bool = False, sequence: int = 0
    ) -> None:
        self.complete = False
        self.failed = False
        self._opened = opened
        self._sequence = sequence
        self._head = _head(ident, model, created, echo)
        self._pieces = Pieces()
        self._items = _Items(ident)

    @property
    def sequence(self) -> int:
        """The number of the next event."""
        return self._sequence

    def start(self) -> bytes:
        """The response's beginning, once; nothing if it was sent."""
        if self._opened:
            return b""
        self._opened = True
        response = {**self._head, "status": "in_progress", "output": []}
        return self._event("response.created", response=response) + self._event(
            "response.in_progress", response=response
        )

    def feed(self, payload: bytes) -> bytes:
        """Take one payload of the engine's stream (JSON or ``[DONE]``); gives the events that follow from it."""
        return self._write(self._pieces.feed(payload))

    def end(self) -> bytes:
        """The engine's stream is over: the end of the response, or an error if the answer has no end."""
        return self._write(self._pieces.end())

    def _write(self, steps: Iterable[Step]) -> bytes:
        return b"".join(self._step(step) for step in steps)

    def _step(self, step: Step) -> bytes:
        if isinstance(step, Failed):
            self.failed = True
            fault = {"code": "engine_error", "message": step.text, "param": None}
            return self._event("error", **fault, error={**fault, "type": "server_error"})
        opening = self.start()
        if isinstance(step, Finished):
            self.complete = True
            ending = _ending(step)
            response = {**self._head, **ending, "output": self._items.done}
            return opening + self._event(f"response.{ending['status']}", response=response)
        events = self._items.take(step)
        return opening + b"".join(self._event(kind, **fields) for kind, fields in events)

    def _event(self, kind: str, **fields: object) -> bytes:
        number, self._sequence = self._sequence, self._sequence + 1
        return sse.named(kind.encode(), encode({"type": kind, "sequence_number": number, **fields}))


_Event = tuple[str, dict[str, Any]]


class _Items:
    """The output items of one response while they grow, and the events that tell of it."""

    def __init__(self, ident: str) -> None:
        self.done: list[dict[str, Any]] = []
        self._ident = ident
        self._kind = Kind.text
        self._item: dict[str, Any] = {}
        self._fragments: list[str] = []

    def take(self, step: Step) -> list[_Event]:
        """One step of the answer; other than pieces' steps tell nothing here."""
        match step:
            case Begin():
                return self._begin(step)
            case Grow(text):
                self._fragments.append(text)
                return [(f"{self._verb}.delta", {**self._place, "delta": text, **self._logprobs})]
            case End():
                return self._end()
            case _:
                return []

    @property
    def _verb(self) -> str:
        match self._kind:
            case Kind.thinking:
                return "response.reasoning_text"
            case Kind.text:
                return "response.output_text"
            case Kind.tool:
                return "response.function_call_arguments"

    @property
    def _logprobs(self) -> dict[str, Any]:
        """An empty list that the SDKs' types want beside each text."""
        return {"logprobs": []} if self._kind is Kind.text else {}

    @property
    def _place(self) -> dict[str, Any]:
        content = {} if self._kind is Kind.tool else {"content_index": 0}
        return {"item_id": self._item["id"], "output_index": len(self.done), **content}

    def _begin(self, begun: Begin) -> list[_Event]:
        self._kind, self._fragments = begun.kind, []
        number = len(self.done)
        match begun.kind:
            case Kind.thinking:
                self._item = {"id": f"rs_{number}_{self._ident}", "type": "reasoning", "summary": [], "content": []}
            case Kind.text:
                self._item = {
                    "id": f"msg_{number}_{self._ident}",
                    "type": "message",
                    "role": "assistant",
                    "content": [],
                }
            case Kind.tool:
                ident = f"fc_{number}_{self._ident}"
                self._item = {"id": ident, "type": "function_call", "call_id": begun.ident or ident, "name": begun.name}
                self._item["arguments"] = ""
        added = {**self._item, "status": "in_progress"}
        events: list[_Event] = [("response.output_item.added", {"output_index": number, "item": added})]
        if self._kind is not Kind.tool:
            events.append(("response.content_part.added", {**self._place, "part": self._part("")}))
        return events

    def _end(self) -> list[_Event]:
        text = "".join(self._fragments)
        if self._kind is Kind.tool:
            self._item["arguments"] = text = text or "{}"
            events: list[_Event] = [
                (f"{self._verb}.done", {**self._place, "arguments": text, "name": self._item["name"]})
            ]
        else:
            self._item["content"] = [self._part(text)]
            events = [
                (f"{self._verb}.done", {**self._place, "text": text, **self._logprobs}),
                ("response.content_part.done", {**self._place, "part": self._part(text)}),
            ]
        self._item["status"] = "completed"
        events.append(("response.output_item.done", {"output_index": len(self.done), "item": self._item}))
        self.done.append(self._item)
        return events

    def _part(self, text: str) -> dict[str, Any]:
        if self._kind is Kind.thinking:
            return {"type": "reasoning_text", "text": text}
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _head(ident: str, model: str, created: int, echo: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": ident, "object": "response", "created_at": created, "model": model, **_DEFAULTS, **echo}


def _ending(step: Step) -> dict[str, Any]:
    assert isinstance(step, Finished)
    usage = _usage(step.usage)
    why = _INCOMPLETE.get(str(step.choice.get("finish_reason")))
    if why is None:
        return {"status": "completed", "usage": usage}
    return {"status": "incomplete", "incomplete_details": {"reason": why}, "usage": usage}


def _usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    prompt, made = count(usage.get("prompt_tokens")), count(usage.get("completion_tokens"))
    details = usage.get("completion_tokens_details")
    thought = details.get("reasoning_tokens") if isinstance(details, dict) else usage.get("reasoning_tokens")
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": cached_tokens(usage)},
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": count(thought)},
        "total_tokens": prompt + made,
    }
