"""What a look at the machine found: an area, how well it is, a sentence, and what to do about it."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How well something is. ``warn``: it works, but not as well as it could, or not for ever."""

    ok = "ok"
    warn = "warn"
    fail = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``remedy`` is what to do; empty where nothing is to be done."""

    area: str
    level: Level
    text: str
    remedy: str = ""


def ok(area: str, text: str) -> Finding:
    """Something that is well."""
    return Finding(area, Level.ok, text)


def warn(area: str, text: str, remedy: str) -> Finding:
    """Something to know."""
    return Finding(area, Level.warn, text, remedy)


def fail(area: str, text: str, remedy: str) -> Finding:
    """Something that does not work."""
    return Finding(area, Level.fail, text, remedy)


def worst(findings: Iterable[Finding]) -> Level:
    """The worst of them; ``ok`` if there are none."""
    levels = [finding.level for finding in findings]
    return next((level for level in (Level.fail, Level.warn) if level in levels), Level.ok)
