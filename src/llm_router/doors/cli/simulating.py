"""``simulate``: a day of requests on virtual time, under our policy and under two plain ones.

This file knows how a trace is asked for and how reports are shown. What is simulated is ``sim``'s business.
"""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm_router.doors.cli import options, output
from llm_router.doors.cli.exits import CommandError, Exit

if TYPE_CHECKING:
    from llm_router.sim.report import Report
    from llm_router.sim.trace import Trace


class Case(StrEnum):
    """The cases that come with the router."""

    shelf_of_three = "shelf-of-three"


class PolicyName(StrEnum):
    """Who decides."""

    ours = "ours"
    fifo = "fifo"
    lru = "lru"


_MADE = "Of a made trace"


def simulate(
    trace: Annotated[
        Path | None, typer.Option(help="Simulate this trace (JSON).", metavar="FILE", show_default=False)
    ] = None,
    case: Annotated[
        Case | None,
        typer.Option(help="Simulate a case that comes with the router.", metavar="CASE", show_default=False),
    ] = None,
    parked: Annotated[
        bool | None,
        typer.Option(
            "--parked/--no-parked",
            help="Of a case: with engines that sleep, or without; both if not said.",
            show_default=False,
        ),
    ] = None,
    policy: Annotated[
        list[PolicyName] | None,
        typer.Option(help="Only this policy; may be repeated.", metavar="NAME", show_default=False),
    ] = None,
    models: Annotated[int, typer.Option(help=f"{_MADE}: how many models.", metavar="COUNT", min=1, max=500)] = 3,
    requests: Annotated[
        int, typer.Option(help=f"{_MADE}: how many requests.", metavar="COUNT", min=1, max=200_000)
    ] = 600,
    span: Annotated[str, typer.Option(help=f"{_MADE}: in how long a time they arrive.", metavar="DURATION")] = "10m",
    burst: Annotated[int, typer.Option(help=f"{_MADE}: how many arrive together.", metavar="COUNT", min=1)] = 10,
    devices: Annotated[int, typer.Option(help=f"{_MADE}: how many devices.", metavar="COUNT", min=1, max=64)] = 1,
    memory: Annotated[str, typer.Option(help=f"{_MADE}: memory of a device.", metavar="SIZE")] = "16GiB",
    size: Annotated[
        str | None,
        typer.Option(
            help=f"{_MADE}: what a model takes; alone on the machine if not said.", metavar="SIZE", show_default=False
        ),
    ] = None,
    load: Annotated[
        str, typer.Option(help=f"{_MADE}: how long a load takes.", metavar="DURATION[-DURATION]")
    ] = "30s-60s",
    wake: Annotated[
        str | None,
        typer.Option(
            help=f"{_MADE}: how long a sleeping engine wakes; engines do not sleep if not said.",
            metavar="DURATION[-DURATION]",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Another number, another day.", metavar="NUMBER")] = 0,
    write: Annotated[
        Path | None, typer.Option(help="Write the trace to this file instead.", metavar="FILE", show_default=False)
    ] = None,
    json: options.Json = False,
) -> None:
    """Run requests through the scheduler on virtual time: waits, switches, utilisation, compared with plain policies."""
    from llm_router.sim import trace as traces

    if trace is not None and case is not None:
        raise CommandError("cannot simulate a trace and a case at once: give one of --trace and --case", Exit.usage)
    if trace is not None:
        days = [_read(trace)]
    elif case is not None:
        days = [
            traces.shelf_of_three(parked=asleep, seed=seed)
            for asleep in ([False, True] if parked is None else [parked])
        ]
    else:
        days = [
            traces.generate(
                models=models,
                requests=requests,
                seconds=_seconds(span, "--span"),
                devices=devices,
                memory=_bytes(memory, "--memory"),
                size=None if size is None else _bytes(size, "--size"),
                load_s=_range(load, "--load"),
                wake_s=None if wake is None else _range(wake, "--wake"),
                burst=burst,
                seed=seed,
            )
        ]
    if write is not None:
        _write(days, write)
        return
    names = [name.value for name in policy or PolicyName]
    _show(days, names, as_json=json)


def _show(days: "list[Trace]", policies: list[str], *, as_json: bool) -> None:
    from llm_router.sim.report import simulate

    told: list[dict[str, Any]] = []
    for day in days:
        reports = []
        with output.console(stderr=True).status("") as line:
            for name in policies:
                line.update(f"simulating {name}")
                reports.append(simulate(day, name))
        told += [report.to_dict() for report in reports]
        if not as_json:
            _table(day, reports)
    if as_json:
        output.print_json({"reports": told})


def _table(day: "Trace", reports: "list[Report]") -> None:
    """Waits and times in whole seconds: they are read beside each other."""
    table = output.new_table("policy", "refused", "p50", "p95", "p99", "max", "switches", "wakes", "busy", "time")
    for report in reports:
        seconds = (report.wait_p50, report.wait_p95, report.wait_p99, report.wait_max)
        table.add_row(
            report.policy,
            str(report.refused),
            *(f"{value:.0f}" for value in seconds),
            str(report.switches),
            str(report.wakes),
            f"{report.utilisation:.0%}",
            f"{report.seconds:.0f}",
        )
    for column in table.columns[1:]:
        column.justify = "right"
    out = output.console()
    facts = [day.name, f"{output.plural(day.devices, 'device')} of {output.size(day.memory)}"]
    if "request" not in day.name:
        facts.insert(1, output.plural(len(day.requests), "request"))
    out.print("; ".join(facts) + " (in seconds)", markup=False)
    out.print(table)


def _read(path: Path) -> "Trace":
    from llm_router.sim.trace import TraceError, read

    try:
        return read(path.read_bytes())
    except OSError as error:
        raise CommandError(f"cannot read the trace {path}: {error.strerror}") from None
    except TraceError as error:
        raise CommandError(f"{error} ({path})") from None


def _write(days: "list[Trace]", path: Path) -> None:
    from llm_router.sim.trace import write

    if len(days) > 1:
        raise CommandError("cannot write two traces to one file: choose one by --parked or --no-parked", Exit.usage)
    try:
        path.write_text(write(days[0]), encoding="utf-8")
    except OSError as error:
        raise CommandError(f"cannot write the trace {path}: {error.strerror}") from None
    typer.echo(f"{path} holds the trace; simulate it with --trace {path}.")


def _seconds(text: str, option: str) -> float:
    from llm_router.config import units

    try:
        return units.duration(text)
    except ValueError as error:
        raise CommandError(f"cannot use {option}: {error}", Exit.usage) from None


def _range(text: str, option: str) -> tuple[float, float]:
    """``30s-60s``, or ``30s`` for always the same."""
    low, _, high = text.partition("-")
    limits = _seconds(low, option), _seconds(high or low, option)
    if limits[0] > limits[1]:
        raise CommandError(f"cannot use {option} {text}: write the shorter time first", Exit.usage)
    return limits


def _bytes(text: str, option: str) -> int:
    from llm_router.config import units

    try:
        return units.size(text)
    except ValueError as error:
        raise CommandError(f"cannot use {option}: {error}", Exit.usage) from None
