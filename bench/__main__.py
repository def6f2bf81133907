"""The command: `python -m bench`. It reads the options, runs what they ask for, and writes the results."""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import decisions, lag, measure, report, stage, tools
from bench.cases import CASES, Case, figures, quickened
from bench.machine import cores, describe

PARTS = ("road", "lag", "decisions")


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="run bench", description="Measure the router beside direct access, with everything switched on."
    )
    parser.add_argument("--quick", action="store_true", help="one short round: a look, no result")
    parser.add_argument("--rounds", type=int, help="rounds of the road of bytes (default 3, quick 1)")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas (default %(default)s)")
    parser.add_argument("--cases", help=f"cases of the road, with commas: {', '.join(case.name for case in CASES)}")
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NAME=URL",
        help="also measure what runs at this address and passes the model 'bench' on to the engine's port",
    )
    parser.add_argument(
        "--engine-port", type=int, default=18480, help="port of the stand-in engine (default %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there, too")
    given = parser.parse_args(words)
    given.parts = chosen("part", given.only, PARTS)
    names = chosen("case", given.cases, [case.name for case in CASES]) if given.cases else None
    given.chosen = [case for case in CASES if names is None or case.name in names]
    given.peers = dict(peer(text) for text in given.peer)
    given.rounds = given.rounds or (1 if given.quick else 3)
    return given


def chosen(kind: str, text: str, known: Sequence[str]) -> list[str]:
    """The words of a list with commas. Raises ``BenchError`` for an unknown one."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:
        if word not in known:
            raise tools.BenchError(f"cannot find the {kind} {word!r}: there are {', '.join(known)}")
    return words


def peer(text: str) -> tuple[str, str]:
    """Name and address of ``NAME=URL``. Raises ``BenchError``."""
    name, _, url = text.partition("=")
    if not name or not url:
        raise tools.BenchError(f"cannot read the peer {text!r}: write NAME=http://127.0.0.1:PORT")
    return name, url


def told(line: str) -> None:
    """How far it is."""
    print(line, file=sys.stderr, flush=True)


def main(words: Sequence[str] | None = None) -> int:
    """Run it; gives the exit code."""
    try:
        given = arguments(words)
        result, cases = run(given)
    except (tools.BenchError, OSError) as error:
        told(f"{error}")
        return 1
    text = report.markdown(result, cases)
    print(text)
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if given.markdown:
        given.markdown.write_text(text, encoding="utf-8")
    failed = sum(row["failed"] for row in result.get("road", {}).get("router", {}).values())
    return 1 if failed else 0


def run(given: argparse.Namespace) -> tuple[dict[str, Any], list[Case]]:
    """Everything that was asked for."""
    result: dict[str, Any] = {
        "machine": describe(),
        "quick": given.quick,
        "rounds": given.rounds,
        "load_average": round(os.getloadavg()[0], 1),
    }
    cases = [quickened(case) for case in given.chosen] if given.quick else given.chosen
    made = tools.build()
    measured, rest = cores()
    with tempfile.TemporaryDirectory(prefix="llm-router-bench-") as name:
        folder = Path(name)
        if "decisions" in given.parts:
            told("decisions of the scheduler ...")
            result["decisions"] = decisions.all_decisions()
        if "road" in given.parts:
            with stage.Stage(made, folder, measured, rest) as one:
                targets = stage.main_targets(one, given.engine_port, given.peers)
                result["idle"] = measure.idle(targets, quick=given.quick)
                runs = measure.road(one, targets, cases, given.rounds, told)
                result["road"] = figures(runs, cases)
        if "lag" in given.parts:
            with stage.Stage(made, folder, measured, rest) as one:
                result["lag"] = lag.scripted(one, quick=given.quick, told=told)
                real = lag.llamacpp(one, folder, quick=given.quick, told=told)
                if real is not None:
                    result["lag"]["llama.cpp"] = real
    return result, cases


if __name__ == "__main__":
    sys.exit(main())
