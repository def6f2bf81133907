"""Who leaves of his own accord, whose load is called off, and who may stay after all.

This file knows the reasons to go that are not somebody else's need of room: idle time, a new configuration,
the end of the router, a load that nobody waits for (R16, R18). It does not choose victims.
"""

from llm_router.core.acts import Acts
from llm_router.core.agenda import Agenda
from llm_router.core.batches import Batches
from llm_router.core.book import Book, Line
from llm_router.core.instance import COMING, LOADING, Instance, State, Why
from llm_router.core.rules import Rules


class Parting:
    """One pass over the instances."""

    def __init__(self, book: Book, acts: Acts, rules: Rules, batches: Batches, agenda: Agenda) -> None:
        self._book = book
        self._acts = acts
        self._rules = rules
        self._batches = batches
        self._agenda = agenda

    def run(self, now: float) -> None:
        """Look at every instance once."""
        for inst in list(self._book.instances.values()):
            line = self._book.line_of(inst)
            if inst.state is State.ready:
                why = self._why_leave(line, inst, now)
                if why is not None:
                    park = why is Why.idle and inst.parked_size is not None and line.model.parkable
                    self._acts.drain(inst, why, now, park=park)
            elif inst.state is State.draining:
                self._reconsider(line, inst, now)
            elif inst.state is State.parked:
                why = self._why_gone(line, inst)
                if why is not None and not self._book.keep_engines:
                    self._acts.stop(inst, why, now, polite=True)
            elif inst.state in COMING:
                if not self._is_load_wanted(line, inst):
                    self._call_off(line, inst, now)
            elif inst.state in LOADING and not self._may_load_on(line, inst, now):
                self._acts.stop(inst, self._why_gone(line, inst) or Why.cancelled, now, polite=True)

    def _call_off(self, line: Line, inst: Instance, now: float) -> None:
        """Nothing has begun yet; but what sleeps and must go anyway goes at once."""
        why = self._why_gone(line, inst)
        if inst.state is State.called and why is not None and not self._book.keep_engines:
            self._acts.stop(inst, why, now, polite=True)
        else:
            self._acts.drop(inst, now)

    def _why_gone(self, line: Line, inst: Instance) -> Why | None:
        """Why an instance must go whatever it does."""
        if self._book.closing:
            return Why.shutdown
        if line.removed:
            return Why.removed
        return Why.revised if inst.revision != line.model.revision else None

    def _why_leave(self, line: Line, inst: Instance, now: float) -> Why | None:
        why = self._why_gone(line, inst)
        if why is Why.shutdown and self._book.keep_engines and not inst.leases:
            return None
        if why is not None:
            return why
        idle_s = line.model.idle_s if inst.keep_s is None else inst.keep_s
        if idle_s is None or line.pin or line.model.default or inst.busy or self._rules.is_wanted(line):
            return None
        idle_at = max(inst.last_used + idle_s, inst.linger_until)
        if idle_at <= now:
            return Why.idle
        self._agenda.at(idle_at)
        return None

    def _reconsider(self, line: Line, inst: Instance, now: float) -> None:
        """A draining instance stays after all if what it drains for has vanished."""
        why = self._why_gone(line, inst)
        if why is Why.shutdown and self._book.keep_engines:
            if inst.why in (Why.evicted, Why.idle, Why.shutdown) and not inst.leases:
                self._acts.reprieve(inst, now)
            return
        if why is not None:
            inst.why = why
            inst.to_park = False
        elif self._rules.may_be_reprieved(inst) and not self.is_room_needed(inst):
            self._acts.reprieve(inst, now)

    def is_room_needed(self, inst: Instance) -> bool:
        """Whether the one this instance leaves for still comes, and counts on it."""
        line = self._book.lines.get(inst.leaves_for) if inst.leaves_for else None
        coming = line.current if line else None
        return coming is not None and coming.state in COMING and inst.id in coming.victims

    def _is_load_wanted(self, line: Line, inst: Instance) -> bool:
        if self._why_gone(line, inst) is not None:
            return False
        if self._rules.is_wanted(line):
            return True
        return line.pin or ((line.preload_due or line.model.default) and not self._agenda.contested)

    def _may_load_on(self, line: Line, inst: Instance, now: float) -> bool:
        if self._is_load_wanted(line, inst):
            return True
        if self._why_gone(line, inst) is not None:
            return False
        expected = self._batches.expected_s(line)
        return self._rules.is_nearly_done(inst, self._book.settings.quantum_min_s, expected, now)
