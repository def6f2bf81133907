"""Known bugs of such schedulers, ours and the field's, each as a switch: the worlds must find every one."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from llm_router.core.book import Book, Line
from llm_router.core.events import Event, Exited, Gone
from llm_router.core.instance import COMING, LEAVING, LOADING, Instance, State, Why
from llm_router.core.rules import Rules
from llm_router.core.scheduler import Scheduler
from llm_router.core.tickets import Lease
from llm_router.core.words import InstanceId, Outcome


class GrantsOnDraining(Rules):
    def may_grant(self, inst: Instance) -> bool:
        return inst.state in (State.ready, State.draining)


class CountsLeavingAsGone(Rules):
    def holds(self, inst: Instance) -> int | None:
        return 0 if inst.state in LEAVING else inst.taken


class StopsWhileLeased(Rules):
    def is_drained(self, inst: Instance) -> bool:
        return True


class KeepsLeaseOfRudeClient(Rules):
    def is_over(self, lease: Lease, outcome: Outcome) -> bool:
        return outcome is not Outcome.left


class DrainsWithoutLimit(Rules):
    def overdue_at(self, inst: Instance, lease: Lease, book: Book) -> float:
        return inf


class ChoosesLoadingVictim(Rules):
    def may_leave(self, inst: Instance, line: Line) -> bool:
        return inst.state in LOADING or super().may_leave(inst, line)


class PromisesRoomTwice(Rules):
    """Two waiters choose one victim: each counts its memory as its own."""

    def promised(self, inst: Instance) -> int | None:
        return 0 if inst.state in COMING else super().promised(inst)


class EvictsBeforeGrant(Rules):
    def is_owed(self, inst: Instance, line: Line) -> bool:
        return False


class BelievesPause(Rules):
    """No cool-down after a failure: a storm of starts."""

    def may_start(self, line: Line, now: float) -> bool:
        return True

    def is_barred(self, line: Line, now: float) -> bool:
        return False


class ForgetsRollback(Rules):
    """Who was evicted is not brought back: neither the default nor the model somebody waits for again."""

    def __init__(self) -> None:
        self._evicted: set[str] = set()

    def is_drained(self, inst: Instance) -> bool:
        if inst.why is Why.evicted:
            self._evicted.add(inst.model)
        return super().is_drained(inst)

    def is_errand(self, line: Line) -> bool:
        return line.name not in self._evicted and super().is_errand(line)


class StartsForBackground(Rules):
    def is_wanted(self, line: Line) -> bool:
        return len(line.queue) > 0


class ForgetsToSettle(Scheduler):
    """Who waits for the memory of an engine that has just gone is not thought of."""

    def _follow(self, event: Event, now: float) -> None:
        if not isinstance(event, Exited | Gone):
            super()._follow(event, now)


class ResurrectsVictim(Scheduler):
    """A victim whose stop was asked for is taken for ready again when somebody wants it."""

    def _follow(self, event: Event, now: float) -> None:
        for line in self.book.lines.values():
            inst = line.current
            if inst is not None and inst.state is State.stopping and inst.why is Why.evicted and line.queue.front:
                inst.state, inst.why = State.ready, None
        super()._follow(event, now)


class BelievesFormerIncarnation(Scheduler):
    """News is filed by the model's name, so that a late word of a former instance counts for the present one."""

    def _find(self, instance: InstanceId) -> Instance | None:
        for line in self.book.lines.values():
            if line.name == instance.rpartition("#")[0] and line.current is not None:
                return line.current
        return super()._find(instance)


class GrantsPastQuantum(Scheduler):
    """A busy model goes on being served however long others wait."""

    def __init__(self) -> None:
        super().__init__()
        batches = self._settle.batches
        batches.turn_end = lambda inst, ours, theirs, now: inf  # type: ignore[method-assign]


class KeepsCancelledRoom(Scheduler):
    """A load whose last waiter left before it began keeps its promised room."""

    def __init__(self) -> None:
        super().__init__()
        self._settle._parting._is_load_wanted = lambda line, inst: True  # type: ignore[method-assign]


def _with(rules: Callable[[], Rules]) -> Callable[[], Scheduler]:
    return lambda: Scheduler(rules=rules())


@dataclass(frozen=True)
class Mutant:
    """``seed`` is a world in which it is found; should it be found no more there, others are searched."""

    make: Callable[[], Scheduler]
    seed: int


MUTANTS: dict[str, Mutant] = {
    "forget to settle after an exit": Mutant(ForgetsToSettle, 1),
    "grant on draining": Mutant(_with(GrantsOnDraining), 20),
    "count leaving as gone": Mutant(_with(CountsLeavingAsGone), 13),
    "polite stop while leased": Mutant(_with(StopsWhileLeased), 13),
    "rude client's lease kept": Mutant(_with(KeepsLeaseOfRudeClient), 5),
    "drain without limit": Mutant(_with(DrainsWithoutLimit), 13),
    "victim chosen while loading": Mutant(_with(ChoosesLoadingVictim), 2),
    "two waiters choosing one victim": Mutant(_with(PromisesRoomTwice), 8),
    "evicted between ready and grant": Mutant(_with(EvictsBeforeGrant), 11),
    "resurrected victim": Mutant(ResurrectsVictim, 17),
    "late answer of a former incarnation believed": Mutant(BelievesFormerIncarnation, 13),
    "unfair grant past the quantum": Mutant(GrantsPastQuantum, 13),
    "failure without cool-down": Mutant(_with(BelievesPause), 11),
    "rollback forgotten": Mutant(_with(ForgetsRollback), 9),
    "background starts a switch": Mutant(_with(StartsForBackground), 12),
    "a cancelled load that leaves its room booked": Mutant(KeepsCancelledRoom, 24),
}
