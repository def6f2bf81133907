"""What one round of settling finds out on its way, for the next ones and for the deadline."""

from dataclasses import dataclass
from math import inf


@dataclass(slots=True)
class Agenda:
    """``due`` is the earliest moment at which something will follow from time alone."""

    due: float = inf
    #: Somebody with a foreground ticket waits for room that others hold.
    contested: bool = False

    def at(self, moment: float) -> None:
        """Something will follow at this moment; infinite if never."""
        self.due = min(self.due, moment)
