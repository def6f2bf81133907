"""Watching a load until the model is there, or cannot be.

This file decides from ``/api/status`` alone whether a load goes on, succeeded or failed. It draws the
progress; it asks for nothing to be loaded.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from llm_router.doors.cli import output
from llm_router.doors.cli.client import Router
from llm_router.doors.cli.exits import CommandError

Json = dict[str, Any]
Draw = Callable[[str, float | None], None]

POLL_S: Final = 0.3
#: A load that nothing shows of for so long (seconds) was forgotten or cancelled by somebody.
QUIET_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class View:
    """What one status says of the model."""

    loaded: bool
    moving: bool
    words: str
    percent: float | None
    failure: Json | None


def view(status: Json, model: str) -> View:
    """Read one status. ``model`` may be an alias. Raises ``CommandError`` if the router lost the model."""
    entry = find(status, model)
    if entry is None:
        raise CommandError(f"cannot load {model}: the router does not have it any more")
    name = entry.get("name")
    instances = [row for row in output.rows(status, "instances") if row.get("model") == name]
    coming = [row for row in instances if row.get("state") not in {"gone", "stopping"}]
    waiting = any(row.get("model") == name and row.get("waiting") for row in output.rows(status, "queue"))
    failures = [row for row in output.rows(status, "failures") if row.get("model") == name]
    leaving = [
        row for row in output.rows(status, "instances") if row.get("state") in {"draining", "stopping", "parking"}
    ]
    best = coming[-1] if coming else {}
    percent = best.get("percent")
    return View(
        loaded=bool(entry.get("loaded")),
        moving=bool(coming or waiting or entry.get("waiting")),
        words=output.progress_words(best) if coming else _waiting_words(leaving, waiting),
        percent=float(percent) if isinstance(percent, int | float) else None,
        failure=failures[0] if failures else None,
    )


def _waiting_words(leaving: list[Json], waiting: bool) -> str:
    if leaving:
        return "waiting for " + ", ".join(str(row.get("model")) for row in leaving) + " to leave"
    return "waiting for room" if waiting else "asked for"


def find(status: Json, model: str) -> Json | None:
    """The model's entry by name or alias."""
    for entry in output.rows(status, "models"):
        if model == entry.get("name") or model in (entry.get("aliases") or ()):
            return entry
    return None


def follow(
    router: Router,
    model: str,
    draw: Draw,
    *,
    timeout_s: float | None,
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> float:
    """Watch until the model is loaded; returns the seconds it took.

    Raises ``CommandError`` with the cause and the end of the engine's log when the load fails, when nothing is
    seen of it for ``QUIET_S``, or after ``timeout_s``; the load itself then goes on.
    """
    began = seen = clock()
    failures_seen = 0
    while True:
        now = view(router.status(), model)
        took = clock() - began
        if now.loaded:
            return took
        # The failure of an earlier try may stand there until the new one has begun: believe the second look.
        failures_seen = failures_seen + 1 if now.failure is not None and not now.moving else 0
        if now.failure is not None and failures_seen >= 2:
            raise _failed(model, now.failure)
        seen = clock() if now.moving else seen
        if clock() - seen > QUIET_S:
            raise CommandError(
                f"cannot see {model} being loaded: somebody may have unloaded it; look at `llm-router status`"
            )
        if timeout_s is not None and took > timeout_s:
            raise CommandError(
                f"cannot wait longer for {model}: {now.words} after {output.seconds(took)}; the load goes on"
            )
        draw(now.words, now.percent)
        pause(POLL_S)


def _failed(model: str, failure: Json) -> CommandError:
    cause = str(failure.get("cause") or "the router gives no cause")
    tail = failure.get("tail")
    text = cause if cause.startswith("cannot") else f"cannot load {model}: {cause}"
    return CommandError(text, details=tuple(map(str, tail)) if isinstance(tail, list) else ())


@contextmanager
def bar(model: str, *, quiet: bool) -> Iterator[Draw]:
    """A progress bar on standard error, gone at the end; nothing where nobody looks."""
    out = output.console(stderr=True)
    if quiet or not out.is_terminal:
        yield lambda _words, _percent: None
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.fields[model]}"), BarColumn(), TextColumn("{task.description}"))
    with Progress(*columns, TimeElapsedColumn(), console=out, transient=True) as progress:
        task = progress.add_task("asked for", total=None, model=model)

        def draw(words: str, percent: float | None) -> None:
            progress.update(task, description=words, total=None if percent is None else 100, completed=percent or 0)

        yield draw
