"""What a reload did, or why it did nothing, as programs and people are told.

It knows the words of the answer. The reload itself is the application's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llm_router.config.difference import Difference
from llm_router.config.problems import ConfigError, Problem
from llm_router.wire.errors import Fault

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reloaded:
    """A configuration that came into force."""

    difference: Difference
    warnings: Sequence[Problem] = ()

    def told(self) -> Json:
        """The answer to ``POST /api/reload``."""
        found = self.difference
        return {
            "success": True,
            "summary": str(found),
            "models": {
                "added": found.added,
                "removed": found.removed,
                "changed": found.changed,
                "adjusted": found.adjusted,
                "unchanged": found.unchanged,
            },
            "settings": found.settings,
            "needs_restart": found.needs_restart,
            "warnings": [str(warning) for warning in self.warnings],
        }


def broken(error: ConfigError) -> Fault:
    """A configuration that cannot be used: every mistake with its place, as one text and one by one."""
    return Fault(
        422,
        "broken_configuration",
        f"cannot reload, everything stays as it is: {error}",
        kind="invalid_request_error",
        retry=False,
        more={"problems": [entry(problem) for problem in error.problems]},
    )


def entry(problem: Problem) -> Json:
    """One mistake, for programs."""
    place = problem.place
    return {
        "file": place.source,
        "line": place.line,
        "column": place.column,
        "text": problem.text,
        "suggestion": problem.suggestion,
    }
