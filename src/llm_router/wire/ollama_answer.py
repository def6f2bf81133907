"""Answers of engines in Ollama's form: lines of JSON while they come, or one object, with counts and times.

It knows chat completions, completions and embeddings, and the fields that Ollama's clients read. Times are Unix
seconds which the caller reads from a clock; Ollama counts in nanoseconds. The way there is ``ollama``.
"""

from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from llm_router.wire.foreign import BROKEN, encode, error_text, first_choice, spoken, thoughts
from llm_router.wire.join import ABORTED, DONE, ToolCalls, read, read_arguments
from llm_router.wire.meter import Meter
from llm_router.wire.ollama import Form

_NANO: Final = 1_000_000_000


def moment(at: float) -> str:
    """A Unix time in seconds as Ollama writes it (RFC 3339, UTC)."""
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


def error_body(text: str) -> bytes:
    """An error, as a whole answer or as a line of a stream (with its line's end)."""
    return encode({"error": text}) + b"\n"


def error_answer(body: bytes) -> bytes:
    """An engine's HTTP error in Ollama's form; the status stays the engine's."""
    return error_body(error_text(body))


def loaded(form: Form, model: str, at: float, *, unloaded: bool = False) -> bytes:
    """The answer to a request that only wanted the model loaded, or unloaded."""
    head = {"model": model, "created_at": moment(at)}
    if form is Form.embed:
        return encode({**head, "embeddings": []})
    if form is Form.embeddings:
        return encode({"embedding": []})
    return encode({**head, **_said(form), "done": True, "done_reason": "unload" if unloaded else "load"})


class OllamaStream:
    """Turns the chunks of one answer into lines. ``form`` is chat or generate.

    ``started`` is when the request came and ``load_s`` how much of the time since was a load.
    """

    def __init__(self, form: Form, model: str, started: float, load_s: float = 0.0) -> None:
        self.complete = False
        self.failed = False
        self._form, self._model = form, model
        self._started, self._load_s = started, load_s
        self._meter = Meter()
        self._calls = ToolCalls()
        self._finish: str | None = None

    def feed(self, payload: bytes, now: float) -> bytes:
        """Take one payload of the engine's stream (JSON or ``[DONE]``); gives the lines that follow from it."""
        if self.complete or self.failed:
            return b""
        if payload.strip() == DONE:
            return self.end(now)
        try:
            chunk = read(payload)
        except msgspec.DecodeError:
            return self.fail("the engine sent an event that cannot be read")
        if not isinstance(chunk, dict):
            return b""
        if chunk.get("error") is not None or chunk.get("object") == "error":
            return self.fail(error_text(payload))
        return self._take(chunk, now)

    def end(self, now: float) -> bytes:
        """The engine's stream is over: the last line, or an error if the answer has no end."""
        if self.complete or self.failed:
            return b""
        if self._finish is None:
            return self.fail(BROKEN)
        self.complete = True
        told = self._line(now, tool_calls=_calls(self._calls)) if self._calls.by_index else b""
        times = _times(self._meter, self._started, self._load_s, now)
        last = {**self._head(now), **_said(self._form), "done": True, "done_reason": self._finish, **times}
        return told + encode(last) + b"\n"

    def fail(self, text: str) -> bytes:
        """The line that ends the stream instead."""
        self.failed = True
        return error_body(text)

    def _take(self, chunk: dict[str, Any], now: float) -> bytes:
        _measure(self._meter, chunk)
        choice = first_choice(chunk)
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            delta = {"content": choice.get("text")}
        self._calls.add(delta.get("tool_calls"))
        text, thought = spoken(delta), thoughts(delta)
        if text or thought or delta.get("tool_calls"):
            self._meter.moved(now, 1)
        if choice.get("finish_reason") == ABORTED:
            return self.fail(BROKEN)
        if choice.get("finish_reason") is not None:
            self._finish = _reason(choice)
        return self._line(now, text, thought, probabilities=_probabilities(choice)) if text or thought else b""

    def _line(
        self,
        now: float,
        text: str = "",
        thought: str = "",
        tool_calls: list[dict[str, Any]] | None = None,
        probabilities: dict[str, Any] | None = None,
    ) -> bytes:
        said = _said(self._form, text, thought, tool_calls)
        return encode({**self._head(now), **said, "done": False, **(probabilities or {})}) + b"\n"

    def _head(self, now: float) -> dict[str, Any]:
        return {"model": self._model, "created_at": moment(now)}


def whole_answer(form: Form, body: bytes, model: str, started: float, now: float, load_s: float = 0.0) -> bytes:
    """A whole chat completion or completion in Ollama's form.

    Raises ``ValueError`` for a body that is none, or that was broken off.
    """
    answer = _answer(body)
    choice = first_choice(answer)
    message = choice.get("message")
    if not isinstance(message, dict):
        message = {"content": choice.get("text")}
    if choice.get("finish_reason") in (None, ABORTED):
        raise ValueError("cannot translate the engine's answer: it is not complete")
    meter = Meter()
    _measure(meter, answer)
    calls = ToolCalls()
    calls.add(message.get("tool_calls"))
    said = _said(form, spoken(message), thoughts(message), _calls(calls) or None)
    return encode(
        {
            "model": model,
            "created_at": moment(now),
            **said,
            "done": True,
            "done_reason": _reason(choice),
            **_probabilities(choice),
            **_times(meter, started, load_s, now),
        }
    )


def vectors(form: Form, body: bytes, model: str, started: float, now: float, load_s: float = 0.0) -> bytes:
    """An answer of ``/v1/embeddings`` in Ollama's form. Raises ``ValueError`` for a body that is none."""
    answer = _answer(body)
    rows = answer.get("data")
    found = [row for row in rows if isinstance(row, dict) and "embedding" in row] if isinstance(rows, list) else []
    if not found:
        raise ValueError("cannot translate the engine's answer: it holds no embedding")
    found.sort(key=lambda row: row["index"] if isinstance(row.get("index"), int) else 0)
    lists = [row["embedding"] for row in found]
    if form is Form.embeddings:
        return encode({"embedding": lists[0]})
    meter = Meter()
    _measure(meter, answer)
    times = _times(meter, started, load_s, now)
    kept = {key: times[key] for key in ("total_duration", "load_duration", "prompt_eval_count") if key in times}
    return encode({"model": model, "embeddings": lists, **kept})


def _answer(body: bytes) -> dict[str, Any]:
    try:
        answer = read(body)
    except msgspec.DecodeError as error:
        raise ValueError(f"cannot translate the engine's answer: {error}") from error
    return answer if isinstance(answer, dict) else {}


def _said(
    form: Form, text: str = "", thought: str = "", tool_calls: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    thinking = {"thinking": thought} if thought else {}
    if form is Form.generate:
        return {"response": text, **thinking}
    calls = {"tool_calls": tool_calls} if tool_calls else {}
    return {"message": {"role": "assistant", "content": text, **thinking, **calls}}


def _calls(calls: ToolCalls) -> list[dict[str, Any]]:
    """Tool calls with their arguments as an object, which Ollama's clients want."""
    told = []
    for call in calls.plain():
        function = call.get("function")
        if isinstance(function, dict):
            arguments = read_arguments(str(function.get("arguments") or ""))
            ident = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
            told.append({**ident, "function": {"name": function.get("name") or "", "arguments": arguments}})
    return told


def _reason(choice: dict[str, Any]) -> str:
    return "length" if choice.get("finish_reason") == "length" else "stop"


def _probabilities(choice: dict[str, Any]) -> dict[str, Any]:
    logprobs = choice.get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    return {"logprobs": content} if isinstance(content, list) and content else {}


def _measure(meter: Meter, answer: dict[str, Any]) -> None:
    if isinstance(usage := answer.get("usage"), dict):
        meter.usage(encode(usage))
    if isinstance(timings := answer.get("timings"), dict):
        meter.timings(encode(timings))


def _times(meter: Meter, started: float, load_s: float, now: float) -> dict[str, int]:
    """Counts, and durations in nanoseconds: the engine's own where it tells them, else what was seen."""
    decode_s = meter.seconds() or 0.0
    if meter.prompt_per_s and meter.prompt is not None:
        prompt_s = (meter.prompt - (meter.cached or 0)) / meter.prompt_per_s
    else:
        prompt_s = max(0.0, (meter.first_at if meter.first_at is not None else now) - started - load_s)
    times = {
        "total_duration": _nano(now - started),
        "load_duration": _nano(load_s),
        "prompt_eval_count": meter.prompt,
        "prompt_eval_duration": _nano(prompt_s),
        "eval_count": meter.tokens,
        "eval_duration": _nano(decode_s),
    }
    return {key: value for key, value in times.items() if value is not None}


def _nano(seconds: float) -> int:
    return max(0, round(seconds * _NANO))
