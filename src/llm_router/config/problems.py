"""What is wrong with a configuration, and where.

This file knows places, sentences and suggestions. It does not know what a configuration contains.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where something stands in a text: lines and columns count from 1."""

    source: str
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: a sentence that begins with "cannot", and what to do about it, if that is known."""

    place: Place
    text: str
    suggestion: str | None = None

    def __str__(self) -> str:
        return f"{self.place}: {self.text}" + (f". {self.suggestion}" if self.suggestion else "")


class ConfigError(Exception):
    """A configuration that cannot be used. ``problems`` are all mistakes found, in the order of the text."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems), key=lambda problem: (problem.place, problem.text)))
        super().__init__("\n".join(map(str, self.problems)))


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that a person most likely meant, or ``None`` if nothing is near."""
    choices = {choice.lower(): choice for choice in known}
    close = get_close_matches(word.lower()[:200], choices, n=1, cutoff=0.6)
    return choices[close[0]] if close else None


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """A suggestion sentence: the nearest known word, else all of them if they are few."""
    names = sorted(known)
    near = nearest(word, names)
    if near is not None:
        return f"Did you mean {near!r}?"
    if names and len(names) <= 12:
        return "Known here: " + ", ".join(names)
    return None
