from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router.core.tickets import Queue, Ticket
from llm_router.core.words import ModelName, TicketId


def a_ticket(number: int, priority: int = 0, *, background: bool = False) -> Ticket:
    return Ticket(TicketId(number), ModelName("a"), "", priority, background, float(number), inf, 0.0, number)


def test_foreground_then_priority_then_arrival() -> None:
    queue = Queue()
    for ticket in (
        a_ticket(1, background=True),
        a_ticket(2),
        a_ticket(3, 1),
        a_ticket(4),
        a_ticket(5, 9, background=True),
    ):
        queue.add(ticket)
    assert [ticket.id for ticket in queue] == [3, 2, 4, 5, 1]
    assert queue.oldest() == a_ticket(2)
    assert queue.oldest_background() == a_ticket(1, background=True)
    assert (queue.front, queue.back, len(queue), queue.priority()) == (3, 2, 5, 1)


def test_an_empty_queue_has_nobody() -> None:
    queue = Queue()
    assert queue.first() is None
    assert queue.oldest() is None
    assert queue.oldest_background() is None
    assert queue.priority() is None


def test_removing_who_does_not_wait_is_an_error() -> None:
    with pytest.raises(KeyError):
        Queue().remove(a_ticket(1))


@given(st.lists(st.tuples(st.integers(-2, 2), st.booleans()), max_size=40), st.data())
def test_a_queue_is_a_sorted_list(wishes: list[tuple[int, bool]], data: st.DataObject) -> None:
    queue, plain = Queue(), []
    for number, (priority, background) in enumerate(wishes):
        ticket = a_ticket(number, priority, background=background)
        queue.add(ticket)
        plain.append(ticket)
        if data.draw(st.booleans()):
            gone = data.draw(st.sampled_from(plain))
            plain.remove(gone)
            queue.remove(gone)
        plain.sort(key=lambda one: (one.background, -one.priority, one.number))
        assert list(queue) == plain
        assert queue.first() == (plain[0] if plain else None)
        assert [queue.place(one) for one in plain] == list(range(1, len(plain) + 1))
        front = [one for one in plain if not one.background]
        assert queue.oldest() == min(front, key=lambda one: one.number, default=None)
        assert queue.front == len(front)
