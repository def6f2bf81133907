"""What switching costs, measured from the moments of events.

This file knows how long loads, wakes and stops took, per model and per pair of models. It decides nothing.
"""

from collections import deque
from statistics import median
from typing import Final

from llm_router.core.words import Model, ModelName

#: The median of so many last measurements is the estimate.
_KEPT: Final = 5
#: What a switch is taken to cost while nothing was measured and the configuration knows nothing, in seconds.
UNKNOWN_S: Final = 30.0


class _Estimate:
    """The median of the last measurements of one thing; reckoned when one is added, because it is asked for often."""

    __slots__ = ("_kept", "seconds")

    def __init__(self) -> None:
        self._kept: deque[float] = deque(maxlen=_KEPT)
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        self._kept.append(seconds)
        self.seconds = median(self._kept)


class Costs:
    """Running estimates in seconds. A model's own ``load_s`` and ``wake_s`` hold until one was measured."""

    __slots__ = ("_loads", "_pairs", "_stops", "_wakes")

    def __init__(self) -> None:
        self._loads: dict[ModelName, _Estimate] = {}
        self._wakes: dict[ModelName, _Estimate] = {}
        self._stops: dict[ModelName, _Estimate] = {}
        self._pairs: dict[tuple[ModelName, ModelName], _Estimate] = {}

    def loaded(self, model: ModelName, seconds: float) -> None:
        self._loads.setdefault(model, _Estimate()).add(seconds)

    def woken(self, model: ModelName, seconds: float) -> None:
        self._wakes.setdefault(model, _Estimate()).add(seconds)

    def stopped(self, model: ModelName, seconds: float) -> None:
        self._stops.setdefault(model, _Estimate()).add(seconds)

    def switched(self, leaving: ModelName, coming: ModelName, seconds: float) -> None:
        """From the moment the one began to stop until the other could be granted."""
        self._pairs.setdefault((leaving, coming), _Estimate()).add(seconds)

    def forget(self, model: ModelName) -> None:
        """The model was removed or changed: what was measured of it means nothing any more."""
        for kept in (self._loads, self._wakes, self._stops):
            kept.pop(model, None)
        for pair in [pair for pair in self._pairs if model in pair]:
            del self._pairs[pair]

    def load_s(self, model: Model) -> float | None:
        measured = self._loads.get(model.name)
        return measured.seconds if measured else model.load_s

    def wake_s(self, model: Model) -> float | None:
        measured = self._wakes.get(model.name)
        return measured.seconds if measured else model.wake_s

    def stop_s(self, model: Model) -> float:
        """0 while nothing was measured: a stop is short beside a load."""
        measured = self._stops.get(model.name)
        return measured.seconds if measured else 0.0

    def switch_s(self, leaving: Model, coming: Model) -> float:
        """The measured cost of the pair, else the sum of what is known of the two."""
        measured = self._pairs.get((leaving.name, coming.name))
        if measured:
            return measured.seconds
        load = self.load_s(coming)
        return UNKNOWN_S if load is None else load + self.stop_s(leaving)

    def reload_s(self, model: Model, *, asleep: bool) -> float:
        """What it would cost to have the model back. ``asleep``: it would only have to be woken."""
        known = self.wake_s(model) if asleep else None
        if known is None:
            known = self.load_s(model)
        return UNKNOWN_S if known is None else known
