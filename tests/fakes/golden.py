"""What engines really wrote: recorded logs, and the texts of their failures with what must be said of each."""

from pathlib import Path

from llm_router.core.words import FailureKind

FOLDER = Path(__file__).parents[1] / "engines"


def log_lines(engine: str, name: str) -> list[str]:
    """The lines of a recorded log, a bar's redraws as lines of their own, as the router's log reader has it."""
    text = (FOLDER / engine / name).read_text()
    return [part for line in text.split("\n") for part in line.split("\r") if part]


def causes(engine: str) -> list[tuple[str, FailureKind, str]]:
    """Text of the log, kind of failure, words of the sentence; a line of ``causes.txt`` each, with `` :: `` between."""
    lines = (FOLDER / engine / "causes.txt").read_text().splitlines()
    cases = [line.split(" :: ", 2) for line in lines if line and not line.startswith("#")]
    return [(text, FailureKind(kind), words) for kind, words, text in cases]
