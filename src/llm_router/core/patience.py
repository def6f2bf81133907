"""Who has waited long enough: patience, the longest wait, held background requests, remembered failures.

This file knows when a waiting request is refused (R11, R15, R17). It does not know when one is served.
"""

from heapq import heappop

from llm_router.core.acts import Acts
from llm_router.core.agenda import Agenda
from llm_router.core.book import Book, Line
from llm_router.core.instance import COMING, LOADING, Instance, State
from llm_router.core.rules import EPSILON, Rules
from llm_router.core.tickets import Ticket
from llm_router.core.words import Reason


class Patience:
    """Two passes over the lines; a line costs no more when many wait in it."""

    def __init__(self, book: Book, acts: Acts, rules: Rules, agenda: Agenda) -> None:
        self._book = book
        self._acts = acts
        self._rules = rules
        self._agenda = agenda

    def expire(self, now: float) -> None:
        """Refuse who has waited too long, or as a background request in vain."""
        book = self._book
        while book.expiries and (book.expiries[0][0] <= now or book.expiries[0][1] not in book.waiting):
            ticket = book.waiting.get(heappop(book.expiries)[1])
            if ticket is not None:
                self._give_up(ticket)
        if book.expiries:
            self._agenda.at(book.expiries[0][0])
        standing = book.switching()
        limited = bool(book.settings.max_wait_s)
        for line in book.lines.values():
            if limited and line.queue.front:
                self._expire_front(line, now, standing=standing)
            if line.queue.back:
                self._expire_back(line, now, standing=standing)

    def _give_up(self, ticket: Ticket) -> None:
        reason = Reason.background if ticket.background else Reason.too_long
        self._acts.refuse(ticket, reason, retry_after_s=max(self._book.settings.quantum_min_s, 1.0))

    def _expire_front(self, line: Line, now: float, *, standing: bool) -> None:
        while (ticket := line.queue.oldest()) and self._is_too_late(ticket, now, standing=standing):
            self._give_up(ticket)

    def _expire_back(self, line: Line, now: float, *, standing: bool) -> None:
        riding = self._can_ride(line)
        while ticket := line.queue.oldest_background():
            held_until = ticket.arrived + self._book.settings.background_hold_s
            if riding or held_until > now:
                if not riding:
                    self._agenda.at(held_until)
                if not self._is_too_late(ticket, now, standing=standing):
                    return
            self._give_up(ticket)

    def _is_too_late(self, ticket: Ticket, now: float, *, standing: bool) -> bool:
        """Whether the longest wait is over; the quiet clock tells when only while it runs."""
        limit = self._book.settings.max_wait_s
        if not limit:
            return False
        left = limit - self._book.quiet_wait(ticket)
        if left <= EPSILON:
            return True
        if not standing:
            self._agenda.at(now + left)
        return False

    def _can_ride(self, line: Line) -> bool:
        """Whether a background request may hope: its model serves, uncontested, or is coming (R17)."""
        inst = line.current
        if inst is None or self._book.closing:
            return False
        if inst.state is State.ready:
            return not self.is_contested(inst)
        return inst.state in LOADING or (inst.state in COMING and self._rules.is_wanted(line))

    def is_contested(self, inst: Instance) -> bool:
        """Whether somebody waits for room of which this instance holds a part."""
        return self._agenda.contested and bool(inst.devices)

    def answer_troubled(self, now: float) -> None:
        """Answer who asks for what has just failed from memory (R15)."""
        for line in self._book.lines.values():
            if not self._rules.is_barred(line, now) or not line.queue or self._book.ready(line):
                continue
            trouble = line.trouble
            deterministic = trouble.failure is not None and trouble.failure.deterministic
            retry = None if deterministic else trouble.barred_until - now
            self._acts.refuse_all(line, Reason.load_failed, retry, trouble.failure)
