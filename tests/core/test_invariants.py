"""Each invariant can fail: a good book is spoiled in one way, and one sentence says in which."""

from collections.abc import Callable
from re import search

import pytest

from core.play import GPU0, Play, model
from llm_router.core.book import Book
from llm_router.core.instance import Instance, State
from llm_router.core.invariants import violations
from llm_router.core.words import InstanceId, ModelName, TicketId

A1, B2 = InstanceId("a#1"), InstanceId("b#2")


def a_book() -> Book:
    """Alpha answers ticket 1, ticket 2 waits for beta, whose plan is made but whose turn has not come."""
    play = Play(model("a", 12, concurrency=1), model("b", 12))
    play.ask(1, "a")
    play.load("a#1")
    play.ask(2, "b")
    return play.scheduler.book


def test_a_good_book_is_good() -> None:
    assert violations(a_book(), 30.0) == []


def _spoil_both(book: Book) -> None:
    book.waiting[TicketId(1)] = book.waiting[TicketId(2)]


def _spoil_queue(book: Book) -> None:
    book.lines[ModelName("b")].queue.remove(book.waiting[TicketId(2)])


def _spoil_lease(book: Book) -> None:
    book.instances[A1].leases.clear()


def _spoil_closing(book: Book) -> None:
    book.closing = True


def _spoil_line(book: Book) -> None:
    del book.lines[ModelName("a")]


def _spoil_current(book: Book) -> None:
    book.lines[ModelName("a")].current = None


def _spoil_state(book: Book) -> None:
    book.instances[A1].state = State.checking


def _spoil_busy(book: Book) -> None:
    book.instances[A1].busy = 7


def _spoil_gone(book: Book) -> None:
    inst = book.instances.pop(A1)
    book.leases.clear()
    book.lines[ModelName("a")].current = inst


def _spoil_loading(book: Book) -> None:
    book.instances[A1].state = State.starting
    book.instances[A1].leases.clear()
    book.instances[A1].busy = 0
    book.leases.clear()
    book.instances[B2] = Instance(B2, ModelName("b"), "", (GPU0,), 1, None, State.checking, 0.0)
    book.lines[ModelName("b")].current = book.instances[B2]


def _spoil_promise(book: Book) -> None:
    _spoil_loading(book)
    book.instances[B2].state = State.cleared
    book.instances[B2].size = 12 * 2**30


def _spoil_cancelled(book: Book) -> None:
    book.instances[B2] = Instance(B2, ModelName("b"), "", (GPU0,), 1, None, State.cleared, 0.0)
    book.lines[ModelName("b")].current = book.instances[B2]
    book.lines[ModelName("b")].queue.remove(book.waiting.pop(TicketId(2)))


def _spoil_drain(book: Book) -> None:
    inst = book.instances[A1]
    inst.state, inst.drain_since, book.now = State.draining, 0.0, 1e6


def _spoil_limit(book: Book) -> None:
    book.instances[A1].leases[99] = book.instances[A1].leases[1]
    book.instances[A1].busy = 2


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_spoil_both, r"tickets \[1\] both wait and hold a lease"),
        (_spoil_queue, "0 tickets stand in line, but 1 wait"),
        (_spoil_lease, "lease 1 is not known"),
        (_spoil_closing, "wait though the router is closing"),
        (_spoil_line, "has no line"),
        (_spoil_current, "is not the current instance"),
        (_spoil_state, "holds leases"),
        (_spoil_busy, "counts 7 busy leases"),
        (_spoil_gone, "has an instance that is gone"),
        (_spoil_loading, "load at once on the same device"),
        (_spoil_promise, "is promised twice"),
        (_spoil_cancelled, "keeps its room though nobody waits"),
        (_spoil_drain, "drains without limit"),
        (_spoil_limit, "serves more than 1"),
    ],
)
def test_a_spoilt_book_is_found_out(spoil: Callable[[Book], None], says: str) -> None:
    book = a_book()
    spoil(book)
    assert search(says, "; ".join(violations(book, 30.0)))


def test_who_waits_while_nothing_moves_is_found_out() -> None:
    book = a_book()
    _spoil_drainless(book)
    assert "nothing moves and no deadline is set" in "; ".join(violations(book, None))


def _spoil_drainless(book: Book) -> None:
    inst = book.instances[A1]
    inst.leases.clear()
    book.leases.clear()
    inst.busy = 0
