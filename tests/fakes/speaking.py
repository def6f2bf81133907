"""How the fake engines speak: one known sentence, its tokens counted, in the form of each engine.

Standard library only. A fake's own ``Form`` says what its chunks and answers look like; when they are written,
and what comes between, is here.
"""

import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fakes.engine_base import Exchange, Script

Body = Mapping[str, Any]


def prompt_tokens(body: Body) -> int:
    """As the tiny models count: a byte is a token, a message has two markers, a prompt a beginning and an opening."""
    if "prompt" in body:
        return 1 + len(str(body["prompt"]).encode())
    texts = [_text_of(message.get("content")) for message in body.get("messages", [])]
    return 2 + sum(2 + len(text.encode()) for text in texts)


def _text_of(content: object) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def wants_usage(body: Body) -> bool:
    options = body.get("stream_options")
    return isinstance(options, dict) and bool(options.get("include_usage"))


def now() -> int:
    return int(time.time())


@dataclass
class Speech:
    """One answer: the sentence, cut at the limit; repeated for ever when the end is forbidden."""

    pieces: list[str]
    limit: int | None
    endless: bool = False
    spoken: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, script: Script, body: Body) -> "Speech":
        limit = body.get("max_completion_tokens") or body.get("max_tokens")
        return cls(script.pieces, int(limit) if limit else None, bool(body.get("ignore_eos")))

    def __iter__(self) -> Iterator[str]:
        while True:
            for piece in self.pieces:
                if self.limit is not None and len(self.spoken) >= self.limit:
                    return
                self.spoken.append(piece)
                yield piece
            if not self.endless:
                return

    async def paced(self, script: Script) -> AsyncIterator[str]:
        for piece in self:
            await script.pause(1 / script.tokens_per_s)
            yield piece

    @property
    def text(self) -> str:
        return "".join(self.spoken)

    @property
    def finish(self) -> str:
        whole = len(self.spoken) >= len(self.pieces) and not self.endless
        return "stop" if whole and (self.limit is None or self.limit > len(self.pieces)) else "length"

    def usage(self, body: Body) -> dict[str, Any]:
        """The end of the text is a token too."""
        made, prompt = len(self.spoken) + (self.finish == "stop"), prompt_tokens(body)
        return {"prompt_tokens": prompt, "total_tokens": prompt + made, "completion_tokens": made}


@dataclass(frozen=True)
class Form:
    """An engine's way to write an answer.

    ``ids`` are the prefixes of chat and text ids. ``opening`` is the delta before the first piece, ``None`` for
    none. ``usage``: ``own`` is a chunk without choices, for who asks; ``last`` rides on the last chunk, always;
    ``extra`` is one more chunk that repeats the last choice, for who asks. ``done``: the stream ends so.
    ``whole_usage``: a whole answer has it without being asked.
    """

    ids: tuple[str, str] = ("", "")
    opening: Mapping[str, object] | None = None
    #: The delta of the chunk with the finish reason.
    closing: Mapping[str, object] = field(default_factory=dict)
    usage: str = "own"
    whole_usage: bool = True
    done: bool = True
    line: bytes = b"\n"
    finish_early: bool = True
    text_model: str = "model"
    #: What every delta, message and choice carries besides.
    in_delta: Mapping[str, object] = field(default_factory=dict)
    in_choice: Mapping[str, object] = field(default_factory=dict)
    in_chunk: Mapping[str, object] = field(default_factory=dict)

    def frame(self, model: str, kind: str, *, chat: bool) -> dict[str, Any]:
        name = "model" if chat else self.text_model
        return {"id": self.ids[not chat] + uuid.uuid4().hex[:16], "object": kind, "created": now(), name: model}

    def choice(self, delta: Mapping[str, object], finish: str | None, *, chat: bool) -> dict[str, Any]:
        part = {"delta": {**self.in_delta, **delta}} if chat else {"text": delta.get("content", "")}
        unfinished = {"finish_reason": finish} if finish or self.finish_early else {}
        return {"index": 0, **part, **self.in_choice, **unfinished}


Between = Callable[[Speech], Awaitable[None]]


async def _nothing(_: Speech) -> None:
    pass


async def answer(
    exchange: Exchange, script: Script, form: Form, model: str, *, chat: bool, between: Between = _nothing
) -> None:
    """Say the sentence as the body wants it; ``between`` is called after each piece of a stream."""
    body = exchange.request.json()
    speech = Speech.of(script, body)
    if body.get("stream"):
        await _stream(exchange, script, form, model, body, speech, between, chat=chat)
        return
    async for _ in speech.paced(script):
        if exchange.left:
            return
    choice = {"index": 0, "finish_reason": speech.finish}
    message = {"role": "assistant", "content": speech.text, **form.in_delta}
    choice |= {"message": message} if chat else {"text": speech.text}
    asked = form.whole_usage or wants_usage(body)
    frame = form.frame(model, "chat.completion" if chat else "text_completion", chat=chat)
    usage = {"usage": form_usage(form, speech, body) if asked else None}
    await exchange.send(200, {**frame, "choices": [{**choice, **form.in_choice}], **usage})


def form_usage(form: Form, speech: Speech, body: Body) -> dict[str, Any]:
    """TabbyAPI tells its speeds there; the others count only."""
    counted = speech.usage(body)
    if form.usage != "extra":
        return counted
    return {
        "prompt_tokens": counted["prompt_tokens"], "prompt_time": 0.01, "prompt_tokens_per_sec": 600.0,
        "completion_tokens": counted["completion_tokens"], "completion_time": 0.1, "completion_tokens_per_sec": 70.0,
        "total_tokens": counted["total_tokens"], "total_time": 0.11,
    }  # fmt: skip


async def _stream(
    exchange: Exchange, script: Script, form: Form, model: str, body: Body, speech: Speech, between: Between,
    *, chat: bool,
) -> None:  # fmt: skip
    frame = {**form.frame(model, "chat.completion.chunk" if chat else "text_completion", chat=chat), **form.in_chunk}
    if chat and form.text_model != "model":
        frame["model"] = model

    async def chunk(choices: list[dict[str, Any]], **more: object) -> None:
        await exchange.event({**frame, "choices": choices, **more}, form.line)

    await exchange.stream()
    if chat and form.opening is not None:
        await chunk([form.choice(form.opening, None, chat=True)])
    async for piece in speech.paced(script):
        await chunk([form.choice({"content": piece}, None, chat=chat)])
        await between(speech)
    last = form.choice(form.closing, speech.finish, chat=chat)
    counted = form_usage(form, speech, body)
    await chunk([last], **({"usage": counted} if form.usage == "last" else {}))
    if wants_usage(body) and form.usage != "last":
        await chunk([last] if form.usage == "extra" else [], usage=counted)
    if form.done:
        await exchange.event("[DONE]", form.line)
    await exchange.finish()
