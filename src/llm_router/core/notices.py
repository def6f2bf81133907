"""What those who wait are told: stage, place in line, who is ahead, and an estimate of the wait (R23, R30).

This file knows how the state reads for a waiting client. It changes nothing but its own memory of what was
told last, and it guesses nothing: where a part of the estimate is unknown, there is none.
"""

from msgspec import Struct

from llm_router.core.acts import Acts
from llm_router.core.batches import Batches
from llm_router.core.book import Book, Line
from llm_router.core.commands import Tell
from llm_router.core.costs import Costs
from llm_router.core.instance import COMING, FREEING, LOADING, Instance, State
from llm_router.core.words import ModelName, Notice, Stage, TicketId

_STAGES = {State.starting: Stage.starting, State.checking: Stage.loading, State.waking: Stage.waking}


class View(Struct, frozen=True):
    """How one model stands for those who wait for it."""

    stage: Stage
    leaving: ModelName | None = None
    phase: str | None = None
    percent: float | None = None
    running_s: float | None = None
    #: What has to end first, a drain or somebody's turn, has no known end.
    open_ended: bool = False


class Notices:
    """Answers ``notice`` and finds out for which models there is news."""

    def __init__(self, book: Book, acts: Acts, costs: Costs, batches: Batches) -> None:
        self._book = book
        self._acts = acts
        self._costs = costs
        self._batches = batches
        #: The models that wait for room, in the order in which they will be served, as of the last settling.
        self._order: tuple[ModelName, ...] = ()

    def tell(self, order: tuple[ModelName, ...], now: float) -> None:
        """One ``Tell`` for each model whose waiters would read something new; ``order`` is who waits for room."""
        self._order = order
        coming = self._coming()
        for line in self._book.lines.values():
            if not line.queue:
                line.told = None
                continue
            view = self._view(line, now)
            percent = None if view.percent is None else int(view.percent)
            told = (view.stage, view.leaving, view.phase, percent, self._ahead(line, coming))
            if told != line.told:
                line.told = told
                self._acts.command(Tell(line.name))

    def notice(self, ticket_id: TicketId, now: float) -> Notice | None:
        """What to tell this ticket's client now; ``None`` if it does not wait."""
        ticket = self._book.waiting.get(ticket_id)
        if ticket is None:
            return None
        line = self._book.lines[ticket.model]
        view = self._view(line, now)
        return Notice(
            model=line.name,
            stage=view.stage,
            waited_s=max(now - ticket.arrived, 0.0),
            place=line.queue.place(ticket),
            ahead=self._ahead(line, self._coming()),
            leaving=view.leaving,
            phase=view.phase,
            percent=view.percent,
            left_s=self._left_s(line, view, now),
            running_s=view.running_s,
        )

    def load_left_s(self, line: Line, now: float) -> float | None:
        """Seconds until the load under way is done: the host's word, else what loads took before."""
        inst = line.current
        if inst is None or inst.state not in LOADING:
            return self._batches.expected_s(line)
        if inst.left_s is not None:
            return max(inst.left_s - (now - inst.told_at), 0.0)
        expected = self._batches.expected_s(line)
        return None if expected is None else max(expected - (now - inst.work_since), 0.0)

    def expected_load_s(self, line: Line) -> float | None:
        """The expected seconds of a start from nothing."""
        return self._costs.load_s(line.model)

    def _coming(self) -> list[ModelName]:
        """The models that come or are being loaded, on any device."""
        return [
            inst.model
            for inst in self._book.instances.values()
            if (inst.state in COMING or inst.state in LOADING) and inst.devices
        ]

    def _ahead(self, line: Line, coming: list[ModelName]) -> tuple[ModelName, ...]:
        """The models that are loaded or served before this one, in that order."""
        if line.name not in self._order:
            return ()
        before = self._order[: self._order.index(line.name)]
        return (*[name for name in coming if name != line.name], *before) if coming else before

    def _view(self, line: Line, now: float) -> View:
        inst = line.current
        if inst is None or inst.state is State.parked:
            return self._view_of_waiting(line, now)
        if inst.state is State.ready:
            return View(Stage.ready)
        if inst.state in LOADING:
            return View(_STAGES[inst.state], None, inst.phase, inst.percent, max(now - inst.work_since, 0.0))
        if inst.state in COMING:
            return self._view_of_coming(inst)
        if inst.state is State.draining:
            return View(Stage.draining, line.name, open_ended=bool(inst.leases))
        return View(Stage.stopping, line.name)

    def _view_of_waiting(self, line: Line, now: float) -> View:
        if line.trouble.retry_at > now:
            return View(Stage.queued, None, "waiting before the next try")
        return View(Stage.queued, line.leaving, open_ended=line.leaving is not None)

    def _view_of_coming(self, inst: Instance) -> View:
        for other in self._book.instances.values():
            if other.state is State.draining and other.leaves_for == inst.model:
                return View(Stage.draining, other.model, open_ended=bool(other.leases))
        for other in self._book.instances.values():
            if other.state in FREEING and not set(other.devices).isdisjoint(inst.devices):
                return View(Stage.stopping, other.model)
        if inst.victims:
            victim = self._book.find(inst.victims[0])
            return View(Stage.queued, victim.model if victim else None, open_ended=inst.state is not State.planned)
        return View(Stage.queued)

    def _left_s(self, line: Line, view: View, now: float) -> float | None:
        """The load that is left, after the stop that is left, after the loads that come before."""
        if view.open_ended or view.stage is Stage.ready:
            return None
        if line.trouble.retry_at > now and line.current is None:
            return None
        total = self.load_left_s(line, now)
        if total is None:
            return None
        if view.leaving and view.leaving in self._book.lines:
            total += self._costs.stop_s(self._book.lines[view.leaving].model)
        for name in self._ahead(line, self._coming()):
            before = self.load_left_s(self._book.lines[name], now)
            if before is None:
                return None
            total += before
        return total
