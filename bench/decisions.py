"""How long the scheduler takes for a decision while so many requests wait.

In this process, without any input or output: two or ten models, one loaded and busy, the others waited for, and
time that passes only in numbers. Each turn one answer ends, the next one begins, and one more request comes, so that the number of
those who wait stays the same.
"""

import itertools
import time
from collections.abc import Iterator
from statistics import median
from typing import Final

from llm_router.core import commands as do
from llm_router.core import events as ev
from llm_router.core.scheduler import Scheduler
from llm_router.core.words import Model, ModelName, Settings, TicketId

WAITING: Final = (10, 100, 1_000, 10_000)
#: So many models are asked for at once. Others that only stand on the shelf cost next to nothing.
MODELS: Final = (2, 10)
_AT_ONCE: Final = 4
#: Time between two events, in seconds of the scheduler's clock.
_STEP_S: Final = 0.001


class _World:
    """A scheduler whose commands succeed at once."""

    def __init__(self, models: int) -> None:
        self.scheduler = Scheduler()
        self.now = 0.0
        self.granted: list[TicketId] = []
        self._numbers = itertools.count(1)
        self._models = [ModelName(f"model-{number}") for number in range(models)]
        settings = Settings(queue_limit=100_000, quantum_min_s=1e6, quantum_max_s=1e6, max_wait_s=0)
        shelf = tuple(Model(name, concurrency=_AT_ONCE) for name in self._models)
        self.tell(ev.Configured(shelf, (), settings))

    def tell(self, event: ev.Event) -> None:
        """One event, and whatever follows from it."""
        self.now += _STEP_S
        for command in self.scheduler.step(event, self.now):
            match command:
                case do.Grant(ticket, _):
                    self.granted.append(ticket)
                case do.Check(instance):
                    self.tell(ev.Checked(instance, None))
                case do.Start(instance):
                    self.tell(ev.Started(instance))
                case do.Prove(instance):
                    self.tell(ev.Proved(instance, None))
                case _:
                    pass

    def arrive(self, model: int) -> None:
        """A request of some caller. Models are counted round."""
        number = next(self._numbers)
        self.tell(ev.Arrived(TicketId(number), self._models[model % len(self._models)], caller=f"caller-{number % 50}"))

    def turns(self, count: int) -> Iterator[float]:
        """The seconds of each event of so many turns."""
        clock = time.perf_counter
        for number in range(count):
            began = clock()
            self.tell(ev.Released(self.granted.pop(0)))
            ended = clock()
            yield ended - began
            began = clock()
            self.arrive(0 if number % 2 else number)
            yield clock() - began


def decisions(waiting: int, models: int, turns: int = 2_000) -> dict[str, float]:
    """Microseconds for one event with so many waiting: median and 99th percentile; and events per second."""
    world = _World(models)
    while len(world.granted) < _AT_ONCE:
        world.arrive(0)
    for number in range(waiting):
        world.arrive(number)
    for _ in range(turns // 2 + 1):  # the loaded model must not run dry
        world.arrive(0)
    spent = sorted(world.turns(turns))
    return {
        "p50_us": round(median(spent) * 1e6, 1),
        "p99_us": round(spent[int(len(spent) * 0.99)] * 1e6, 1),
        "per_second": round(len(spent) / sum(spent)),
    }


def all_decisions() -> dict[str, dict[str, float]]:
    """By the number of those who wait."""
    return {f"{waiting} for {models} models": decisions(waiting, models) for models in MODELS for waiting in WAITING}
