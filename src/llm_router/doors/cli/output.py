"""Tables, bars and JSON: how the commands look.

This file knows the terminal (through rich) and the words of the router's status. It asks the router nothing.
Rich is imported where something is drawn, so that ``serve`` never carries it.
"""

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Json = dict[str, Any]


def print_json(value: object) -> None:
    """For programs: indented, with all characters as they are."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def console(*, stderr: bool = False) -> "Console":
    """Where people read. Made anew each time, so that it is bound to the stream of the moment."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def seconds(value: object) -> str:
    """A time span in words, empty if it is not known."""
    if not isinstance(value, int | float):
        return ""
    whole = round(value)
    if whole < 100:
        return f"{value:.1f} s" if value < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def size(value: object) -> str:
    """Bytes in words, empty if they are not known."""
    if not isinstance(value, int | float):
        return ""
    return f"{value / 1024**3:.1f} GiB" if value >= 1024**3 else f"{value / 1024**2:.0f} MiB"


def show_models(models: Sequence[Json]) -> None:
    """The models of ``/api/status`` as a table."""
    if not models:
        typer.echo("No models are configured.")
        return
    table = new_table("model", "state", "engine", "waiting", "running", "context", "")
    for model in models:
        loaded = bool(model.get("loaded"))
        table.add_row(
            _names(model),
            f"[green]{printable(model.get('state'))}[/]" if loaded else printable(model.get("state")),
            printable(model.get("engine")),
            _count(model.get("waiting")),
            _count(model.get("running")),
            printable(model.get("context")),
            _marks(model),
        )
    console().print(table)


def show_status(status: Json) -> None:
    """The whole of ``/api/status`` for people."""
    router = _section(status, "router")
    up = seconds(router.get("uptime_s"))
    out = console()
    out.print(f"[bold]llm-router {printable(router.get('version'))}[/] at {printable(router.get('address'))}, up {up}")
    show_models(rows(status, "models"))
    for instance in rows(status, "instances"):
        out.print("  " + instance_line(instance))
    for waiting in rows(status, "queue"):
        out.print("  " + _queue_line(waiting))
    _show_devices(out, rows(status, "devices"))
    for failure in rows(status, "failures"):
        out.print(f"[red]failed[/] {printable(failure.get('model'))}: {printable(failure.get('cause'))}")


def show_model(model: Json, instances: Iterable[Json], failure: Json | None) -> None:
    """All that is known of one model."""
    out = console()
    out.print(f"[bold]{printable(model.get('name'))}[/]")
    facts = {
        "state": printable(model.get("state")),
        "engine": printable(model.get("engine")),
        "aliases": ", ".join(map(printable, model.get("aliases") or ())),
        "context": printable(model.get("context")),
        "marks": _marks(model),
        "last load": seconds(model.get("last_load_s")),
        "waiting": _count(model.get("waiting")),
        "running": _count(model.get("running")),
    }
    for name, value in facts.items():
        if value:
            out.print(f"  {name:<10} {value}")
    for instance in instances:
        out.print("  " + instance_line(instance))
    if failure is not None:
        out.print(f"  [red]failed[/]     {printable(failure.get('cause'))}")
        for line in failure.get("tail") or ():
            out.print(f"    [dim]{printable(line)}[/]")


def instance_line(instance: Json) -> str:
    """One instance in a line."""
    facts = [printable(instance.get("state"))]
    if instance.get("phase") and instance.get("state") not in {"ready", "gone"}:
        facts.append(progress_words(instance))
    if instance.get("leases"):
        facts.append(plural(int(instance["leases"]), "answer") + " running")
    if instance.get("port"):
        facts.append(f"port {instance['port']}")
    if instance.get("pid"):
        facts.append(f"pid {instance['pid']}")
    if instance.get("devices"):
        facts.append("on " + ", ".join(map(printable, instance["devices"])))
    return f"{printable(instance.get('id'))}: " + ", ".join(facts)


def progress_words(instance: Json) -> str:
    """Phase, percent and the time left of a load, as far as they are known."""
    words = printable(instance.get("phase") or "starting")
    if isinstance(instance.get("percent"), int | float):
        words += f" {instance['percent']:.0f} %"
    left = seconds(instance.get("left_s"))
    return f"{words}, about {left} left" if left else words


def _queue_line(waiting: Json) -> str:
    words = f"{plural(int(waiting.get('waiting') or 0), 'request')} waiting for {printable(waiting.get('model'))}"
    oldest = seconds(waiting.get("oldest_s"))
    return f"{words}, the oldest since {oldest}" if oldest else words


def _show_devices(out: "Console", devices: Sequence[Json]) -> None:
    if not devices:
        return
    table = new_table("device", "memory", "used", "free")
    for device in devices:
        name = printable(device.get("name") or device.get("id"))
        table.add_row(name, size(device.get("total")), size(device.get("used")), size(device.get("free")))
    out.print(table)


def new_table(*titles: str) -> "Table":
    """An empty table in the house's manner."""
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(box=SIMPLE, pad_edge=False, collapse_padding=True, header_style="bold")
    for number, title in enumerate(titles):
        table.add_column(title, no_wrap=number == 0, min_width=len(title))
    return table


def _names(model: Json) -> str:
    aliases = ", ".join(map(printable, model.get("aliases") or ()))
    return f"{printable(model.get('name'))} [dim]({aliases})[/]" if aliases else printable(model.get("name"))


def _marks(model: Json) -> str:
    return ", ".join(word for word, key in (("default", "default"), ("pinned", "pinned")) if model.get(key))


def _count(value: object) -> str:
    return str(value) if isinstance(value, int) and value else ""


def printable(value: object) -> str:
    """Any value as text in which rich finds no markup and the terminal no control codes."""
    from rich.markup import escape

    text = "" if value is None else str(value)
    return escape("".join(letter if letter.isprintable() else " " for letter in text))


def _section(status: Json, name: str) -> Json:
    found = status.get(name)
    return found if isinstance(found, dict) else {}


def rows(status: Json, name: str) -> list[Json]:
    """The entries of a list in the status; what is no entry is left out."""
    found = status.get(name)
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []
