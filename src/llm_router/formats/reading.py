"""The two ways in which reading a file's head can end without a value: more bytes are needed, or it is bad.

Both are values, so that a reader of untrusted bytes has no exception to forget. Nothing here knows a format.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NeedMore:
    """The head was too short: at least ``at_least`` bytes, counted from the file's beginning, are needed.

    It is a lower bound: what those bytes say may ask for more. Doubling what is read keeps the work linear.
    """

    at_least: int


@dataclass(frozen=True, slots=True)
class BadFile:
    """The file can never be served as it is. ``reason`` is one sentence that begins with "cannot"."""

    reason: str
