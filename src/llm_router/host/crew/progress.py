"""How far a load is and how long it will still take, from what is known of it (R23).

This file combines the engine's own percent, bytes read against the weights, and the history of loads. It
knows no engine and looks at nothing itself: numbers go in with their times, numbers come out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

#: Before the proof nobody may claim to be done.
ALMOST: Final = 99.0
#: Bytes alone do not show the end: caches are allocated and graphs captured after the weights.
BYTES_REACH: Final = 90.0
#: Before an engine says that it loads weights, so many bytes are its libraries: a Python engine's workers map gigabytes.
LIBRARIES: Final = 4 * 2**30
#: A load that takes longer than ever before is said to need this part of its time until now again.
OVERTIME: Final = 0.1
#: So many of the last loads count.
REMEMBERED: Final = 7


@dataclass(frozen=True, slots=True)
class Vitals:
    """What the processes of an instance have done so far: CPU seconds, bytes in memory, bytes read.

    ``gpu``: one of its GPUs computes just now, whoever for.
    """

    cpu_s: float
    resident: int
    read: int
    gpu: bool = False


@dataclass(slots=True)
class Progress:
    """One load's progress. Times are in seconds since it began, percent is 0-100 and never falls.

    ``history`` are the seconds of earlier loads, the last one last. ``weights`` is the size of the model's
    files in bytes, ``None`` if it is not known.
    """

    history: Sequence[float] = ()
    weights: int | None = None
    _said: float | None = None
    _first: Vitals | None = None
    _loading: bool = False
    _bytes: float | None = None
    _best: float = 0.0

    @property
    def expected_s(self) -> float | None:
        """How long such a load takes: the median of the last ones."""
        last = list(self.history)[-REMEMBERED:]
        return median(last) if last else None

    def said(self, percent: float) -> None:
        """The engine tells how far it is."""
        if 0 <= percent <= 100:
            self._said = max(percent, self._said or 0.0)

    def measured(self, vitals: Vitals, *, loading: bool = True) -> None:
        """What its processes did. Counting begins with the first measurement, and anew when it says that it loads."""
        if self._first is None or (loading and not self._loading):
            self._first, self._loading = vitals, loading
        if self.weights:
            done = max(vitals.resident - self._first.resident, vitals.read - self._first.read)
            done -= 0 if loading else LIBRARIES
            self._bytes = max(self._bytes or 0.0, min(1.0, done / self.weights) * BYTES_REACH)

    def percent(self, elapsed_s: float) -> float | None:
        """How far it is: by the engine's word, else by bytes, else by the clock; ``None`` if nothing is known."""
        found = self._said
        if found is None and self._bytes:
            found = self._bytes
        if found is None and (expected := self.expected_s):
            found = elapsed_s / expected * 100
        if found is None:
            return None
        self._best = min(ALMOST, max(self._best, found))
        return self._best

    def left_s(self, elapsed_s: float) -> float | None:
        """How long it will still take; ``None`` without a history.

        The median of earlier loads, drawn the further to what the present pace promises the more of it is done.
        """
        expected = self.expected_s
        if expected is None:
            return None
        told = self._said if self._said is not None else self._bytes
        if told and elapsed_s > 0:
            share = min(told, ALMOST) / 100
            expected = (1 - share) * expected + share * (elapsed_s / share)
        return max(expected - elapsed_s, elapsed_s * OVERTIME)
