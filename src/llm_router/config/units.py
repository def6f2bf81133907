"""Durations and sizes as people write them.

This file knows "30m" and "24GiB". It does not know what they are for.
"""

import math
import re
from typing import Final

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d)\s*")
_DURATION: Final = re.compile(rf"(?:{_PART.pattern})+")
#: Without an "i" the letters alone are binary, as systemd and Docker read them; "GB" is a billion.
_BYTES: Final = {
    "": 1,
    "b": 1,
    **{letter: 1024**power for power, letter in enumerate("kmgt", 1)},
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", 1)},
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgt", 1)},
}
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]{0,3})")
#: More than this is a slip of the keyboard: a century, and 2**60 bytes.
_LONGEST_S: Final = 100 * 366 * 86400.0
_LARGEST: Final = 1024**6


def duration(value: object) -> float:
    """Seconds from a number or from "90", "2s", "1h30m", "500ms". Raises ``ValueError``."""
    seconds = _seconds(value)
    if seconds is None or not 0 <= seconds <= _LONGEST_S:
        raise ValueError(f"{value!r} is no duration: write seconds as a number, or for example 2s, 30m, 1h30m")
    return seconds


def _seconds(value: object) -> float | None:
    if isinstance(value, str):
        text = value.strip().lower()
        if _DURATION.fullmatch(text):
            return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
        return float(text) if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and abs(value) <= _LONGEST_S else None


def size(value: object) -> int:
    """Bytes from a number or from "512MiB", "24GiB", "14.5G", "16GB". Raises ``ValueError``."""
    amount = _bytes(value)
    if amount is None or not 0 <= amount <= _LARGEST:
        raise ValueError(f"{value!r} is no size: write bytes as a number, or for example 512MiB, 24GiB")
    return amount


def _bytes(value: object) -> int | None:
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip().lower())
        factor = _BYTES.get(match[2]) if match else None
        if match is None or factor is None:
            return None
        amount = float(match[1]) * factor
        return round(amount) if math.isfinite(amount) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None
