"""Commands about the configuration: ``config check``, ``convert`` and ``schema``, ``keys new`` and ``hash``."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llm_router.doors.cli import options, output
from llm_router.doors.cli.app import group
from llm_router.doors.cli.exits import CommandError, Exit

if TYPE_CHECKING:
    from llm_router.config.problems import ConfigError

config_commands = group("The configuration.")
keys_commands = group("Keys for clients of the router.")


@config_commands.command("check")
def check(config: options.Config = None, json: options.Json = False) -> None:
    """Read the configuration and tell every mistake with its line; exit code 6 if there is one."""
    from llm_router.config.problems import ConfigError
    from llm_router.doors.reloaded import entry
    from llm_router.host.config_files import find, load

    try:
        path = find(config, os.environ)
        found = load(path, os.environ)
    except ConfigError as error:
        if json:
            output.print_json({"ok": False, "errors": [entry(problem) for problem in error.problems]})
            raise typer.Exit(Exit.configuration) from None
        raise mistakes(error) from None
    if json:
        warnings = [entry(problem) for problem in found.warnings]
        output.print_json({"ok": True, "path": str(path), "models": list(found.models), "warnings": warnings})
        return
    for warning in found.warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"{path} is good: {output.plural(len(found.models), 'model')}.")


def mistakes(error: "ConfigError") -> CommandError:
    """Every mistake in a line, and their number."""
    count = output.plural(len(error.problems), "mistake")
    return CommandError("\n".join((*map(str, error.problems), f"{count} found.")), Exit.configuration)


@config_commands.command("convert")
def convert(
    file: Annotated[Path, typer.Argument(help="Configuration of an older router: a file or a folder.", metavar="FILE")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write it there instead of printing it.", metavar="PATH", show_default=False
        ),
    ] = None,
    force: Annotated[bool, typer.Option(help="Replace the file there; a copy is kept beside it.")] = False,
    json: options.Json = False,
) -> None:
    """Write an older configuration in the present layout, with comments on what changed."""
    from llm_router.config.convert import convert
    from llm_router.config.problems import ConfigError
    from llm_router.host import config_edit, config_files

    try:
        path = config_files.find(file, os.environ)
        text = convert(config_files.read_files(path), os.environ, config_files.installed_here(os.environ))
    except ConfigError as error:
        raise mistakes(error) from None
    if out is None:
        output.print_json({"text": text}) if json else typer.echo(text, nl=False)
        return
    try:
        kept = config_edit.create(out, text, replace=force)
    except config_edit.EditError as error:
        raise CommandError(str(error)) from None
    if json:
        output.print_json({"path": str(out), "kept": str(kept) if kept else None})
        return
    typer.echo(
        f"{out} holds the configuration; look at its comments, then try `llm-router config check --config {out}`."
    )


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
