"""How the router itself speaks inside a stream: one Face for each form of answer.

A face writes events that its clients understand or pass over. It refuses to know when something is to be
said (``Pace`` says that) and what (``notices``). Facts about clients: ``docs/reference``, tried with the SDKs.
"""

from collections.abc import Mapping
from typing import Final, Protocol

import msgspec

from llm_router.wire import errors, sse
from llm_router.wire.errors import Fault
from llm_router.wire.paths import Api
from llm_router.wire.wording import STATUS, Words

_encode: Final = msgspec.json.encode


class Face(Protocol):
    """The router's voice in one stream. Every method gives whole events.

    ``opening`` comes once and first if the router has to speak before the engine; ``news`` and ``keepalive``
    follow; ``last`` ends the statuses (``None``: the line is removed). ``closing`` stands before the end
    mark. ``error`` is the error with the end mark. ``lasting``: what was said stays, so the end of a wait is
    always said too. ``footer``: ``closing`` is a part of the answer's text and must come before its end.
    """

    words: Words
    lasting: bool
    footer: bool
    content_type: bytes

    def opening(self, text: str) -> bytes: ...

    def news(self, text: str) -> bytes: ...

    def keepalive(self) -> bytes: ...

    def last(self, text: str | None) -> bytes: ...

    def closing(self, text: str) -> bytes: ...

    def error(self, fault: Fault) -> bytes: ...


def face(api: Api, mode: str, ident: str, model: str, created: int) -> Face | None:
    """The face for an API and a status mode (``event``, ``comment``, ``off``); ``None``: say nothing.

    ``ident`` is the request's id, ``created`` a Unix time in seconds. The modes that put lines into the answer
    have faces of their own (``classic``).
    """
    if mode == "off":
        return None
    if mode == "comment":
        return CommentFace()
    match api:
        case Api.chat | Api.completions:
            return ChunkFace(api, ident, model, created)
        case Api.responses:
            return ResponsesFace(ident, model, created)
        case Api.messages:
            return MessagesFace(ident, model)
        case Api.other | Api.ollama:
            return CommentFace()


def _status(text: str, done: bool, hidden: bool = False) -> dict[str, object]:
    data: dict[str, object] = {"description": text, "done": done}
    if hidden:
        data["hidden"] = True
    return {"type": "status", "data": data}


class Quiet:
    """What the faces share that keep out of the answer's text."""

    words: Words = STATUS
    lasting = False
    footer = False
    content_type = sse.CONTENT_TYPE


class CommentFace(Quiet):
    """Says everything in comments: for streams whose events are not known."""

    def opening(self, text: str) -> bytes:
        return self.news(text)

    def news(self, text: str) -> bytes:
        return b": %b\n\n" % " ".join(text.split()).encode()

    def keepalive(self) -> bytes:
        return sse.KEEP_ALIVE

    def last(self, text: str | None) -> bytes:
        return self.news(text) if text else b""

    def closing(self, text: str) -> bytes:
        return self.news(text)

    def error(self, fault: Fault) -> bytes:
        return sse.data(errors.openai_body(fault))


class ChunkFace(Quiet):
    """Chat completions and completions: an ordinary chunk with an empty text and an ``event`` beside it.

    ``choices`` is never empty: loops over ``chunk.choices[0]`` are everywhere.
    """

    def __init__(self, api: Api, ident: str, model: str, created: int) -> None:
        chat = api is Api.chat
        self._empty: dict[str, object] = (
            {"delta": {"role": "assistant", "content": ""}} if chat else {"text": "", "logprobs": None}
        )
        self._chunk: dict[str, object] = {
            "id": ("chatcmpl-" if chat else "cmpl-") + ident,
            "object": "chat.completion.chunk" if chat else "text_completion",
            "created": created,
            "model": model,
        }

    def opening(self, text: str) -> bytes:
        return self.news(text)

    def news(self, text: str) -> bytes:
        return self._event(_status(text, False))

    def keepalive(self) -> bytes:
        return sse.KEEP_ALIVE

    def last(self, text: str | None) -> bytes:
        return self._event(_status(text or "ready", True, hidden=text is None))

    def closing(self, text: str) -> bytes:
        return self._event(_status(text, True))

    def error(self, fault: Fault) -> bytes:
        return sse.data(errors.openai_body(fault)) + sse.DONE

    def with_choice(self, said: Mapping[str, object], **more: object) -> bytes:
        """A chunk whose one choice says this."""
        choice = {"index": 0, **said, "finish_reason": None}
        return sse.data(_encode({**self._chunk, "choices": [choice], **more}))

    def _event(self, event: Mapping[str, object]) -> bytes:
        return self.with_choice(self._empty, event=event)


class ResponsesFace(Quiet):
    """The responses API: official events in order, the status beside ``response.in_progress``.

    ``sequence`` is the number of the next event; whoever passes the engine's events after an opening counts on.
    """

    def __init__(self, ident: str, model: str, created: int) -> None:
        self.sequence = 0
        self._response: dict[str, object] = {
            "id": "resp_" + ident,
            "object": "response",
            "created_at": created,
            "status": "in_progress",
            "model": model,
            "output": [],
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

    def opening(self, text: str) -> bytes:
        return self._event("response.created", {"response": self._response}) + self.news(text)

    def news(self, text: str) -> bytes:
        return self._progress(_status(text, False))

    def keepalive(self) -> bytes:
        return sse.KEEP_ALIVE

    def last(self, text: str | None) -> bytes:
        return self._progress(_status(text or "ready", True, hidden=text is None))

    def closing(self, text: str) -> bytes:  # noqa: ARG002  nothing may follow or precede the official end
        return b""

    def error(self, fault: Fault) -> bytes:
        error = {"message": fault.message, "type": fault.kind, "code": fault.code, **fault.more}
        return self._event("error", {"code": fault.code, "message": fault.message, "param": None, "error": error})

    def _progress(self, event: Mapping[str, object]) -> bytes:
        return self._event("response.in_progress", {"response": self._response, "event": event})

    def _event(self, kind: str, more: Mapping[str, object]) -> bytes:
        number, self.sequence = self.sequence, self.sequence + 1
        return sse.named(kind.encode(), _encode({"type": kind, "sequence_number": number, **more}))


class MessagesFace(Quiet):
    """Anthropic's messages: ``message_start``, then pings, which is all that its SDKs allow before the text."""

    def __init__(self, ident: str, model: str) -> None:
        self._message: dict[str, object] = {
            "id": "msg_" + ident,
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }

    def opening(self, text: str) -> bytes:
        start = sse.named(b"message_start", _encode({"type": "message_start", "message": self._message}))
        return start + self.news(text)

    def news(self, text: str) -> bytes:
        return b": %b\n" % " ".join(text.split()).encode() + self.keepalive()

    def keepalive(self) -> bytes:
        return sse.named(b"ping", b'{"type":"ping"}')

    def last(self, text: str | None) -> bytes:  # noqa: ARG002  a ping needs no end
        return b""

    def closing(self, text: str) -> bytes:  # noqa: ARG002  nothing may stand outside the message
        return b""

    def error(self, fault: Fault) -> bytes:
        return sse.named(b"error", errors.anthropic_body(fault))


class Pace:
    """When a waiting client hears something: at once on a change, else seldom, but never long nothing.

    ``every_s`` is the least time between two statuses that differ only in figures, ``gap_s`` between two of
    one stage, ``silence_s`` the longest time without a byte. A new stage is told at once.
    """

    __slots__ = ("_key", "_said_at", "_stage", "_text", "_wrote_at", "every_s", "gap_s", "silence_s")

    def __init__(self, every_s: float = 5.0, gap_s: float = 0.5, silence_s: float = 8.0) -> None:
        self.every_s, self.gap_s, self.silence_s = every_s, gap_s, silence_s
        self._stage: object = None
        self._key: object = None
        self._text = ""
        self._said_at = float("-inf")
        self._wrote_at = float("-inf")

    def say(self, stage: object, key: object, text: str, now: float) -> bool:
        """Whether this text is to be said now; if so, it counts as said. ``key``: what is new beside figures."""
        if text == self._text:
            return False
        if stage == self._stage:
            wait = self.every_s if key == self._key else self.gap_s
            if now - self._said_at < wait:
                return False
        self._stage, self._key, self._text = stage, key, text
        self._said_at = self._wrote_at = now
        return True

    def silent(self, now: float) -> bool:
        """Whether a sign of life is due; if so, it counts as given."""
        if now - self._wrote_at < self.silence_s:
            return False
        self._wrote_at = now
        return True

    def wrote(self, now: float) -> None:
        """Something else was written."""
        self._wrote_at = now
