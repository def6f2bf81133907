"""Commands that run a router in this process: ``serve`` and ``demo``."""

import gc
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from llm_router.doors.cli import options
from llm_router.doors.cli.exits import CommandError, Exit


def serve(
    config: options.Config = None,
    host: Annotated[
        str | None, typer.Option(help="Listen here instead of where the configuration says.", metavar="HOST")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Listen on this port instead.", metavar="PORT", min=0, max=65535)
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(help="debug, info, warning or error.", metavar="LEVEL", show_default=False)
    ] = None,
) -> None:
    """Run the router in front of the configured models, until Ctrl-C or SIGTERM."""
    _check_level(log_level)
    app = _the_app()
    from llm_router.config.problems import ConfigError

    try:
        code = app.serve(config, host=host, port=port, log_level=log_level)
    except ConfigError as error:
        raise CommandError(str(error), Exit.configuration) from None
    raise typer.Exit(code)


def demo(
    models: Annotated[int, typer.Option(help="How many demo models.", metavar="COUNT", min=1, max=24)] = 2,
    port: Annotated[
        int, typer.Option(help="Port to listen on; 0 lets the system choose.", metavar="PORT", min=0, max=65535)
    ] = 8002,
    folder: Annotated[
        Path | None, typer.Option(help="Where the demo keeps its models.", show_default=False, metavar="PATH")
    ] = None,
) -> None:
    """Run a router in front of tiny models of its own on a real llama.cpp; needs no GPU and no configuration."""
    raise typer.Exit(_the_app().demo(models=models, port=port, folder=folder))


def _the_app() -> ModuleType:
    """The application, imported now. Nothing of an import is garbage, and to look for some takes a fifth of its time."""
    gc.disable()
    try:
        from llm_router import app
    finally:
        gc.enable()
    return app


def _check_level(level: str | None) -> None:
    if level is not None and level not in {"debug", "info", "warning", "error"}:
        raise CommandError(f"cannot use {level!r} as log level: it is debug, info, warning or error", Exit.usage)
