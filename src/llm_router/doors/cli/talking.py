"""One answer as it comes: the router's status on a passing line, the text, the speed at the end.

This file knows the chunks of a chat. It draws on the terminal; it asks for nothing by itself.
"""

import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import typer

from llm_router.doors.cli import output

Json = dict[str, Any]


@dataclass(slots=True)
class Reply:
    """What came of one question. ``statuses`` are the lines that the router sent on the way."""

    text: str = ""
    reasoning: str = ""
    finish: str | None = None
    usage: Json | None = None
    closing: str = ""
    statuses: tuple[str, ...] = ()


class Screen(Protocol):
    """Where the answer is shown while it comes."""

    def waiting(self, words: str) -> None:
        """A passing line; empty: remove it."""
        ...

    def text(self, words: str, *, thinking: bool) -> None: ...


def receive(chunks: Iterable[Json], screen: Screen) -> Reply:
    """Show the chunks as they come; returns the whole. Unknown parts of chunks are passed over."""
    reply = Reply()
    for chunk in chunks:
        _status(chunk, reply, screen)
        usage = chunk.get("usage")
        reply.usage = usage if isinstance(usage, dict) else reply.usage
        for choice in _list(chunk.get("choices")):
            _choice(choice, reply, screen)
    screen.waiting("")
    return reply


def _status(chunk: Json, reply: Reply, screen: Screen) -> None:
    event = chunk.get("event")
    told = event.get("data") if isinstance(event, dict) and event.get("type") == "status" else None
    if not isinstance(told, dict):
        return
    words = str(told.get("description") or "")
    reply.statuses += (words,)
    if reply.text or reply.reasoning:
        reply.closing = words
    else:
        screen.waiting("" if told.get("done") else words)


def _choice(choice: Json, reply: Reply, screen: Screen) -> None:
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        return
    thought = delta.get("reasoning_content") or delta.get("reasoning")
    if isinstance(thought, str) and thought:
        screen.text(thought, thinking=True)
        reply.reasoning += thought
    content = delta.get("content")
    if isinstance(content, str) and content:
        screen.text(content, thinking=False)
        reply.text += content
    if isinstance(choice.get("finish_reason"), str):
        reply.finish = choice["finish_reason"]


def _list(value: object) -> list[Json]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


class Silence:
    """For programs: nothing is shown on the way."""

    def waiting(self, words: str) -> None: ...

    def text(self, words: str, *, thinking: bool) -> None: ...


class Terminal:
    """For people: text on standard output, the passing line on standard error if that is a terminal."""

    def __init__(self) -> None:
        from rich.text import Text

        self._errors = output.console(stderr=True)
        self._plain = Text
        self._spinner = self._errors.status("", spinner="dots")
        self._spinning = False
        self._thinking = False

    def waiting(self, words: str) -> None:
        if not words:
            self._stop()
        elif self._errors.is_terminal:
            self._spinner.update(self._plain(printable(words)))
            if not self._spinning:
                self._spinner.start()
                self._spinning = True

    def text(self, words: str, *, thinking: bool) -> None:
        self._stop()
        if thinking:
            self._errors.print(printable(words), style="dim", end="", markup=False)
        else:
            if self._thinking:
                self._errors.print("\n")
            typer.echo(printable(words), nl=False)
        self._thinking = thinking

    def _stop(self) -> None:
        if self._spinning:
            self._spinner.stop()
            self._spinning = False


@contextmanager
def terminal() -> Iterator[Terminal]:
    """A screen whose passing line is gone afterwards, whatever happens."""
    screen = Terminal()
    try:
        yield screen
    finally:
        screen.waiting("")


def printable(words: str) -> str:
    """Text that cannot steer the terminal: line breaks and tabs stay, other control characters are replaced."""
    return "".join(
        letter if letter in "\n\t" or unicodedata.category(letter) != "Cc" else "\N{REPLACEMENT CHARACTER}"
        for letter in words
    )
