"""What an operator does: configurations, unloading, shutdown, and engines that were left running.

This file knows how these change the book. What follows from that, the settling derives like everything else.
"""

from llm_router.core.acts import Acts
from llm_router.core.book import Book, Line
from llm_router.core.costs import Costs
from llm_router.core.events import Adopted, Configured
from llm_router.core.instance import COMING, LOADING, Instance, State, Why
from llm_router.core.trouble import Trouble
from llm_router.core.words import Model, Reason


class Operator:
    """Writes down the operator's events."""

    def __init__(self, book: Book, acts: Acts, costs: Costs) -> None:
        self._book = book
        self._acts = acts
        self._costs = costs

    def adopt(self, event: Adopted, now: float) -> None:
        """A running engine takes its place in the book. What has no place there is stopped.

        The configuration must be known first: an engine of an unknown model is a leftover.
        """
        book = self._book
        if event.instance in book.instances:
            return
        _, _, number = event.instance.rpartition("#")
        if number.isdecimal():
            book.serial = max(book.serial, int(number))
        line = book.lines.get(event.model)
        if line is None:
            line = book.lines[event.model] = Line(Model(event.model), removed=True)
        if line.current is not None and line.current.state in (State.planned, State.cleared):
            self._acts.drop(line.current, now)
        footprint = line.footprint
        size = footprint.per_device if footprint else None
        parked = footprint.parked if footprint and line.model.parkable else None
        inst = Instance(
            event.instance,
            event.model,
            line.model.revision,
            event.devices,
            size,
            parked,
            State.starting,
            now,
            taken=size,
            adopted=True,
            work_since=now,
        )
        book.instances[inst.id] = inst
        if line.current is None and not line.removed and not book.closing:
            line.current = inst
            self._acts.prove(inst, now)
        else:
            self._acts.stop(inst, Why.removed, now, polite=True)

    def configure(self, event: Configured) -> None:
        """A reload is a diff by revision: what did not change keeps running (R5)."""
        book = self._book
        book.serial = max(book.serial, event.serial or 0)
        book.configure(event.devices, event.settings)
        wanted = {model.name: model for model in event.models}
        for line in list(book.lines.values()):
            if line.name not in wanted:
                line.removed = True
                self._acts.refuse_all(line, Reason.unknown_model)
                self._costs.forget(line.name)
                if line.current is None:
                    del book.lines[line.name]
        for model in event.models:
            if model.name not in book.lines:
                book.lines[model.name] = Line(model, preload_due=model.preload)
            line = book.lines[model.name]
            if line.removed or line.model.revision != model.revision:
                self._revise(line, model)
            line.model = model
            line.pin = model.pin

    def _revise(self, line: Line, model: Model) -> None:
        """The model changed: what was remembered belongs to the old revision. Who waits goes on waiting."""
        line.removed = line.dismissed = False
        line.trouble = Trouble()
        line.learnt = None
        line.preload_due = model.preload
        self._costs.forget(line.name)

    def unload(self, line: Line, now: float) -> None:
        """Who waits now is refused: the operator wants the memory, and a start for them would take it back.

        Who asks later is served: that is a new wish, and it is what people expect of ``unload``. A pin or a
        default does not bring it back by itself.
        """
        line.dismissed = True
        line.preload_due = False
        self._acts.refuse_all(line, Reason.unloaded)
        inst = line.current
        if inst is None:
            return
        if inst.state is State.ready:
            self._acts.drain(inst, Why.unloaded, now, park=False)
        elif inst.state is State.draining:
            inst.why = Why.unloaded
            inst.to_park = False
        elif inst.state in COMING and inst.state is not State.called:
            self._acts.drop(inst, now)
        elif inst.state in (*LOADING, State.parked, State.called):
            self._acts.stop(inst, Why.unloaded, now, polite=True)

    def shut_down(self, *, keep_engines: bool) -> None:
        """Nobody waits any more; who is answered may finish."""
        book = self._book
        if not book.closing:
            book.keep_engines = keep_engines
        book.closing = True
        for line in book.lines.values():
            self._acts.refuse_all(line, Reason.shutting_down)
