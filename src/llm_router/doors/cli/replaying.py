"""``replay``: a journal of the router, lived through again and told as a story."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from llm_router.doors.cli import options, output
from llm_router.doors.cli.exits import CommandError


def replay(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Journals, oldest first (journal.jsonl.1 journal.jsonl); - is standard input.", metavar="FILE..."
        ),
    ],
    model: Annotated[
        str | None, typer.Option(help="Tell only the lines that name this model.", metavar="NAME", show_default=False)
    ] = None,
    json: options.Json = False,
) -> None:
    """Live through a journal again: what happened (>), and what the scheduler asks for (<)."""
    from llm_router.core.story import StoryError, replay

    told: list[str] = []
    try:
        for line in replay(_lines(files)):
            if model is not None and model not in line:
                continue
            if json:
                told.append(line)
            else:
                typer.echo(line)
    except StoryError as error:
        raise CommandError(f"cannot replay {files[0]}: {error}") from None
    if json:
        output.print_json({"story": told})


def _lines(files: list[Path]) -> Iterator[str]:
    for path in files:
        with ExitStack() as stack:
            try:
                source = sys.stdin if str(path) == "-" else stack.enter_context(path.open(encoding="utf-8"))
                yield from source
            except OSError as error:
                raise CommandError(f"cannot read the journal {path}: {error.strerror}") from None
            except UnicodeDecodeError:
                raise CommandError(f"cannot read the journal {path}: it is not UTF-8 text") from None
