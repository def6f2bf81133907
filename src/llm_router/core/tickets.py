"""Who waits for a model, in what order, and who holds a lease.

This file knows places in line. It does not know what a ticket waits for, nor when its turn comes. Every
operation on a queue costs no more than a search by halves, so that ten thousand waiting tickets are cheap.
"""

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterator

from msgspec import Struct

from llm_router.core.words import InstanceId, ModelName, TicketId


class Ticket(Struct, frozen=True):
    """One waiting request. ``expires`` is a moment, ``quiet`` the reading of the quiet clock at arrival."""

    id: TicketId
    model: ModelName
    caller: str
    #: The ticket's own class and its model's together.
    priority: int
    background: bool
    arrived: float
    expires: float
    quiet: float
    number: int
    keep_s: float | None = None


class Lease(Struct, eq=False):
    """A granted request's hold on an instance, until its last byte."""

    ticket: TicketId
    model: ModelName
    instance: InstanceId
    caller: str
    background: bool
    granted_at: float
    #: When bytes of its answer were last reported to move.
    moved_at: float
    #: The router has asked for its end; it is over when its ``Released`` comes.
    ending: bool = False


_Place = tuple[bool, int, int, Ticket]


def _place(ticket: Ticket) -> _Place:
    """The sort key; numbers are unique, so two tickets themselves are never compared."""
    return ticket.background, -ticket.priority, ticket.number, ticket


class Queue:
    """The line for one model: foreground before background, then priority, then arrival."""

    __slots__ = ("_back", "_front", "_places")

    def __init__(self) -> None:
        self._places: list[_Place] = []
        # By arrival. An OrderedDict gives its oldest key in constant time however many were removed before it.
        self._front: OrderedDict[TicketId, Ticket] = OrderedDict()
        self._back: OrderedDict[TicketId, Ticket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Ticket]:
        return (place[3] for place in self._places)

    @property
    def front(self) -> int:
        """How many foreground tickets wait."""
        return len(self._front)

    @property
    def back(self) -> int:
        """How many background tickets wait."""
        return len(self._back)

    def add(self, ticket: Ticket) -> None:
        insort(self._places, _place(ticket))
        (self._back if ticket.background else self._front)[ticket.id] = ticket

    def remove(self, ticket: Ticket) -> None:
        """Take a waiting ticket out. Raises ``KeyError`` if it does not wait here."""
        del (self._back if ticket.background else self._front)[ticket.id]
        del self._places[bisect_left(self._places, _place(ticket))]

    def place(self, ticket: Ticket) -> int:
        """1 for the first in line."""
        return bisect_left(self._places, _place(ticket)) + 1

    def first(self) -> Ticket | None:
        """Who is at the head, background only if no foreground ticket waits."""
        return self._places[0][3] if self._places else None

    def oldest(self) -> Ticket | None:
        """The foreground ticket that waits longest."""
        return next(iter(self._front.values())) if self._front else None

    def oldest_background(self) -> Ticket | None:
        return next(iter(self._back.values())) if self._back else None

    def priority(self) -> int | None:
        """The highest priority of a foreground ticket, ``None`` if none waits."""
        return self._places[0][3].priority if self._front else None
