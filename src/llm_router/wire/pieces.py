"""One chat completion as a row of pieces (thinking, text, tool calls), each whole before the next begins.

Chat completions may mix the fragments of their parts; Anthropic's messages and the responses API may not. This file
puts them in a row, whole or while they come, and knows neither of those APIs. It refuses to give a clean end to
an answer that has none.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import msgspec

from llm_router.wire.foreign import BROKEN, error_text, first_choice, spoken, thoughts
from llm_router.wire.join import ABORTED, DONE, read


class Kind(Enum):
    """What a piece is."""

    thinking = "thinking"
    text = "text"
    tool = "tool"


@dataclass(frozen=True, slots=True)
class Begin:
    """A piece begins. ``ident`` and ``name`` are a tool call's; ``ident`` is ``""`` where the engine gave none."""

    kind: Kind
    ident: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Grow:
    """The piece gets longer: words, or a fragment of a tool call's arguments. Never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class End:
    """The piece is whole."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer is whole. ``choice`` is the last fragment, with ``finish_reason``."""

    choice: dict[str, Any]
    usage: dict[str, Any]
    called: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """The engine reported an error or broke off; nothing follows."""

    text: str


Step = Begin | Grow | End | Finished | Failed

_Fragment = dict[str, Any]


@dataclass(slots=True)
class Pieces:
    """Turns the chunks of one chat completion into steps. After ``Finished`` or ``Failed`` there are none."""

    over: bool = False
    _usage: dict[str, Any] = field(default_factory=dict)
    _finish: dict[str, Any] | None = None
    #: What is growing: a kind, the index of a tool call, or nothing.
    _open: Kind | int | None = None
    #: The highest index of a tool call so far, and those that are told in full.
    _highest: int = -1
    _told: set[int] = field(default_factory=set)
    #: Fragments of tool calls that wait for the one before them to end.
    _later: dict[int, list[_Fragment]] = field(default_factory=dict)

    def feed(self, payload: bytes) -> list[Step]:
        """Take one payload of the engine's stream (JSON or ``[DONE]``). Never fails."""
        if self.over:
            return []
        if payload.strip() == DONE:
            return self.end()
        try:
            chunk = read(payload)
        except msgspec.DecodeError:
            return self._fail("the engine sent an event that cannot be read")
        if not isinstance(chunk, dict):
            return []
        if chunk.get("error") is not None or chunk.get("object") == "error":
            return self._fail(error_text(payload))
        return self._take(chunk)

    def end(self) -> list[Step]:
        """The engine's stream is over."""
        if self.over:
            return []
        if self._finish is None:
            return self._fail(BROKEN)
        self.over = True
        return [*self._flush(), Finished(self._finish, self._usage, self._highest >= 0)]

    def _fail(self, text: str) -> list[Step]:
        self.over = True
        return [Failed(text)]

    def _take(self, chunk: dict[str, Any]) -> list[Step]:
        if isinstance(usage := chunk.get("usage"), dict):
            self._usage = usage
        choice = first_choice(chunk)
        delta = choice.get("delta")
        steps: list[Step] = []
        if isinstance(delta, dict):
            steps += self._say(Kind.thinking, thoughts(delta))
            steps += self._say(Kind.text, spoken(delta))
            for call in _fragments(delta):
                steps += self._tool(call)
        if choice.get("finish_reason") == ABORTED and not self.over:
            return [*steps, *self._fail(BROKEN)]
        if choice.get("finish_reason") is not None:
            self._finish = choice
        return steps

    def _say(self, kind: Kind, text: str) -> list[Step]:
        if not text:
            return []
        if self._open is kind:
            return [Grow(text)]
        steps = self._flush()
        self._open = kind
        return [*steps, Begin(kind), Grow(text)]

    def _tool(self, call: _Fragment) -> list[Step]:
        if self.over:
            return []
        index = call.get("index")
        if not isinstance(index, int):
            # Engines without indices send whole calls, one after the other.
            index = self._highest + 1
        self._highest = max(self._highest, index)
        if index in self._told:
            return self._fail("the engine went on with a tool call that it had ended")
        if not isinstance(self._open, int):
            return [*self._flush(), *self._begin_tool(index, call)]
        if index == self._open:
            return _grown(call)
        self._later.setdefault(index, []).append(call)
        return []

    def _begin_tool(self, index: int, call: _Fragment) -> list[Step]:
        self._open = index
        return [_begun(call), *_grown(call)]

    def _flush(self) -> list[Step]:
        """End what is open, then tell the tool calls that waited for it."""
        steps = self._close()
        for index, calls in sorted(self._later.items()):
            steps += self._begin_tool(index, calls[0])
            for call in calls[1:]:
                steps += _grown(call)
            steps += self._close()
        self._later.clear()
        return steps

    def _close(self) -> list[Step]:
        if self._open is None:
            return []
        if isinstance(self._open, int):
            self._told.add(self._open)
        self._open = None
        return [End()]


def whole(body: bytes) -> tuple[dict[str, Any], list[Step]]:
    """A whole chat completion and its steps, the last of them ``Finished``.

    Raises ``ValueError`` for a body that is none, or that was broken off.
    """
    try:
        answer = read(body)
    except msgspec.DecodeError as error:
        raise ValueError(f"cannot translate the engine's answer: {error}") from error
    choice = first_choice(answer) if isinstance(answer, dict) else {}
    message = choice.get("message")
    if not isinstance(message, dict) or choice.get("finish_reason") == ABORTED:
        raise ValueError("cannot translate the engine's answer: it holds no whole message")
    steps: list[Step] = []
    for kind, text in ((Kind.thinking, thoughts(message)), (Kind.text, spoken(message))):
        if text:
            steps += [Begin(kind), Grow(text), End()]
    calls = _fragments(message)
    for call in calls:
        steps += [_begun(call), *_grown(call), End()]
    usage = answer.get("usage")
    steps.append(Finished(choice, usage if isinstance(usage, dict) else {}, bool(calls)))
    return answer, steps


def _fragments(message: dict[str, Any]) -> list[_Fragment]:
    calls = message.get("tool_calls")
    return [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []


def _function(call: _Fragment) -> dict[str, Any]:
    function = call.get("function")
    return function if isinstance(function, dict) else {}


def _begun(call: _Fragment) -> Begin:
    name, ident = _function(call).get("name"), call.get("id")
    return Begin(Kind.tool, ident if isinstance(ident, str) else "", name if isinstance(name, str) else "")


def _grown(call: _Fragment) -> list[Step]:
    arguments = _function(call).get("arguments")
    return [Grow(arguments)] if isinstance(arguments, str) and arguments else []
