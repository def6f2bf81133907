"""Putting an engine to sleep with its process alive, and waking it (R19), by its adapter's own steps.

An engine's word that it sleeps is not believed where the driver can tell: its memory must be seen to be free. It
knows neither when anybody should sleep nor what becomes of an engine that would not.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from msgspec.structs import replace

from llm_router.core.words import Failure, FailureKind
from llm_router.engines.engine import parking_of
from llm_router.host.crew.place import Place
from llm_router.host.crew.probe import Eyes, Limits, News, Proof, prove
from llm_router.host.machine.memory import Gate

#: Weights go to main memory and come back from there: the slowest take a minute.
LIMIT_S: Final = 120.0


class Sleeping:
    """Walks the steps of an instance. ``pids`` gives its living processes, times are in seconds, memory in bytes."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def sleep(
        self, place: Place, eyes: Eyes, pids: Callable[[], frozenset[int]], *, most: int, limit_s: float
    ) -> Proof | Failure:
        """Until it sleeps and holds at most ``most`` bytes on each device. It must be drained."""
        parking = parking_of(place.engine, place.job)
        if parking is None:
            return _cannot(place)
        # Said before it is done: an engine that may sleep is woken by the next router, not asked for a token.
        await asyncio.to_thread(place.note_asleep, True)
        level = self._gate.level(place.ledger)
        limits = Limits(min(LIMIT_S, limit_s))
        result = await prove(place.engine, place.job, eyes, limits=limits, steps=parking.sleep)
        if isinstance(result, Failure):
            return replace(result, cause=f"cannot park {place.model}: it does not fall asleep ({result.cause})")
        held = await self._gate.shrunk(place.ledger, pids, level, most)
        if held:
            device, taken = max(held.items(), key=lambda item: item[1])
            return Failure(
                FailureKind.crashed,
                f"cannot park {place.model}: it says that it sleeps, but holds {taken / 2**30:.1f} GiB of {device}; "
                f"raise parked_memory (now {most / 2**30:.1f} GiB) if it needs that, or leave park out",
            )
        return result

    async def wake(
        self,
        place: Place,
        eyes: Eyes,
        pids: Callable[[], frozenset[int]],
        *,
        limit_s: float,
        history: Sequence[float],
        news: News,
    ) -> Proof | Failure:
        """Until it has made a token."""
        parking = parking_of(place.engine, place.job)
        if parking is None:
            return _cannot(place)
        level = self._gate.level(place.ledger)
        limits = Limits(limit_s)
        result = await prove(
            place.engine, place.job, eyes, limits=limits, history=history, news=news, steps=parking.wake
        )
        if isinstance(result, Proof):
            self._gate.moved(place.ledger, pids(), level)
            await asyncio.to_thread(place.note_asleep, False)
        return result


def _cannot(place: Place) -> Failure:
    return Failure(FailureKind.unsupported, f"cannot park {place.model}: its engine was not started for it")
