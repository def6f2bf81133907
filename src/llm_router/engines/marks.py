"""From a line of an engine's log to the phase and the percent of the whole load.

This file knows how a table of texts is read, bars included. The texts are in the adapters, and so is the
share that each phase takes of a load: an estimate, which history corrects.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from llm_router.engines.engine import LogFact
from llm_router.engines.serving import listening_port, part

#: The phases in words, as people read them.
STARTING = "starting"
LOADING = "loading weights"
COMPILING = "compiling"
CACHE = "allocating cache"
GRAPHS = "capturing graphs"
WARMING = "warming up"


@dataclass(frozen=True, slots=True)
class Mark:
    """A text of the log and where in the load it stands.

    ``low`` is the percent of the whole load at this line. If ``text`` has a group ``percent``, the line is a
    bar of a phase that goes from ``low`` to ``high``. ``near``: it can answer within moments.
    """

    text: str
    phase: str
    low: float | None = None
    high: float = 100.0
    near: bool = False


@lru_cache(maxsize=256)
def _compiled(text: str) -> re.Pattern[str]:
    return re.compile(text)


def read_marks(marks: Sequence[Mark], line: str) -> LogFact | None:
    """What the first fitting mark says of the line; the port only from lines that are near."""
    for mark in marks:
        found = _compiled(mark.text).search(line)
        if found:
            return LogFact(
                mark.phase, _percent(mark, found), mark.near, port=listening_port(line) if mark.near else None
            )
    return None


def _percent(mark: Mark, found: re.Match[str]) -> float | None:
    if mark.low is None:
        return None
    told = found.groupdict().get("percent")
    return part(mark.low, mark.high, float(told)) if told else mark.low
