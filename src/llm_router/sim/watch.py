"""What must never be seen from outside, whatever the scheduler thinks: the safety of the simulated worlds.

This file knows the truth of the pretend host: what runs, what it takes, who was answered. It believes no
word of the scheduler's own state but the invariants over it, which it asks after each step.
"""

from collections import Counter
from dataclasses import dataclass, field
from math import inf
from typing import Protocol

from llm_router.core.commands import Check, Command, End, Grant, Park, Refuse, Start, Stop, Wake
from llm_router.core.events import (
    Arrived,
    Checked,
    Cleaned,
    Configured,
    Event,
    Exited,
    ForgiveAsked,
    Gone,
    Parked,
    PinAsked,
    Progressed,
    Proved,
    Released,
    ShutdownAsked,
    Sickened,
    StartFailed,
    Ticked,
    UnloadAsked,
    WakeFailed,
    Withdrawn,
    Woken,
)
from llm_router.core.invariants import violations
from llm_router.core.scheduler import Scheduler
from llm_router.core.words import DeviceId, Failure, InstanceId, Model, ModelName, Settings, TicketId

_EPS = 1e-3


class Timed(Protocol):
    """Whoever knows what time it is."""

    @property
    def now(self) -> float: ...


class Wrong(AssertionError):  # noqa: N818  (it reads as what it says)
    """The scheduler did what it must never do; the text ends with the last things that happened."""


@dataclass(slots=True)
class _Truth:
    """One instance as the host sees it."""

    model: ModelName
    devices: tuple[DeviceId, ...]
    runs: bool = False
    loading: bool = False
    freeing: bool = False
    proved: bool = False
    asleep: bool = False
    ready_at: float = inf
    #: Its model's foreground tickets that waited when it became ready; nobody of them was granted since.
    owed: set[TicketId] = field(default_factory=set)
    failed: bool = False
    revision: str = ""


@dataclass(slots=True)
class _Wait:
    model: ModelName
    priority: int
    background: bool
    arrived: float


class Lookout:
    """Raises ``Wrong`` at the first thing that must not be. ``sizes`` are what engines really take."""

    def __init__(self, sizes: dict[ModelName, int], scheduler: Scheduler | None = None) -> None:
        self._sizes = sizes
        self._scheduler = scheduler
        self._models: dict[ModelName, Model] = {}
        self._totals: dict[DeviceId, int] = {}
        self._settings = Settings()
        self._dirty: set[DeviceId] = set()
        self._truths: dict[InstanceId, _Truth] = {}
        self._waits: dict[TicketId, _Wait] = {}
        self._held: dict[TicketId, InstanceId] = {}
        self._moved: dict[TicketId, float] = {}
        self._failures: Counter[ModelName] = Counter()
        self._no_start_before: dict[ModelName, float] = {}
        self._free_hand: set[ModelName] = set()
        self._learnt: set[ModelName] = set()
        self._pins: set[ModelName] = set()
        self._closing = False
        self.starts: Counter[ModelName] = Counter()
        self.lines: list[str] = []

    # What happened

    def happened(self, event: Event, world: Timed) -> None:
        self._write(world, f"> {event}")
        match event:
            case Arrived(ticket, model, _, priority, background):
                base = self._models[model].priority if model in self._models else 0
                self._waits[ticket] = _Wait(model, base + priority, background, world.now)
            case Withdrawn(ticket):
                self._waits.pop(ticket, None)
            case Released(ticket):
                self._released(ticket)
            case Progressed(first, others):
                self._moved.update(dict.fromkeys((first, *others), world.now))
            case Configured(models, devices, settings):
                self._models = {model.name: model for model in models}
                self._totals = {device.id: device.total for device in devices}
                self._settings = settings
                self._pins = {model.name for model in models if model.pin}
                self._forgive()
            case Cleaned(device):
                self._dirty.discard(device)
            case UnloadAsked(model) | PinAsked(model) | ForgiveAsked(model):
                if isinstance(event, PinAsked):
                    (self._pins.add if event.pin else self._pins.discard)(model)
                self._no_start_before.pop(model, None)
                self._failures[model] = 0
                self._free_hand.add(model)
            case ShutdownAsked():
                self._closing = True
            case Ticked():
                pass
            case _:
                truth = self._truths.get(event.instance)
                if truth is not None:
                    self._instance(event, event.instance, truth, world)

    def _released(self, ticket: TicketId) -> None:
        instance = self._held.pop(ticket, None)
        truth = self._truths.get(instance) if instance else None
        known = self._models.get(truth.model) if truth else None
        if truth is not None and not truth.failed and known is not None and known.revision == truth.revision:
            self._no_start_before.pop(truth.model, None)
            self._failures[truth.model] = 0

    def _forgive(self) -> None:
        self._no_start_before.clear()
        self._failures.clear()
        self._free_hand.update(self._models)

    def _instance(self, event: Event, instance: InstanceId, truth: _Truth, world: Timed) -> None:
        match event:
            case Checked(_, failure) if failure is not None and self._counts(instance):
                self._failed(truth, failure, world)
            case Proved() | Woken():
                truth.proved = not truth.freeing
                truth.loading = truth.asleep = False
                truth.ready_at = world.now
                if isinstance(event, Proved) and event.measured:
                    self._learnt.add(truth.model)
                truth.owed = {t for t, wait in self._waits.items() if wait.model == truth.model and not wait.background}
            case Sickened(_, failure) if truth.proved:
                self._failed(truth, failure, world)
            case StartFailed(_, failure) | WakeFailed(_, failure) | Exited(_, failure):
                if not truth.freeing and not truth.failed:
                    self._failed(truth, failure, world)
            case Parked():
                truth.freeing = truth.proved = False
                truth.asleep = True
            case Gone(_, dirty):
                self._dirty |= dirty
                del self._truths[instance]

    def _counts(self, instance: InstanceId) -> bool:
        """A plan may be dropped without a word; then the answer to its check means nothing."""
        return self._scheduler is None or instance in self._scheduler.book.instances

    def _failed(self, truth: _Truth, failure: Failure, world: Timed) -> None:
        truth.failed, truth.proved = True, False
        known = self._models.get(truth.model)
        if (truth.asleep and not truth.loading) or known is None or known.revision != truth.revision:
            return
        model, settings = truth.model, self._settings
        self._failures[model] += 1
        pause = min(settings.backoff_s * 2.0 ** (self._failures[model] - 1), settings.cooldown_s)
        if failure.deterministic:
            pause = settings.cooldown_s
        self._no_start_before[model] = max(world.now + pause, self._no_start_before.get(model, 0.0))

    # What is asked for

    def asked(self, command: Command, world: Timed) -> None:
        self._write(world, f"< {command}")
        match command:
            case Check(instance, model, devices):
                revision = self._models[model].revision if model in self._models else ""
                self._truths[instance] = _Truth(model, devices, revision=revision)
                self._must_be_wanted(model, world)
                self._must_have_rested(model, world)
            case Start(instance, model, devices):
                self.starts[model] += 1
                self._free_hand.discard(model)
                self._must_be_wanted(model, world)
                self._begin(instance, world)
            case Wake(instance):
                self._must_have_rested(self._truths[instance].model, world)
                self._begin(instance, world)
            case Grant(ticket, instance):
                self._granted(ticket, instance, world)
            case Refuse(ticket):
                if ticket in self._held:
                    self._cry(world, f"ticket {ticket} is refused while it holds {self._held[ticket]}")
                self._waits.pop(ticket, None)
            case Stop(instance, polite):
                self._leaves(instance, world, polite=polite)
            case Park(instance):
                self._leaves(instance, world, polite=True)
            case End(ticket):
                self._ended(ticket, world)

    def _must_be_wanted(self, model: ModelName, world: Timed) -> None:
        known = self._models.get(model)
        if known is None:
            self._cry(world, f"{model} is started though it is not configured")
            return
        front = any(wait.model == model and not wait.background for wait in self._waits.values())
        if not (front or model in self._pins or known.preload or known.default):
            self._cry(world, f"{model} is started though nobody but background requests waits for it")

    def _must_have_rested(self, model: ModelName, world: Timed) -> None:
        earliest = self._no_start_before.get(model, 0.0)
        if world.now < earliest - _EPS:
            self._cry(world, f"{model} is started again {earliest - world.now:g} s before its pause is over")

    def _begin(self, instance: InstanceId, world: Timed) -> None:
        truth = self._truths[instance]
        if truth.freeing or (truth.runs and not truth.asleep):
            self._cry(world, f"{instance} is started twice")
        truth.runs = truth.loading = True
        for other_id, other in self._truths.items():
            shared = other_id != instance and not set(other.devices).isdisjoint(truth.devices)
            if shared and other.runs and (other.loading or other.freeing):
                self._cry(world, f"{instance} is started while {other_id} is loaded or stopped on its device")
        self._must_fit(instance, truth, world)

    def _must_fit(self, instance: InstanceId, truth: _Truth, world: Timed) -> None:
        for device in truth.devices:
            if device in self._dirty:
                self._cry(world, f"{instance} is started on {device}, whose memory is not back")
            taken = {
                other_id: self._takes(other)
                for other_id, other in self._truths.items()
                if device in other.devices and other.runs
            }
            if sum(taken.values()) > self._totals.get(device, inf):
                self._cry(world, f"{device} holds {taken}, more than its {self._totals[device]}")

    def _takes(self, truth: _Truth) -> int:
        footprint = self._models[truth.model].needs.footprint if truth.model in self._models else None
        if truth.asleep and not truth.loading:
            return footprint.parked if footprint else 0
        return self._sizes[truth.model]

    def _granted(self, ticket: TicketId, instance: InstanceId, world: Timed) -> None:
        wait = self._waits.pop(ticket, None)
        truth = self._truths.get(instance)
        if wait is None:
            self._cry(world, f"ticket {ticket} is granted though it does not wait")
            return
        if truth is None or not truth.proved or truth.model != wait.model:
            self._cry(world, f"ticket {ticket} for {wait.model} is granted on {instance}: {truth}")
            return
        if self._closing:
            self._cry(world, f"ticket {ticket} is granted while the router closes")
        truth.owed.clear()
        self._held[ticket] = instance
        self._moved[ticket] = world.now
        if not wait.background:
            self._must_be_its_turn(wait, truth, world)

    def _must_be_its_turn(self, granted: _Wait, truth: _Truth, world: Timed) -> None:
        """R11: who has waited longer than the longest quantum for room that this instance holds comes first."""
        if any(wait.priority != granted.priority for wait in self._waits.values()):
            return
        for ticket, wait in self._waits.items():
            model = self._models.get(wait.model)
            if wait.background or wait.model == truth.model or model is None:
                continue
            if self._no_start_before.get(wait.model, 0.0) > 0.0 or self._dirty or not truth.devices:
                continue
            if any(other.model == wait.model or other.loading or other.freeing for other in self._running(truth)):
                continue
            alone = model.needs.footprint is None and self._is_alone(truth)
            waited = world.now - max(wait.arrived, truth.ready_at)
            # Once its quantum is over the plan is made; its check takes its time, but grants have ended.
            if alone and model.needs.devices != 0 and waited > self._settings.quantum_max_s + _EPS:
                self._cry(world, f"ticket {ticket} for {wait.model} has waited {waited:g} s, and others are granted")

    def _is_alone(self, truth: _Truth) -> bool:
        known = self._models.get(truth.model)
        return known is not None and known.needs.footprint is None and truth.model not in self._learnt

    def _running(self, besides: _Truth) -> list[_Truth]:
        return [truth for truth in self._truths.values() if truth.runs and truth is not besides]

    def _leaves(self, instance: InstanceId, world: Timed, *, polite: bool) -> None:
        truth = self._truths.get(instance)
        if truth is None:
            return
        held = [ticket for ticket, other in self._held.items() if other == instance]
        if polite and held:
            self._cry(world, f"{instance} is stopped politely while {held} are being answered")
        at_will = self._closing or truth.failed or truth.model in self._free_hand
        waiting = {t for t, wait in self._waits.items() if wait.model == truth.model and not wait.background}
        if not at_will and truth.loading and not truth.proved and waiting:
            self._cry(world, f"{instance} is stopped while it loads for {sorted(waiting)}")
        if not at_will and truth.proved and truth.owed & self._waits.keys():
            self._cry(world, f"{instance} leaves before {sorted(truth.owed)}, for whom it came, were granted")
        truth.proved = truth.loading = False
        truth.freeing = True

    def _ended(self, ticket: TicketId, world: Timed) -> None:
        silent = world.now - self._moved.get(ticket, world.now)
        limits = [self._settings.stall_s, self._settings.drain_timeout_s or inf]
        if silent < min(limits) - _EPS and world.now < min(limits):
            self._cry(world, f"ticket {ticket} is ended after {silent:g} s of silence")

    def settled(self, world: Timed) -> None:
        if self._scheduler is None:
            return
        book = self._scheduler.book
        wrong = violations(book, self._scheduler.deadline())
        if wrong:
            self._cry(world, "; ".join(wrong))
        if len(book.leases) != len(self._held):
            self._cry(world, f"the book knows {len(book.leases)} leases, the host {len(self._held)}")
        if len(book.waiting) != len(self._waits):
            self._cry(world, f"the book knows {len(book.waiting)} waiting tickets, the host {len(self._waits)}")

    # Telling

    def _write(self, world: Timed, text: str) -> None:
        self.lines.append(f"{world.now:10.3f} {text}")
        if len(self.lines) > 400:
            del self.lines[:200]

    def _cry(self, world: Timed, what: str) -> None:
        story = "\n".join(self.lines[-60:])
        raise Wrong(f"at {world.now:g}: {what}\n{story}")
