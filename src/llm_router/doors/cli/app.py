"""The frame of the command line: how errors end a command.

This file knows no command. A command that cannot go on raises ``CommandError``; here it becomes a sentence on
standard error and an exit code, never a traceback.
"""

import json
from typing import Any

import typer
from typer.core import TyperGroup

from llm_router.doors.cli.exits import CommandError, Exit
from llm_router.doors.cli.options import JSON_WANTED


class Commands(TyperGroup):
    """A group of commands whose failures are told, not thrown."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CommandError as trouble:
            tell(trouble, as_json=bool(ctx.meta.get(JSON_WANTED)))
            raise typer.Exit(trouble.code) from None
        except KeyboardInterrupt:
            raise typer.Exit(Exit.interrupted) from None


def tell(trouble: CommandError, *, as_json: bool) -> None:
    """Print a failure where it belongs: a sentence and its details, or one JSON object."""
    if as_json:
        error = {"message": trouble.text, "exit_code": int(trouble.code), "details": list(trouble.details)}
        typer.echo(json.dumps({"error": error}, indent=2, ensure_ascii=False))
        return
    typer.echo(trouble.text, err=True)
    for line in trouble.details:
        typer.echo(f"  {line}", err=True)


def group(help_text: str, **more: Any) -> typer.Typer:
    """A group of commands in the house's manner."""
    return typer.Typer(
        cls=Commands, help=help_text, no_args_is_help=not more.get("invoke_without_command", False), **more
    )
