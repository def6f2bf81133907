"""Commands that speak to a running router: status, models, load, unload, switch, reload, chat."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm_router.doors.cli import options, output
from llm_router.doors.cli.app import group
from llm_router.doors.cli.exits import CommandError, Exit

if TYPE_CHECKING:
    from llm_router.config.load import Config
    from llm_router.doors.cli.client import Router

models_commands = group("The models behind the router.", invoke_without_command=True)


@contextmanager
def router(url: str | None, key: str | None, config: Path | None) -> "Iterator[Router]":
    """The running router, closed afterwards."""
    from llm_router.doors.cli.client import Router
    from llm_router.doors.cli.place import router_url

    with Router(router_url(url, config), key) as found:
        yield found


def status(
    url: options.Url = None, key: options.Key = None, config: options.Config = None, json: options.Json = False
) -> None:
    """Show the router, its models, what runs, what waits and what failed."""
    with router(url, key, config) as found:
        told = found.status()
    output.print_json(told) if json else output.show_status(told)


@models_commands.callback()
def models_default(
    context: typer.Context,
    url: options.Url = None,
    key: options.Key = None,
    config: options.Config = None,
    json: options.Json = False,
) -> None:
    """The models behind the router; without a further word, a list of them."""
    if context.invoked_subcommand is None:
        models_list(url, key, config, json)
    elif url or config or json:
        raise CommandError("cannot use options before the subcommand: write them at the end", Exit.usage)


@models_commands.command("list")
def models_list(
    url: options.Url = None, key: options.Key = None, config: options.Config = None, json: options.Json = False
) -> None:
    """List the models and their states; those of the configuration, if no router answers."""
    try:
        with router(url, key, config) as found:
            told = found.status()
    except CommandError as trouble:
        here = _configured(config) if trouble.code is Exit.unreachable and url is None else None
        if here is None:
            raise
        typer.echo("No router answers; these are the models of the configuration.", err=True)
        told = {"models": [_not_running(here, name) for name in here.models]}
    models = output.rows(told, "models")
    output.print_json(models) if json else output.show_models(models)


@models_commands.command("show")
def models_show(
    model: options.Model,
    url: options.Url = None,
    key: options.Key = None,
    config: options.Config = None,
    json: options.Json = False,
) -> None:
    """Show all that is known of one model: state, last failure, configuration, files, memory, and what would be run.

    The first two come from the running router, the others from the configuration and the files on this machine.
    """
    from llm_router.doors.cli import portraying
    from llm_router.doors.cli.loading import find

    here = _configured(config)
    told = _status(url, key, config, needed=here is None)
    entry = find(told, model)
    name = str(entry.get("name")) if entry is not None else (here.resolve(model) if here is not None else None)
    if name is None:
        known = [str(row.get("name")) for row in output.rows(told, "models")]
        raise _unknown(model, known or list(here.models if here is not None else ()))
    entry = entry or {"name": name, "state": "not known: no router answers"}
    instances = [row for row in output.rows(told, "instances") if row.get("model") == name]
    failures = [row for row in output.rows(told, "failures") if row.get("model") == name]
    failure = failures[0] if failures else None
    configured = portraying.configured(here, name) if here is not None and name in here.models else None
    if json:
        output.print_json({**entry, "instances": instances, "failure": failure, "configured": configured})
        return
    output.show_model(entry, instances, failure)
    if configured is not None:
        portraying.show(configured)


def _not_running(config: "Config", name: str) -> dict[str, Any]:
    """A model's row in the list where no router tells its state."""
    entry = config.models[name]
    row = {"name": name, "aliases": list(entry.aliases), "engine": config.engine_of(name), "context": entry.context}
    return {**row, "default": entry.default, "pinned": entry.pin, "state": None}


def _configured(config: Path | None) -> "Config | None":
    """The configuration on this machine, if there is one that can be used."""
    from llm_router.config.problems import ConfigError
    from llm_router.host.config_files import find, load

    try:
        return load(find(config, os.environ), os.environ)
    except ConfigError:
        return None


def _status(url: str | None, key: str | None, config: Path | None, *, needed: bool) -> dict[str, Any]:
    """The running router's status; nothing if none answers and that is no failure."""
    try:
        with router(url, key, config) as found:
            return found.status()
    except CommandError as trouble:
        if needed or trouble.code is not Exit.unreachable:
            raise
        return {}


def load(
    model: options.Model,
    url: options.Url = None,
    key: options.Key = None,
    config: options.Config = None,
    wait: Annotated[bool, typer.Option(help="Wait until it is loaded.")] = True,
    timeout: Annotated[
        float | None, typer.Option(help="Wait at most so many seconds.", metavar="SECONDS", min=0, show_default=False)
    ] = None,
    json: options.Json = False,
) -> None:
    """Load a model, and show how far it is."""
    from llm_router.doors.cli.loading import bar, follow

    with router(url, key, config) as found:
        found.load(model)
        if not wait:
            _report(json, {"model": model, "loaded": False}, f"{model} is being loaded.")
            return
        with bar(model, quiet=json) as draw:
            took = follow(found, model, draw, timeout_s=timeout)
    _report(
        json,
        {"model": model, "loaded": True, "seconds": round(took, 1)},
        f"{model} is loaded ({output.seconds(took)}).",
    )


def unload(
    model: options.Model,
    url: options.Url = None,
    key: options.Key = None,
    config: options.Config = None,
    json: options.Json = False,
) -> None:
    """Take a model out of memory, once its running answers have ended."""
    with router(url, key, config) as found:
        found.unload(model)
    _report(json, {"model": model, "success": True}, f"{model} leaves as soon as its running answers have ended.")


def switch(
    model: options.Model,
    url: options.Url = None,
    key: options.Key = None,
    config: options.Config = None,
    timeout: Annotated[
        float | None, typer.Option(help="Wait at most so many seconds.", metavar="SECONDS", min=0, show_default=False)
    ] = None,
    json: options.Json = False,
) -> None:
    """Make this the model that is loaded: load it now and wait for it. Others leave as far as it needs their room."""
    load(model, url, key, config, wait=True, timeout=timeout, json=json)


def reload(
    url: options.Url = None, key: options.Key = None, config: options.Config = None, json: options.Json = False
) -> None:
    """Have the router read its configuration anew; what did not change keeps running.

    A broken configuration changes nothing: its mistakes are told, with exit code 6.
    """
    with router(url, key, config) as found:
        told = found.reload()
    if json:
        output.print_json(told)
        return
    for warning in told.get("warnings") or ():
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"reloaded: {told.get('summary') or 'done'}.")


def chat(
    model: options.Model,
    prompt: Annotated[
        str | None, typer.Argument(help="What to say; otherwise standard input, or a conversation.", show_default=False)
    ] = None,
    url: options.Url = None,
    key: options.Key = None,
    config: options.Config = None,
    system: Annotated[str | None, typer.Option(help="System message.", metavar="TEXT", show_default=False)] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="Longest answer in tokens.", metavar="COUNT", min=1, show_default=False)
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Sampling temperature.", metavar="NUMBER", min=0, show_default=False)
    ] = None,
    json: options.Json = False,
) -> None:
    """Talk to a model; it is loaded first if need be."""
    from llm_router.doors.cli.conversation import Conversation

    fields = {"max_tokens": max_tokens, "temperature": temperature}
    body = {"model": model} | {name: value for name, value in fields.items() if value is not None}
    words = prompt if prompt is not None or sys.stdin.isatty() else sys.stdin.read()
    if words is not None and not words.strip():
        raise CommandError("cannot ask nothing: give a prompt, or type one on standard input", Exit.usage)
    if words is None and json:
        raise CommandError("cannot hold a conversation in JSON: give a prompt", Exit.usage)
    with router(url, key, config) as found:
        conversation = Conversation(found, body, system)
        if words is None:
            conversation.hold()
            return
        reply = conversation.say(words, quiet=json)
    if json:
        usage, statuses = reply.usage, list(reply.statuses)
        told = {
            "model": model,
            "content": reply.text,
            "finish_reason": reply.finish,
            "usage": usage,
            "status": statuses,
        }
        output.print_json(told)


def _report(json: bool, told: dict[str, object], words: str) -> None:
    output.print_json(told) if json else typer.echo(words)


def _unknown(model: str, names: list[str]) -> CommandError:
    from llm_router.config.problems import did_you_mean

    hint = did_you_mean(model, names)
    return CommandError(f"cannot find the model {model!r}" + (f". {hint}" if hint else ""), Exit.unknown)
