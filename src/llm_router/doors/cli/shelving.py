"""Commands that look at models' files and edit the configuration: ``models add``, ``remove``, ``scan``.

They need no running router. What is written is judged before it is written, and a copy of what was there is kept.
"""

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm_router.doors.cli import options, output
from llm_router.doors.cli.configuring import mistakes
from llm_router.doors.cli.exits import CommandError, Exit
from llm_router.doors.cli.steering import router

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llm_router.config.load import Config
    from llm_router.config.proposal import Shelved
    from llm_router.formats.recognise import Recognised

Reload = Annotated[bool, typer.Option("--reload", help="Have the running router read it at once.")]
Name = Annotated[str, typer.Argument(help="Name of the model for clients.", metavar="NAME")]


def add(
    name: Name,
    path: Annotated[
        str | None, typer.Option(help="The model's file or folder.", metavar="PATH", show_default=False)
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            help="The backend that serves it; by default the best for its format.", metavar="NAME", show_default=False
        ),
    ] = None,
    command: Annotated[
        str | None, typer.Option(help="Its own command, with {port}.", metavar="WORDS", show_default=False)
    ] = None,
    alias: Annotated[list[str] | None, typer.Option(help="Another name; may be repeated.", metavar="NAME")] = None,
    context: Annotated[
        int | None, typer.Option(help="Context length in tokens.", metavar="TOKENS", min=1, show_default=False)
    ] = None,
    gpus: Annotated[
        str | None, typer.Option(help="A number of GPUs, indices as 0,1, or all.", metavar="GPUS", show_default=False)
    ] = None,
    idle: Annotated[
        str | None, typer.Option(help="Unload it after so long without a request.", metavar="TIME", show_default=False)
    ] = None,
    pin: Annotated[bool, typer.Option("--pin", help="Never unload it to make room.")] = False,
    default: Annotated[bool, typer.Option("--default", help="Serve requests that name no model.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Add it even if its files say that it cannot be served.")
    ] = False,
    reload: Reload = False,
    config: options.Config = None,
    json: options.Json = False,
) -> None:
    """Add a model to the configuration; comments and everything else in the file stay."""
    from llm_router.host import config_edit

    with _editing():
        place, before = _configuration(config)
        entry: dict[str, Any] = {
            "backend": backend or (None if command else _backend_for(path, before, force=force)),
            "path": _written(path),
            "command": command,
            "aliases": tuple(alias or ()),
            "context": context,
            "gpus": _gpus(gpus),
            "idle": idle,
            "pin": pin,
            "default": default,
        }
        entry = {key: value for key, value in entry.items() if value not in (None, (), False)}
        file, after = config_edit.add_models(place, {name: entry}, os.environ)
    _tell_portrait(after, name, force=force)
    _report(
        json, {"model": name, "file": str(file), "entry": entry}, f"{name} stands in {file}.", place if reload else None
    )


def remove(name: Name, reload: Reload = False, config: options.Config = None, json: options.Json = False) -> None:
    """Take a model out of the configuration; its files stay."""
    from llm_router.host import config_edit

    with _editing():
        place, before = _configuration(config)
        if name not in before.models:
            raise _unknown(name, before)
        file, _ = config_edit.remove_models(place, [name], os.environ)
    _report(json, {"model": name, "file": str(file)}, f"{name} is no longer in {file}.", place if reload else None)


def scan(
    folder: Annotated[Path, typer.Argument(help="Folder to look through.", metavar="DIR")],
    write: Annotated[bool, typer.Option("--write", help="Add what can be served to the configuration.")] = False,
    reload: Reload = False,
    config: options.Config = None,
    json: options.Json = False,
) -> None:
    """List the models below a folder: what they are, which engine would serve them, what they would take."""
    from llm_router.config import proposal
    from llm_router.host import config_edit, installations
    from llm_router.host import scan as scanning
    from llm_router.host.machine.gpus import Gauge

    if not folder.is_dir():
        raise CommandError(f"cannot scan {folder}: there is no such folder", Exit.usage)
    with output.console(stderr=True).status(f"looking through {folder}"):
        found = scanning.scan(folder)
    memory = [gpu.total for gpu in Gauge().gpus]
    if not write:
        here = {each.engine: each.engine for each in installations.find_all(os.environ)}
        shelved, left = proposal.choose(found, _with_the_rest(here), memory)
        _show(shelved, left, json=json)
        return
    with _editing():
        place, before = _configuration(config)
        known = {_path_of(before, name) for name in before.models}
        new = [about for about in found if about.path not in known]
        names = [name for model, entry in before.models.items() for name in (model, *entry.aliases)]
        shelved, left = proposal.choose(new, _engines_of(before), memory, names)
        file = place
        if shelved:
            file, _ = config_edit.add_models(place, {model.name: model.entry() for model in shelved}, os.environ)
    told = {"file": str(file), "added": [model.name for model in shelved], "known": len(found) - len(new)}
    if not json and (shelved or left):
        _show(shelved, left, json=False)
    words = f"{output.plural(len(shelved), 'model')} added to {file}, {len(found) - len(new)} were there already."
    _report(json, told, words, place if reload and shelved else None)


def _with_the_rest(here: dict[str, str]) -> dict[str, str]:
    """For a list alone: engines that are not here are named too, after those that are."""
    from llm_router.formats.serving import ENGINES

    return here | {engine: engine for engine in ENGINES if engine not in here}


def _engines_of(config: "Config") -> dict[str, str]:
    """Engine -> backend, of those that are configured or installed; where nothing is, every one may come."""
    from llm_router.engines import registry
    from llm_router.host import installations

    found: dict[str, str] = {}
    for name, backend in config.backends.items():
        word = backend.engine or name
        found.setdefault(registry.canonical(word) or word, name)
    for each in installations.find_all(os.environ):
        found.setdefault(each.engine, each.engine)
    return found or _with_the_rest({})


def _show(shelved: "list[Shelved]", left: "list[tuple[Recognised, str]]", *, json: bool) -> None:
    from llm_router.config.proposal import describe

    if json:
        output.print_json(
            {
                "models": [
                    {
                        "name": model.name,
                        "path": model.about.path,
                        "engine": model.backend,
                        "engines": list(model.about.engines),
                        "format": model.about.format.value,
                        "kind": model.about.kind.value,
                        "size": model.about.size,
                        "context": model.about.context,
                        "gpus": model.gpus,
                        "estimate": model.remark,
                    }
                    for model in shelved
                ],
                "others": [{"path": about.path, "reason": why} for about, why in left],
            }
        )
        return
    out = output.console()
    if shelved:
        table = output.new_table("model", "engine", "is", "takes")
        for model in shelved:
            table.add_row(*map(output.printable, (model.name, model.backend, describe(model.about), model.remark)))
        out.print(table)
    for about, why in left:
        out.print(output.printable(f"{about.path}: {why}"), style="dim")
    if not shelved and not left:
        typer.echo("No models were found.")


def _backend_for(path: str | None, config: "Config", *, force: bool) -> str | None:
    """The backend for the file's format. Without a file here, the file of the configuration may know."""
    from llm_router.host.scan import recognise_path

    if path is None or not Path(path).expanduser().exists():
        return None
    about = recognise_path(path)
    engines = _engines_of(config)
    choices = [engines[engine] for engine in about.engines if engine in engines]
    if choices:
        return choices[0]
    if about.engine is None and not force:
        raise CommandError(f"{about.reason} ({path}); --force adds it all the same, with --backend")
    return about.engine


def _tell_portrait(config: "Config", name: str, *, force: bool) -> None:
    """Warn of what can be seen now already, before the first start fails."""
    from llm_router.host.portrait import portray

    problem = portray(config, name, 0).problem
    if problem and not force:
        typer.echo(f"warning: {problem}", err=True)


def _written(path: str | None) -> str | None:
    """A file that is there is written with its whole path; anything else as it was typed."""
    if path is None or not Path(path).expanduser().exists():
        return path
    return str(Path(path).expanduser().absolute())


def _gpus(text: str | None) -> object:
    if text is None or text == "all":
        return text
    parts = [int(part) if part.isdigit() else part for part in text.split(",")]
    return parts[0] if len(parts) == 1 and isinstance(parts[0], int) else parts


def _path_of(config: "Config", name: str) -> str:
    from llm_router.config import shelf

    job = shelf.job(config, name, port=0, directory="")
    return str(Path(job.model_dir, job.path)) if job.path else ""


def _configuration(config: Path | None) -> "tuple[Path, Config]":
    from llm_router.host.config_files import find, load

    place = find(config, os.environ)
    return place, load(place, os.environ)


@contextmanager
def _editing() -> "Iterator[None]":
    """What can go wrong with files, as failures of a command."""
    from llm_router.config.problems import ConfigError
    from llm_router.host.config_edit import EditError

    try:
        yield
    except ConfigError as error:
        raise mistakes(error) from None
    except EditError as error:
        raise CommandError(str(error)) from None


def _report(json: bool, told: dict[str, object], words: str, reload_at: Path | None) -> None:
    if reload_at is not None:
        with router(None, None, reload_at) as found:
            answer = found.reload()
        told, words = {**told, "reload": answer}, f"{words} Reloaded: {answer.get('summary')}."
    else:
        words += " A running router reads it with `llm-router reload`."
    output.print_json(told) if json else typer.echo(words)


def _unknown(name: str, config: "Config") -> CommandError:
    from llm_router.config.problems import did_you_mean

    hint = did_you_mean(name, config.models)
    return CommandError(f"cannot find the model {name!r}" + (f". {hint}" if hint else ""), Exit.unknown)
