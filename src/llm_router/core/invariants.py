"""What holds after every step, as code (R10-R19). Tests run it; the running router need not.

This file knows what must never be seen in the book. What must never be done shows only in the commands, and
what must happen at last shows only over time: the simulated worlds watch those.
"""

from collections.abc import Iterator
from math import inf

from llm_router.core.book import Book
from llm_router.core.instance import COMING, FREEING, LOADING, Instance, State
from llm_router.core.room import Holding, Room, Want

_SERVING = frozenset({State.ready, State.draining, State.stopping})


def violations(book: Book, due: float | None) -> list[str]:
    """One sentence for each thing that is wrong; empty if all is well.

    ``due`` is the scheduler's deadline.
    """
    return [
        *_people(book),
        *_engines(book),
        *_memory(book),
        *_promises(book),
        *_drains(book),
        *_movement(book, due),
    ]


def _people(book: Book) -> Iterator[str]:
    both = book.waiting.keys() & book.leases.keys()
    if both:
        yield f"tickets {sorted(both)} both wait and hold a lease"
    queued = sum(len(line.queue) for line in book.lines.values())
    if queued != len(book.waiting):
        yield f"{queued} tickets stand in line, but {len(book.waiting)} wait"
    for lease in book.leases.values():
        inst = book.instances.get(lease.instance)
        if inst is not None and lease.ticket not in inst.leases:
            yield f"lease {lease.ticket} is not known to its {inst!r}"
    if book.closing and book.waiting:
        yield f"{len(book.waiting)} tickets wait though the router is closing"


def _engines(book: Book) -> Iterator[str]:
    for inst in book.instances.values():
        line = book.lines.get(inst.model)
        if line is None:
            yield f"{inst!r} has no line"
            continue
        if line.current is not inst and inst.state is not State.stopping:
            yield f"{inst!r} is not the current instance of its model, {line.current!r} is"
        if inst.leases and inst.state not in _SERVING:
            yield f"{inst!r} holds leases {sorted(inst.leases)}"
        if inst.busy != sum(not lease.background for lease in inst.leases.values()):
            yield f"{inst!r} counts {inst.busy} busy leases, but holds {inst.leases}"
        limit = line.model.concurrency
        if limit is not None and len(inst.leases) > limit and inst.revision == line.model.revision:
            yield f"{inst!r} serves more than {limit}"
    for line in book.lines.values():
        if line.current is not None and line.current.id not in book.instances:
            yield f"{line!r} has an instance that is gone"


def _memory(book: Book) -> Iterator[str]:
    instances = list(book.instances.values())
    for index, one in enumerate(instances):
        for other in instances[index + 1 :]:
            if set(one.devices).isdisjoint(other.devices):
                continue
            working = [inst for inst in (one, other) if inst.state in LOADING]
            if len(working) == 2:
                yield f"{one!r} and {other!r} load at once on the same device"


def _drains(book: Book) -> Iterator[str]:
    """No drain lasts longer than its limits allow (R10)."""
    settings = book.settings
    for inst in book.instances.values():
        for lease in inst.leases.values() if inst.state is State.draining else ():
            limit = inst.drain_since + settings.drain_timeout_s if settings.drain_timeout_s else inf
            if not lease.ending and book.now > min(limit, lease.moved_at + settings.stall_s) + 0.001:
                yield f"{inst!r} drains without limit: {lease!r} should have been ended"


def _promises(book: Book) -> Iterator[str]:
    """Room is promised to who is wanted, and no room is promised twice."""
    coming = [inst for inst in book.instances.values() if inst.state in COMING or inst.state in LOADING]
    for inst in coming:
        if inst.state not in COMING:
            continue
        line = book.lines[inst.model]
        if not (line.queue.front or line.pin or line.preload_due or line.model.default):
            yield f"{inst!r} keeps its room though nobody waits for it"
        held = [Holding(other.devices, other.size) for other in coming if other is not inst]
        clean = Room(book.devices.values(), (), book.room.margin)
        if clean.fit(Want(inst.devices, inst.size), held) is None and not _outgrown(book, coming):
            yield f"the room of {inst!r} is promised twice: {coming}"


def _outgrown(book: Book, coming: list[Instance]) -> bool:
    """A device was reconfigured away or an adopted engine sits where it was not put: then promises may clash."""
    return any(inst.adopted or not set(inst.devices) <= book.devices.keys() for inst in coming)


def _movement(book: Book, due: float | None) -> Iterator[str]:
    """While tickets wait something moves, or a deadline is set; and each that is under way is wanted."""
    front = [line for line in book.lines.values() if line.queue.front]
    if not front or due is not None or book.dirty:
        return
    for line in front:
        if not _moves(book, line.current):
            yield f"{line!r} waits, nothing moves and no deadline is set"


def _moves(book: Book, current: Instance | None) -> bool:
    """Whether an answer of the host or the end of a lease is still to come that matters here."""
    if current is not None and current.state is State.ready:
        return bool(current.leases) or any(inst.state in COMING for inst in book.instances.values())
    return any(
        inst.state in LOADING or inst.state in FREEING or inst.state is State.planned or inst.leases
        for inst in book.instances.values()
    )
