"""The state as values for those who only look: pages, ``/v1/models``, ``status``, metrics.

This file knows how to copy the book. What it gives out never changes again and refers to nothing inside.
"""

from dataclasses import dataclass

from llm_router.core.book import Book, Line
from llm_router.core.instance import Instance, State
from llm_router.core.notices import Notices
from llm_router.core.words import DeviceId, Failure, Footprint, InstanceId, ModelName


@dataclass(frozen=True, slots=True)
class InstanceView:
    """One living instance. Moments are the caller's clock, sizes bytes on each device (``None``: unknown)."""

    id: InstanceId
    model: ModelName
    state: State
    devices: tuple[DeviceId, ...]
    since: float
    leases: int
    taken: int | None
    phase: str | None = None
    percent: float | None = None
    left_s: float | None = None
    ready_at: float | None = None
    last_used: float | None = None
    why: str | None = None
    #: Seconds until it will leave if nobody asks for it, ``None`` if nothing is planned.
    leaves_in_s: float | None = None


@dataclass(frozen=True, slots=True)
class ModelView:
    """One configured model. ``state`` is its instance's, ``gone`` if it has none."""

    name: ModelName
    state: State
    instance: InstanceId | None
    waiting: int
    background: int
    leases: int
    pin: bool
    default: bool
    footprint: Footprint | None = None
    phase: str | None = None
    percent: float | None = None
    #: Seconds until a load under way is done, ``None`` if not known or none is under way.
    left_s: float | None = None
    #: The expected seconds of a load.
    load_s: float | None = None
    failure: Failure | None = None
    failures_in_a_row: int = 0
    #: Seconds until a start may be tried again; 0 if it may now.
    retry_in_s: float = 0.0
    #: The rest are refused at once with ``failure``.
    barred: bool = False
    waited_s: float = 0.0


@dataclass(frozen=True, slots=True)
class DeviceView:
    """One device: its size, what instances take of it, both in bytes, and whether lost memory blocks it."""

    id: DeviceId
    total: int
    taken: int
    dirty: bool
    instances: tuple[InstanceId, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything, at one moment."""

    now: float
    models: tuple[ModelView, ...]
    instances: tuple[InstanceView, ...]
    devices: tuple[DeviceView, ...]
    waiting: int
    leases: int
    closing: bool
    finished: bool

    def model(self, name: ModelName) -> ModelView | None:
        return next((model for model in self.models if model.name == name), None)

    def instance(self, instance: InstanceId) -> InstanceView | None:
        return next((one for one in self.instances if one.id == instance), None)


def photograph(book: Book, notices: Notices, now: float) -> Snapshot:
    """Copy what there is."""
    return Snapshot(
        now=now,
        models=tuple(_model(line, notices, now) for line in book.lines.values() if not line.removed),
        instances=tuple(_instance(book.line_of(inst), inst, now) for inst in book.instances.values()),
        devices=tuple(_device(book, device) for device in book.devices),
        waiting=len(book.waiting),
        leases=len(book.leases),
        closing=book.closing,
        finished=book.finished,
    )


def _model(line: Line, notices: Notices, now: float) -> ModelView:
    inst, trouble = line.current, line.trouble
    oldest = line.queue.oldest()
    loading = inst is not None and inst.state in (State.starting, State.checking, State.waking)
    return ModelView(
        name=line.name,
        state=inst.state if inst else State.gone,
        instance=inst.id if inst else None,
        waiting=line.queue.front,
        background=line.queue.back,
        leases=len(inst.leases) if inst else 0,
        pin=line.pin,
        default=line.model.default,
        footprint=line.footprint,
        phase=inst.phase if inst else None,
        percent=inst.percent if inst else None,
        left_s=notices.load_left_s(line, now) if loading else None,
        load_s=notices.expected_load_s(line),
        failure=trouble.failure,
        failures_in_a_row=trouble.in_a_row,
        retry_in_s=max(trouble.retry_at - now, 0.0),
        barred=trouble.barred_until > now,
        waited_s=max(now - oldest.arrived, 0.0) if oldest else 0.0,
    )


def _leaves_in(line: Line, inst: Instance, now: float) -> float | None:
    idle_s = line.model.idle_s if inst.keep_s is None else inst.keep_s
    if idle_s is None or inst.state is not State.ready or inst.busy or line.pin or line.model.default:
        return None
    return max(inst.last_used + idle_s - now, 0.0)


def _instance(line: Line, inst: Instance, now: float) -> InstanceView:
    proved = inst.ready_at > float("-inf")
    left = None if inst.left_s is None else max(inst.left_s - (now - inst.told_at), 0.0)
    return InstanceView(
        id=inst.id,
        model=inst.model,
        state=inst.state,
        devices=inst.devices,
        since=inst.since,
        leases=len(inst.leases),
        taken=inst.taken,
        phase=inst.phase,
        percent=inst.percent,
        left_s=left,
        ready_at=inst.ready_at if proved else None,
        last_used=inst.last_used if proved else None,
        why=inst.why.value if inst.why else None,
        leaves_in_s=_leaves_in(line, inst, now),
    )


def _device(book: Book, device: DeviceId) -> DeviceView:
    here = [inst for inst in book.instances.values() if device in inst.devices]
    return DeviceView(
        id=device,
        total=book.devices[device].total,
        taken=sum(inst.taken or 0 for inst in here),
        dirty=device in book.dirty,
        instances=tuple(inst.id for inst in here if inst.taken != 0),
    )
