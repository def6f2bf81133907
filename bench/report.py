"""The figures as tables for people. It computes nothing but ratios, and starts nothing."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from bench.cases import Case

Figures = Mapping[str, Mapping[str, Mapping[str, float]]]
_NONE: Final = "-"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, the first column to the left, the others to the right."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float | None, digits: int = 0) -> str:
    """A figure with thousands apart, or a dash."""
    return _NONE if value is None else f"{value:,.{digits}f}"


def markdown(result: Mapping[str, Any], cases: Sequence[Case]) -> str:
    """The whole report."""
    machine = result["machine"]
    parts = [
        (
            f"Machine: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']},"
            f" Python {machine['python']}. {result['rounds']} round(s), medians. Load average before: {result['load_average']}."
        )
    ]
    if "road" in result:
        parts += [cpu(result["road"], cases), waits(result["road"], cases), memory(result["road"], result["idle"])]
    if "lag" in result:
        parts.append(lag(result["lag"]))
    if "decisions" in result:
        parts.append(decisions(result["decisions"]))
    return "\n\n".join(parts) + "\n"


def cpu(road: Figures, cases: Sequence[Case]) -> str:
    """CPU time by case, and how it compares with the router's."""
    names = [name for name in road if any("cpu" in row for row in road[name].values())]
    rows = []
    for case in cases:
        values = [road[name].get(case.name, {}).get("cpu") for name in names]
        rows.append([case.title, case.per, *(number(value, 1) for value in values)])
    return "### CPU time, microseconds of user and system\n\n" + table(["Case", "Per", *names], rows)


def waits(road: Figures, cases: Sequence[Case]) -> str:
    """What is added to direct access, in microseconds, and what failed."""
    direct = road.get("direct", {})
    rows = []
    for case in cases:
        for name in road:
            row = road[name].get(case.name)
            if row is None or name == "direct":
                continue
            kind = "event" if case.per == "event" else "first" if case.name == "first" else "whole"
            added = [_added(row, direct.get(case.name, {}), f"{kind}_{point}") for point in ("p50", "p99")]
            what = {"event": "an event's arrival", "first": "the first event", "whole": "the whole answer"}[kind]
            rows.append(
                [
                    case.title,
                    name,
                    what,
                    *(number(value) for value in added),
                    number(row.get("per_second")),
                    number(row["failed"]),
                ]
            )
    head = ["Case", "Target", "Added to", "p50", "p99", "per second", "failed"]
    return "### Time added to direct access, microseconds\n\n" + table(head, rows)


def _added(row: Mapping[str, float], direct: Mapping[str, float], key: str) -> float | None:
    return row[key] - direct[key] if key in row and key in direct else None


def memory(road: Figures, idle: Mapping[str, Mapping[str, float]]) -> str:
    """Resident memory, in MB, and what a still router takes."""
    rows = []
    for name, values in idle.items():
        streams, large = road[name].get("stream-500", {}), road[name].get("large", {})
        cells = [number(values["rss_mb"]), number(values["cpu_percent"], 2) + " %"]
        cells += [number(streams.get("rss_mb")), number(large.get("rss_more_mb"), 1)]
        rows.append([name, *cells])
    head = ["Target", "idle", "CPU idle", "500 streams", "more for 300 MB in one stream"]
    return "### Memory, MB resident\n\n" + table(head, rows)


def lag(values: Mapping[str, Mapping[str, float]]) -> str:
    """From able to granted."""
    titles = {
        "deaf": "stand-in, its port opens late",
        "busy": "stand-in, says 503 before",
        "llama.cpp": "llama.cpp of the demo",
    }
    rows = [
        [titles[name], number(row["p50"]), number(row["max"]), number(row["count"])] for name, row in values.items()
    ]
    return "### From able to answer to granted, milliseconds\n\n" + table(["Engine", "p50", "largest", "loads"], rows)


def decisions(values: Mapping[str, Mapping[str, float]]) -> str:
    """The scheduler's time for one event."""
    rows = [
        [waiting, number(row["p50_us"], 1), number(row["p99_us"], 1), number(row["per_second"])]
        for waiting, row in values.items()
    ]
    head = ["Waiting", "p50 us", "p99 us", "decisions per second"]
    return "### Decisions of the scheduler\n\n" + table(head, rows)
