"""Everything that can happen, as the scheduler is told it. Past tense; frozen; nothing else goes in."""

from dataclasses import dataclass

from llm_router.core.words import (
    Device,
    DeviceId,
    Failure,
    Footprint,
    InstanceId,
    Model,
    ModelName,
    Outcome,
    Settings,
    TicketId,
)


@dataclass(frozen=True, slots=True)
class Configured:
    """A configuration is in force (the first one, or a reload). Unchanged models keep running."""

    models: tuple[Model, ...]
    devices: tuple[Device, ...]
    settings: Settings = Settings()


@dataclass(frozen=True, slots=True)
class Arrived:
    """A request asks for a model. ``patience_s`` ``None``: as long as the settings allow.

    ``keep_s`` is a wish: how long the model stays, if nobody needs its room, after this request instead of its own
    idle time.
    """

    ticket: TicketId
    model: ModelName
    caller: str = ""
    priority: int = 0
    background: bool = False
    patience_s: float | None = None
    keep_s: float | None = None


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The client of a waiting ticket left."""

    ticket: TicketId


@dataclass(frozen=True, slots=True)
class Progressed:
    """Bytes of these leases' answers moved since the last report: all that moved, in one event.

    Told one by one, the first report would let the others be judged by what was known before.
    """

    ticket: TicketId
    others: tuple[TicketId, ...] = ()


@dataclass(frozen=True, slots=True)
class Released:
    """A lease ended, by whatever road: exactly one for each grant."""

    ticket: TicketId
    outcome: Outcome = Outcome.done


@dataclass(frozen=True, slots=True)
class Checked:
    """The pre-checks of a start are done (R14); ``failure`` ``None`` means that it may be tried."""

    instance: InstanceId
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """The process of the instance lives; it has not answered yet."""

    instance: InstanceId


@dataclass(frozen=True, slots=True)
class LoadProgressed:
    """News of a start or a wake: a phase in words, 0-100 %, and the seconds that are probably left."""

    instance: InstanceId
    phase: str
    percent: float | None = None
    left_s: float | None = None


@dataclass(frozen=True, slots=True)
class Proved:
    """The instance made a token as the right model: it may be granted. ``measured`` is what it takes."""

    instance: InstanceId
    measured: Footprint | None = None


@dataclass(frozen=True, slots=True)
class StartFailed:
    """The start (or its proof) failed. The process may still live: it must be stopped."""

    instance: InstanceId
    failure: Failure


@dataclass(frozen=True, slots=True)
class Exited:
    """The engine's main process ended without being asked. What it left behind is not swept yet."""

    instance: InstanceId
    failure: Failure


@dataclass(frozen=True, slots=True)
class Gone:
    """The instance is truly gone: no process, port refused, memory back except on the ``dirty`` devices."""

    instance: InstanceId
    dirty: frozenset[DeviceId] = frozenset()


@dataclass(frozen=True, slots=True)
class Cleaned:
    """The memory of a dirty device is back."""

    device: DeviceId


@dataclass(frozen=True, slots=True)
class Parked:
    """The engine sleeps: its memory is freed, its process lives."""

    instance: InstanceId


@dataclass(frozen=True, slots=True)
class ParkFailed:
    """The engine would not sleep."""

    instance: InstanceId


@dataclass(frozen=True, slots=True)
class Woken:
    """The parked engine is awake and made a token."""

    instance: InstanceId


@dataclass(frozen=True, slots=True)
class WakeFailed:
    """The parked engine would not wake."""

    instance: InstanceId
    failure: Failure


@dataclass(frozen=True, slots=True)
class Sickened:
    """The instance answers its health check but fails its requests (R27): drain it and start another."""

    instance: InstanceId
    failure: Failure


@dataclass(frozen=True, slots=True)
class Adopted:
    """A running engine of an earlier router was found; it takes part once it is proved."""

    instance: InstanceId
    model: ModelName
    devices: tuple[DeviceId, ...]


@dataclass(frozen=True, slots=True)
class UnloadAsked:
    """An operator wants the model out of memory: drained, then stopped."""

    model: ModelName


@dataclass(frozen=True, slots=True)
class PinAsked:
    """An operator pins or unpins the model until the next reload."""

    model: ModelName
    pin: bool


@dataclass(frozen=True, slots=True)
class ForgiveAsked:
    """An operator wants the remembered failures of the model forgotten: the next request tries again."""

    model: ModelName


@dataclass(frozen=True, slots=True)
class ShutdownAsked:
    """The router ends. No new grants; leases finish; engines are stopped unless they are to be kept."""

    keep_engines: bool = False


@dataclass(frozen=True, slots=True)
class Ticked:
    """The deadline came."""


Event = (
    Configured
    | Arrived
    | Withdrawn
    | Progressed
    | Released
    | Checked
    | Started
    | LoadProgressed
    | Proved
    | StartFailed
    | Exited
    | Gone
    | Cleaned
    | Parked
    | ParkFailed
    | Woken
    | WakeFailed
    | Sickened
    | Adopted
    | UnloadAsked
    | PinAsked
    | ForgiveAsked
    | ShutdownAsked
    | Ticked
)
