"""What shows that an instance is at work: laid down once, for one that loads and for one that answers (R22, R27).

Two kinds of signs count. What it says, in its log or in an answer, is certain. That it computes is good evidence
and not certain: some engines spin while they hang. This file measures nothing, and sets nobody a limit.
"""

from typing import Final

from llm_router.host.crew.progress import Vitals

#: What counts as computing between two measurements: a share of one core, bytes a second. The router's own questions
#: move a server a little.
MOVED_CPU: Final = 0.1
MOVED_BYTES: Final = 1024 * 1024


class Movement:
    """When one instance gave its last signs, in seconds of whoever's clock it is told."""

    def __init__(self, now: float) -> None:
        #: When it last said something of its own.
        self.said = now
        #: When it last said or did anything.
        self.moved = now
        self._vitals: Vitals | None = None
        self._measured = now

    def says(self, now: float) -> None:
        """A line of its log, or a byte of an answer."""
        self.said = self.moved = now

    def measured(self, vitals: Vitals | None, now: float) -> bool:
        """What its processes have done so far, ``None`` if nobody can tell: has it computed since the last time?"""
        if vitals is None:
            return False
        before, since = self._vitals, now - self._measured
        self._vitals, self._measured = vitals, now
        if before is None or not _computes(before, vitals, since):
            return False
        self.moved = now
        return True

    def rests(self) -> None:
        """Nothing is wanted of it: what it computes from now on until the next measurement shows nothing."""
        self._vitals = None


def _computes(before: Vitals, now: Vitals, seconds: float) -> bool:
    return (
        now.gpu
        or now.cpu_s - before.cpu_s > MOVED_CPU * seconds
        or abs(now.resident - before.resident) > MOVED_BYTES * seconds
        or now.read - before.read > MOVED_BYTES * seconds
    )
