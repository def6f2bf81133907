from math import inf
from typing import Any

import pytest

from core.play import GPU0, model
from llm_router.core.book import Book, Line
from llm_router.core.instance import Instance, State, Why
from llm_router.core.rules import Rules
from llm_router.core.tickets import Lease, Ticket
from llm_router.core.words import InstanceId, ModelName, Outcome, Settings, TicketId

RULES = Rules()
A, A1 = ModelName("a"), InstanceId("a#1")


def an_instance(state: State, **more: object) -> Instance:
    return Instance(A1, A, "", (GPU0,), 12, 1, state, 0.0, taken=12, **more)  # type: ignore[arg-type]


def a_ticket(*, background: bool = False, quiet: float = 0.0) -> Ticket:
    return Ticket(TicketId(1), A, "", 0, background, 0.0, inf, quiet, 1)


def a_line(*tickets: Ticket, current: Instance | None = None, **more: object) -> Line:
    line = Line(model("a", **more), current=current)  # type: ignore[arg-type]
    for ticket in tickets:
        line.queue.add(ticket)
    return line


@pytest.mark.parametrize(
    ("state", "to_park", "promised"),
    [
        (State.planned, False, 12),
        (State.cleared, False, 12),
        (State.called, False, 12),
        (State.ready, False, 7),
        (State.draining, False, 0),
        (State.draining, True, 1),
        (State.parking, True, 1),
        (State.stopping, False, 0),
    ],
)
def test_what_is_promised_is_what_will_be(state: State, to_park: bool, promised: int) -> None:
    inst = an_instance(state, to_park=to_park)
    inst.taken = 7
    assert RULES.promised(inst) == promised
    assert RULES.holds(inst) == 7


def test_only_foreground_requests_want() -> None:
    assert RULES.is_wanted(a_line(a_ticket()))
    assert not RULES.is_wanted(a_line(a_ticket(background=True)))


@pytest.mark.parametrize("state", State)
def test_a_contender_has_nothing_on_its_way(state: State) -> None:
    assert RULES.is_contender(a_line(a_ticket(), current=an_instance(state))) == (state is State.parked)
    assert RULES.is_contender(a_line(a_ticket()))


@pytest.mark.parametrize("state", State)
def test_only_what_serves_or_sleeps_may_leave(state: State) -> None:
    inst = an_instance(state, served=True)
    assert RULES.may_leave(inst, a_line(current=inst)) == (state in (State.ready, State.parked))


def test_pinned_and_owed_instances_may_not_leave() -> None:
    inst = an_instance(State.ready)
    line = a_line(a_ticket(), current=inst)
    assert not RULES.may_leave(inst, line)
    inst.served = True
    assert RULES.may_leave(inst, line)
    line.pin = True
    assert not RULES.may_leave(inst, line)


@pytest.mark.parametrize(
    ("percent", "left", "expected", "now", "done"),
    [
        (50.0, 99.0, None, 0.0, True),
        (49.0, 99.0, None, 0.0, False),
        (None, 9.0, None, 4.0, True),
        (None, 9.0, None, 3.9, False),
        (None, None, None, 99.0, False),
        (None, None, 40.0, 20.0, True),
        (None, None, 40.0, 19.0, False),
        (None, None, 4.0, 0.0, True),
    ],
)
def test_half_done_or_cheap(
    percent: float | None, left: float | None, expected: float | None, now: float, done: bool
) -> None:
    inst = an_instance(State.checking, percent=percent, left_s=left)
    assert RULES.is_nearly_done(inst, 5.0, expected, now) == done
    assert RULES.is_nearly_done(an_instance(State.checking, adopted=True), 5.0, None, 0.0)


@pytest.mark.parametrize(("timeout", "at"), [(0.0, 65.0), (30.0, 40.0), (600.0, 65.0)])
def test_a_lease_is_overdue_by_silence_or_by_the_length_of_the_drain(timeout: float, at: float) -> None:
    book = Book()
    book.settings = Settings(stall_s=60.0, drain_timeout_s=timeout)
    inst = an_instance(State.draining, drain_since=10.0)
    lease = Lease(TicketId(1), A, A1, "", background=False, granted_at=0.0, moved_at=5.0)
    assert RULES.overdue_at(inst, lease, book) == at


def test_patience_with_priorities_is_half_of_the_longest_wait() -> None:
    book = Book()
    book.settings = Settings(max_wait_s=100.0)
    book.quiet = 50.0
    assert RULES.is_overdue(a_ticket(), book)
    assert not RULES.is_overdue(a_ticket(quiet=1.0), book)
    book.settings = Settings(max_wait_s=0.0)
    assert RULES.patience_with_priorities(book) == 300.0


def test_only_victims_that_still_drain_are_reprieved() -> None:
    assert RULES.may_be_reprieved(an_instance(State.draining, why=Why.evicted))
    assert not RULES.may_be_reprieved(an_instance(State.draining, why=Why.sick))
    assert not RULES.may_be_reprieved(an_instance(State.stopping, why=Why.evicted))


def test_every_released_lease_is_over() -> None:
    lease = Lease(TicketId(1), A, A1, "", background=False, granted_at=0.0, moved_at=0.0)
    assert all(RULES.is_over(lease, outcome) for outcome in Outcome)


@pytest.mark.parametrize(("wish", "errand"), [({"default": True}, True), ({"preload": True}, False), ({}, False)])
def test_errands_are_what_should_be_there_without_anybody_asking(wish: dict[str, Any], errand: bool) -> None:
    line = a_line(**wish)
    assert RULES.is_errand(line) == errand
    line.pin = True
    assert RULES.is_errand(line)
    line.dismissed = True
    assert not RULES.is_errand(line)
