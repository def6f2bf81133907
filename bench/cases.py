"""What is asked of each target, and how one run of it becomes figures.

This file knows the cases and their arithmetic. It starts nothing and reads no clock.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Final

from bench.tools import Load

MB: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Case:
    """One load. ``per`` is what its CPU time is divided by: whole answers or events of streams."""

    name: str
    title: str
    load: Load
    per: str = "request"
    #: The case that says what a request costs, where events are counted.
    base: str | None = None
    #: So many requests or seconds less in a quick run.
    quick: float = 0.25


CASES: Final = (
    Case("json-1", "1 KB, 1 connection", Load(1, seconds=2)),
    Case("json-50", "1 KB, 50 connections", Load(50, seconds=3)),
    Case("json-500", "1 KB, 500 connections", Load(500, seconds=3)),
    Case("first", "first event, 1 connection", Load(1, requests=300, events=2, size=250)),
    Case("stream-1", "1 stream, every 2 ms", Load(1, events=1500, pause_us=2_000, size=250), "event", "json-1"),
    Case("stream-50", "50 streams, every 20 ms", Load(50, events=200, pause_us=20_000, size=250), "event", "json-50"),
    Case(
        "stream-500", "500 streams, every 50 ms", Load(500, events=100, pause_us=50_000, size=250), "event", "json-50"
    ),
    Case("large", "300 MB in one stream", Load(1, events=75_000, size=4_000, rest_ms=500), "event", quick=1.0),
    # Last, because what they leave behind in the heap would count as memory of the streams.
    Case("body-1", "2 MB, 1 connection", Load(1, requests=100, body=2 * MB)),
    Case("body-50", "2 MB, 50 connections", Load(50, requests=200, body=2 * MB)),
)


def quickened(case: Case) -> Case:
    """The same case for a quick run."""
    load = case.load
    return replace(
        case,
        load=replace(
            load,
            requests=None if load.requests is None else max(load.connections, round(load.requests * case.quick)),
            seconds=None if load.seconds is None else load.seconds * case.quick,
            events=round(load.events * case.quick) if load.requests is None else load.events,
        ),
    )


@dataclass(frozen=True, slots=True)
class Run:
    """One measured run: what the load generator found, CPU seconds of the target, memory in MB."""

    target: str
    case: str
    found: Mapping[str, Any]
    cpu_s: float | None = None
    rss_mb: float | None = None
    rss_before_mb: float | None = None

    @property
    def failed(self) -> int:
        return sum(int(self.found[kind]) for kind in ("refused", "bad_status", "cut", "incomplete"))


def figures(runs: Iterable[Run], cases: Iterable[Case]) -> dict[str, dict[str, dict[str, float]]]:
    """By target and case: the medians over the rounds. Times in microseconds, memory in MB.

    ``cpu`` is per request or event as the case says, the cost of the requests taken off from events;
    ``failed`` is the sum over all rounds.
    """
    by_place: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        by_place.setdefault((run.target, run.case), []).append(run)
    result: dict[str, dict[str, dict[str, float]]] = {}
    for case in cases:
        for (target, name), some in by_place.items():
            if name == case.name:
                base = result.get(target, {}).get(case.base or "", {}).get("cpu", 0.0)
                result.setdefault(target, {})[name] = _row(case, some, base)
    return result


def _row(case: Case, runs: list[Run], base_us: float) -> dict[str, float]:
    row: dict[str, float] = {"failed": sum(run.failed for run in runs)}
    per_run = [_values(case, run, base_us) for run in runs]
    for key in dict.fromkeys(key for values in per_run for key in values):
        row[key] = round(median(values[key] for values in per_run if key in values), 2)
    return row


def _values(case: Case, run: Run, base_us: float) -> dict[str, float]:
    found = run.found
    count = int(found["events" if case.per == "event" else "ok"])
    values: dict[str, float] = {"per_second": count / found["seconds"]}
    if run.cpu_s is not None and count:
        spent_us = run.cpu_s * 1e6 - (base_us * int(found["ok"]) if case.per == "event" else 0.0)
        values["cpu"] = spent_us / count
    if run.rss_mb is not None:
        values["rss_mb"] = run.rss_mb
    if run.rss_mb is not None and run.rss_before_mb is not None:
        values["rss_more_mb"] = run.rss_mb - run.rss_before_mb
    for kind in ("whole", "first", "event"):
        for point in ("p50", "p99"):
            if point in found[kind]:
                values[f"{kind}_{point}"] = float(found[kind][point])
    return values
