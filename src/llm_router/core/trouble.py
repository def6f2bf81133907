"""What is remembered of a model's failures, and what follows for the next start (R15).

This file knows counts, pauses and bars. It does not know who waits, nor how a start is tried.
"""

from dataclasses import dataclass
from math import inf

from llm_router.core.words import Failure, Settings


@dataclass(slots=True)
class Trouble:
    """The failures of one model in one revision. ``retry_at`` and ``barred_until`` are moments."""

    failure: Failure | None = None
    in_a_row: int = 0
    #: No start before this moment; who waits goes on waiting.
    retry_at: float = -inf
    #: Until this moment every request is answered with the failure at once.
    barred_until: float = -inf

    def note(self, failure: Failure, settings: Settings, now: float) -> None:
        """A start, a wake or a running engine failed."""
        self.failure = failure
        self.in_a_row += 1
        # The exponent is bounded: a model may fail for weeks.
        pause = min(settings.backoff_s * 2.0 ** min(self.in_a_row - 1, 30), settings.cooldown_s)
        if failure.deterministic:
            self.barred_until = now + settings.cooldown_s
        elif self.in_a_row >= settings.starts_in_a_row:
            self.barred_until = now + pause
        self.retry_at = max(now + pause, self.barred_until)

    def clear(self) -> None:
        """It works again, or somebody wants it tried again."""
        self.failure = None
        self.in_a_row = 0
        self.retry_at = self.barred_until = -inf
