"""Commands about the configuration: ``config check``, ``config schema``, ``keys new``, ``keys hash``."""

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from llm_router.doors.cli import options, output
from llm_router.doors.cli.app import group
from llm_router.doors.cli.exits import CommandError, Exit

if TYPE_CHECKING:
    from llm_router.config.problems import Problem

config_commands = group("The configuration.")
keys_commands = group("Keys for clients of the router.")


@config_commands.command("check")
def check(config: options.Config = None, json: options.Json = False) -> None:
    """Read the configuration and tell every mistake with its line; exit code 6 if there is one."""
    from llm_router.config.problems import ConfigError
    from llm_router.host.config_files import find, load

    try:
        path = find(config, os.environ)
        found = load(path, os.environ)
    except ConfigError as error:
        if json:
            output.print_json({"ok": False, "errors": [_entry(problem) for problem in error.problems]})
            raise typer.Exit(Exit.configuration) from None
        count = output.plural(len(error.problems), "mistake")
        raise CommandError("\n".join((*map(str, error.problems), f"{count} found.")), Exit.configuration) from None
    if json:
        warnings = [_entry(problem) for problem in found.warnings]
        output.print_json({"ok": True, "path": str(path), "models": list(found.models), "warnings": warnings})
        return
    for warning in found.warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"{path} is good: {output.plural(len(found.models), 'model')}.")


@config_commands.command("schema")
def schema() -> None:
    """Print the JSON schema of the configuration, for editors."""
    from llm_router.config.schema import json_schema

    output.print_json(json_schema())


@keys_commands.command("new")
def new(json: options.Json = False) -> None:
    """Make a key: the key for the client, and what to write into the configuration."""
    import secrets

    from llm_router.config.values import hashed

    key = "sk-" + secrets.token_urlsafe(32)
    if json:
        output.print_json({"key": key, "hash": hashed(key)})
        return
    typer.echo(f"Give the client this key; it is not shown again:\n  {key}")
    typer.echo(f"Write this below `server` into the configuration:\n  keys: [{{name: NAME, key: '{hashed(key)}'}}]")


@keys_commands.command("hash")
def hash_key(
    key: Annotated[
        str | None,
        typer.Argument(help="The key; better typed on standard input, where nobody sees it.", show_default=False),
    ] = None,
    json: options.Json = False,
) -> None:
    """Print what to write into the configuration for a key."""
    from llm_router.config.values import hashed

    text = key if key is not None else _typed_key()
    if not text:
        raise CommandError("cannot hash an empty key", Exit.usage)
    if json:
        output.print_json({"hash": hashed(text)})
    else:
        typer.echo(hashed(text))


def _typed_key() -> str:
    if sys.stdin.isatty():
        import getpass

        return getpass.getpass("Key: ").strip()
    return sys.stdin.readline().strip()


def _entry(problem: "Problem") -> dict[str, object]:
    place = problem.place
    return {
        "file": place.source,
        "line": place.line,
        "column": place.column,
        "text": problem.text,
        "suggestion": problem.suggestion,
    }
