"""Talking to a model: one question, or a conversation at the keyboard.

This file keeps the messages of a conversation. How an answer is drawn is ``talking``'s business.
"""

import os
from collections.abc import Callable
from typing import Any

import typer

from llm_router.doors.cli import output, talking
from llm_router.doors.cli.client import Router
from llm_router.doors.cli.exits import CommandError

Json = dict[str, Any]
_HELP = "Type a message. /new begins anew, /quit or Ctrl-D ends; Ctrl-C stops an answer."


class Conversation:
    """The messages so far, and the router that answers them. ``body`` are the other fields of the requests."""

    def __init__(self, router: Router, body: Json, system: str | None) -> None:
        self._router = router
        self._body = body
        self._first: list[Json] = [{"role": "system", "content": system}] if system else []
        self._messages = list(self._first)

    def say(self, words: str, *, quiet: bool = False) -> talking.Reply:
        """Ask, show the answer as it comes, keep both. Raises ``CommandError``; the question is then forgotten."""
        messages = [*self._messages, {"role": "user", "content": words}]
        chunks = self._router.chat({**self._body, "messages": messages})
        if quiet:
            reply = talking.receive(chunks, talking.Silence())
        else:
            with talking.terminal() as screen:
                reply = talking.receive(chunks, screen)
            _end(reply)
        self._messages = [*messages, {"role": "assistant", "content": reply.text}]
        return reply

    def hold(self, ask: Callable[[str], str] = input) -> None:
        """Go on until the person ends it. A failed question does not end the conversation."""
        _remember_lines()
        typer.echo(_HELP, err=True)
        while True:
            try:
                words = ask("> ").strip()
            except (EOFError, KeyboardInterrupt):
                typer.echo("", err=True)
                return
            if words in {"/quit", "/exit", "/bye"}:
                return
            if words == "/new":
                self._messages = list(self._first)
            elif words.startswith("/"):
                typer.echo(_HELP, err=True)
            elif words:
                self._try(words)

    def _try(self, words: str) -> None:
        try:
            self.say(words)
        except CommandError as trouble:
            typer.echo(trouble.text, err=True)
        except KeyboardInterrupt:
            typer.echo("\n(stopped)", err=True)


def _end(reply: talking.Reply) -> None:
    """The line after the answer: the router's closing status, or why the answer is short."""
    typer.echo("")
    if reply.finish == "length":
        typer.echo("(the answer reached its limit of tokens)", err=True)
    if reply.closing:
        output.console(stderr=True).print(talking.printable(reply.closing), style="dim", markup=False)


def _remember_lines() -> None:
    """Arrow keys bring earlier lines back, where Python was built with readline."""
    if os.environ.get("TERM") != "dumb":
        try:
            import readline  # noqa: F401 - importing it is what equips input()
        except ImportError:
            return
