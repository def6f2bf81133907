import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_router.sim.trace import read

Command = Callable[..., Any]
SMALL = ("--requests", "12", "--models", "2", "--span", "1m", "--load", "5s")


def test_a_made_day_for_people(run: Command) -> None:
    answer = run("simulate", *SMALL)
    assert answer.exit_code == 0
    assert "2 models, 12 requests; 1 device of 16.0 GiB (in seconds)" in answer.stdout
    for words in ("ours", "fifo", "lru", "p50", "switches", "busy"):
        assert words in answer.stdout


def test_a_made_day_for_programs(run: Command) -> None:
    reports = json.loads(run("simulate", *SMALL, "--policy", "ours", "--policy", "fifo", "--json").stdout)["reports"]
    assert [report["policy"] for report in reports] == ["ours", "fifo"]
    assert all(report["granted"] == 12 for report in reports)
    assert {"wait_p50", "wait_p95", "wait_p99", "switches", "utilisation"} <= reports[0].keys()


def test_every_option_of_a_made_day_arrives(run: Command, bare_home: Path) -> None:
    words = (
        "--devices",
        "2",
        "--memory",
        "8GiB",
        "--size",
        "3GiB",
        "--wake",
        "1s-2s",
        "--load",
        "5s-6s",
        "--seed",
        "4",
    )
    answer = run("simulate", "--models", "4", "--requests", "9", "--span", "30s", *words, "--write", "day.json")
    assert "simulate it with --trace day.json" in answer.stdout
    day = read((bare_home / "day.json").read_bytes())
    assert (day.devices, day.memory, day.seed, len(day.models), len(day.requests)) == (2, 8 * 1024**3, 4, 4, 9)
    first = day.models[0]
    assert (first.size, first.load_s, first.wake_s) == (3 * 1024**3, (5.0, 6.0), (1.0, 2.0))
    assert max(request.at for request in day.requests) < 33


def test_a_written_day_gives_the_same_answer(run: Command) -> None:
    run("simulate", *SMALL, "--write", "day.json")
    again = run("simulate", "--trace", "day.json", "--json")
    assert json.loads(again.stdout) == json.loads(run("simulate", *SMALL, "--json").stdout)


@pytest.mark.slow
def test_the_case_is_told_with_and_without_parking(run: Command) -> None:
    reports = json.loads(run("simulate", "--case", "shelf-of-three", "--policy", "lru", "--json").stdout)["reports"]
    assert [report["trace"] for report in reports] == ["three models, two fit, cold", "three models, two fit, parked"]
    assert reports[0]["wakes"] == 0 < reports[1]["wakes"]
    only = json.loads(run("simulate", "--case", "shelf-of-three", "--parked", "--policy", "lru", "--json").stdout)
    assert only["reports"] == reports[1:]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--span", "soon"), "cannot use --span: 'soon' is no duration"),
        (("--load", "9s-5s"), "cannot use --load 9s-5s: write the shorter time first"),
        (("--load", "5s-"), None),
        (("--memory", "big"), "cannot use --memory: 'big' is no size"),
        (("--trace", "x", "--case", "shelf-of-three"), "give one of --trace and --case"),
        (("--case", "shelf-of-three", "--write", "x"), "cannot write two traces to one file"),
        (("--case", "nothing"), "nothing"),
        (("--policy", "nobody"), "nobody"),
        (("--models", "0"), "models"),
    ],
)
def test_wrong_usage(run: Command, words: tuple[str, ...], said: str | None) -> None:
    answer = run("simulate", *SMALL[:2], *words)
    assert answer.exit_code == (0 if said is None else 2)
    assert (said or "") in answer.stderr


@pytest.mark.parametrize(
    ("content", "said"), [(None, "No such file"), ("{", "cannot read the trace"), ("{}", "cannot read")]
)
def test_what_is_no_trace(run: Command, bare_home: Path, content: str | None, said: str) -> None:
    if content is not None:
        (bare_home / "x.json").write_text(content)
    answer = run("simulate", "--trace", "x.json")
    assert (answer.exit_code, said in answer.stderr, "x.json" in answer.stderr) == (1, True, True)


def test_a_trace_that_cannot_be_written(run: Command, bare_home: Path) -> None:
    answer = run("simulate", *SMALL, "--write", str(bare_home))
    assert (answer.exit_code, "cannot write the trace" in answer.stderr) == (1, True)
