"""The command line ``llm-router``: which commands there are.

Commands live in the files beside this one and import what they need when they run, so that ``--help`` is
quick and ``serve`` carries nothing that only other commands need.
"""

import os
import sys
from typing import Annotated

import typer

from llm_router import __version__
from llm_router.doors.cli import running, shelving, steering
from llm_router.doors.cli.app import group, tell
from llm_router.doors.cli.beginning import init
from llm_router.doors.cli.configuring import config_commands, keys_commands
from llm_router.doors.cli.examining import doctor
from llm_router.doors.cli.exits import CommandError, Exit
from llm_router.doors.cli.installing import install, uninstall
from llm_router.doors.cli.options import Json
from llm_router.doors.cli.output import print_json
from llm_router.doors.cli.replaying import replay
from llm_router.doors.cli.simulating import simulate

app = group("One OpenAI-compatible address in front of a shelf of local models.", pretty_exceptions_enable=False)


def _version_asked(asked: bool) -> None:
    if asked:
        typer.echo(f"llm-router {__version__}")
        raise typer.Exit(Exit.done)


@app.callback()
def _llm_router(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version_asked, is_eager=True)
    ] = False,
) -> None:
    """One OpenAI-compatible address in front of a shelf of local models."""


@app.command()
def version(json: Json = False) -> None:
    """Show the version."""
    print_json({"version": __version__}) if json else typer.echo(f"llm-router {__version__}")


app.command()(running.serve)
app.command()(running.demo)
app.command()(steering.status)
app.add_typer(steering.models_commands, name="models")
steering.models_commands.command("add")(shelving.add)
steering.models_commands.command("remove")(shelving.remove)
steering.models_commands.command("scan")(shelving.scan)
app.command()(steering.load)
app.command()(steering.unload)
app.command()(steering.switch)
app.command()(steering.reload)
app.command()(steering.chat)
app.command()(init)
app.command()(simulate)
app.command()(replay)
app.command()(install)
app.command()(uninstall)
app.command()(doctor)
app.add_typer(config_commands, name="config")
app.add_typer(keys_commands, name="keys")


def main() -> None:
    """The entry point. Ends the process with one of the codes in ``exits.Exit``."""
    try:
        app()
    except Exception as error:
        if os.environ.get("LLM_ROUTER_TRACEBACK"):
            raise
        text = f"cannot go on because of a fault in llm-router ({type(error).__name__}: {error}); "
        tell(CommandError(text + "please report it with what LLM_ROUTER_TRACEBACK=1 shows"), as_json=False)
        sys.exit(Exit.failed)
