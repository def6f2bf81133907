"""Measures the road of bytes: each case on each target, in rounds that go back and forth.

This file knows how a run is taken. What the runs mean is in ``cases``.
"""

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, Final

from bench.cases import Case, Run
from bench.machine import Peak, cpu_seconds, rss_mb
from bench.stage import MODEL, Stage, Target
from bench.tools import Load, finish_load, start_load

_LIMIT_S: Final = 180.0
#: Long enough for what the router does once a second or every few.
_IDLE_S: Final = 10.0
_QUICK_IDLE_S: Final = 4.0
#: After a load, so that what is written behind (history, journal) counts in it.
_SETTLE_S: Final = 0.3


def road(
    stage: Stage, targets: Sequence[Target], cases: Sequence[Case], rounds: int, told: Callable[[str], None]
) -> list[Run]:
    """All runs. Neighbours in time are compared: each round asks every target, every other round in reverse."""
    runs = []
    for target in targets:
        for load in (Load(8, requests=400), Load(8, events=40, size=250)):
            finish_load(start_load(stage.tools, load, target.port, MODEL, stage.rest), _LIMIT_S)
    for number in range(rounds):
        for case in cases:
            for target in targets if number % 2 == 0 else reversed(targets):
                run = one(stage, target, case)
                runs.append(run)
                told(f"round {number + 1}/{rounds}  {target.name:12} {case.title:28} {_short(run, case)}")
    return runs


def one(stage: Stage, target: Target, case: Case) -> Run:
    """One run of one case."""
    pids = target.pids()
    before = {pid: cpu_seconds(pid) for pid in pids}
    rss_before = rss_mb(pids)
    load = start_load(stage.tools, case.load, target.port, MODEL, stage.rest)
    with Peak(lambda: rss_mb(pids)) as peak:
        found = finish_load(load, _LIMIT_S)
    if not pids:
        return Run(target.name, case.name, found)
    time.sleep(_SETTLE_S)
    spent = sum(cpu_seconds(pid) - before[pid] for pid in pids)
    return Run(target.name, case.name, found, spent, peak.value, rss_before)


def idle(targets: Sequence[Target], *, quick: bool) -> dict[str, dict[str, float]]:
    """What the targets take while nothing happens: memory (MB) and CPU (percent of one core)."""
    pids = {target.name: target.pids() for target in targets if target.roots}
    seconds = _QUICK_IDLE_S if quick else _IDLE_S
    before = {pid: cpu_seconds(pid) for some in pids.values() for pid in some}
    time.sleep(seconds)
    return {
        name: {
            "rss_mb": round(rss_mb(some), 1),
            "cpu_percent": round(sum(cpu_seconds(pid) - before[pid] for pid in some) / seconds * 100, 3),
        }
        for name, some in pids.items()
    }


def _short(run: Run, case: Case) -> str:
    found: Any = run.found
    count = found["events" if case.per == "event" else "ok"]
    cpu = "" if run.cpu_s is None or not count else f"{run.cpu_s * 1e6 / count:8.1f} us CPU"
    failed = f"  FAILED {run.failed}" if run.failed else ""
    return f"{cpu:16} {count / found['seconds']:9.0f}/s{failed}"


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and largest of some times, in the unit they have."""
    return {"p50": round(median(values), 2), "max": round(max(values), 2), "count": len(values)}
