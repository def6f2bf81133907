"""``init``: look at this machine, ask what cannot be seen, write a first configuration with comments."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm_router.doors.cli import options, output
from llm_router.doors.cli.exits import CommandError, Exit

if TYPE_CHECKING:
    from llm_router.formats.recognise import Recognised
    from llm_router.host.machine.gpus import Gpu


def init(
    out: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write; otherwise the usual one of this account.",
            metavar="PATH",
            show_default=False,
        ),
    ] = None,
    models: Annotated[
        list[Path] | None,
        typer.Option(
            "--models", "-m", help="Folder with models; may be repeated. Otherwise the usual ones.", metavar="DIR"
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.", metavar="HOST")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", metavar="PORT", min=1, max=65535)] = 8002,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing; take what was found.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a file that is there; a copy is kept beside it.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Look for engines, GPUs and models on this machine, and write a configuration with comments."""
    from llm_router.config import proposal
    from llm_router.config.problems import ConfigError
    from llm_router.doors.cli.configuring import mistakes
    from llm_router.host import config_edit, config_files, installations
    from llm_router.host.machine.gpus import Gauge

    asking = not yes and not json
    if asking and not _is_somebody_there():
        raise CommandError("cannot ask: standard input is no terminal; say --yes to take what is found", Exit.usage)
    place = out or _usual_place()
    if place.exists() and not force:
        raise CommandError(f"cannot write {place}: there is a file of this name; name another one, or say --force")
    gpus = Gauge().gpus
    backends = _backends({each.engine: each.backend() for each in installations.find_all(os.environ)})
    folders = list(models) if models is not None else installations.model_folders(os.environ)
    if asking:
        _tell_machine(gpus, backends)
        folders = _ask_folders(folders)
        port = typer.prompt("Port of the router", default=port, type=int)
    found = _scan(folders)
    shelved, left = proposal.choose(found, {name: name for name in backends}, [gpu.total for gpu in gpus])
    if asking and shelved:
        for model in shelved:
            typer.echo(f"  {model.name}: {proposal.describe(model.about)}, {model.remark}")
        if not typer.confirm(f"Serve {output.plural(len(shelved), 'model')} by these names?", default=True):
            shelved = [model for model in shelved if typer.confirm(f"  Serve {model.name}?", default=True)]
    server = {"host": host, "port": port, "watch": True}
    text = proposal.first(server, backends, shelved, left, _machine(gpus, folders))
    try:
        _judge(text, place)
        kept = config_edit.create(place, text, replace=force)
        warnings = config_files.load(place, os.environ).warnings
    except ConfigError as error:
        raise mistakes(error) from None
    except config_edit.EditError as error:
        raise CommandError(str(error)) from None
    if json:
        told = {"path": str(place), "kept": str(kept) if kept else None, "backends": list(backends)}
        output.print_json(
            {**told, "models": [model.name for model in shelved], "left": [about.path for about, _ in left]}
        )
        return
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)
    served = f"{output.plural(len(shelved), 'model')} on {output.plural(len(backends), 'engine')}"
    typer.echo(f"{place} holds the configuration: {served}. Start the router with `llm-router serve --config {place}`.")


def _is_somebody_there() -> bool:
    return sys.stdin.isatty()


def _usual_place() -> Path:
    """Where ``serve`` looks: the system's folder for root, else the account's own."""
    if os.geteuid() == 0:
        return Path("/etc/llm-router/config.yml")
    home = os.environ.get("XDG_CONFIG_HOME") or str(Path("~/.config").expanduser())
    return Path(home) / "llm-router" / "config.yml"


def _backends(found: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
    """The engines found, and the llama.cpp that the demo brings along where there is no other."""
    from llm_router.demo.shelf import COMMAND

    if "llamacpp" not in found and _has_wheel():
        found = {**found, "llamacpp": {"command": COMMAND}}
    return found


def _has_wheel() -> bool:
    from importlib.util import find_spec

    return find_spec("xllamacpp") is not None


def _scan(folders: list[Path]) -> "list[Recognised]":
    from llm_router.host.scan import scan

    found: dict[str, Recognised] = {}
    for folder in folders:
        if not folder.is_dir():
            raise CommandError(f"cannot look for models in {folder}: there is no such folder", Exit.usage)
        with output.console(stderr=True).status(f"looking through {folder}"):
            found.update({about.path: about for about in scan(folder)})
    return list(found.values())


def _judge(text: str, place: Path) -> None:
    """Nothing is written that would not be read. Raises ``ConfigError``."""
    from llm_router.config.load import parse

    parse(text, str(place), os.environ, lambda path: Path(path).read_text(encoding="utf-8"), folder=str(place.parent))


def _machine(gpus: "tuple[Gpu, ...]", folders: list[Path]) -> list[str]:
    cards = ", ".join(f"{gpu.name} ({output.size(gpu.total)})" for gpu in gpus) or "none"
    return [f"GPUs: {cards}.", f"Models were looked for in: {', '.join(map(str, folders)) or 'no folder'}."]


def _tell_machine(gpus: "tuple[Gpu, ...]", backends: dict[str, dict[str, Any]]) -> None:
    typer.echo(_machine(gpus, [])[0])
    for name, keys in backends.items():
        place = keys.get("dir") or " ".join(keys["command"])
        typer.echo(f"Engine: {name} at {place}")
    if not backends:
        typer.echo("No engine was found; install one, or write its place under `backends` later.")


def _ask_folders(folders: list[Path]) -> list[Path]:
    shown = " ".join(map(str, folders))
    answer = typer.prompt("Folders with models, separated by blanks", default=shown, show_default=bool(shown))
    return [Path(word).expanduser() for word in str(answer).split()]
