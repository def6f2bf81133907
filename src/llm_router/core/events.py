"""Everything that can happen, as the scheduler is told it. Past tense; frozen; nothing else goes in."""

from msgspec import Struct

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


class _Happened(Struct, frozen=True, omit_defaults=True, tag_field="event"):
    """What all events have: a journal writes only what says more than a default does."""


class Configured(_Happened, frozen=True):
    """A configuration is in force (the first one, or a reload). Unchanged models keep running.

    ``serial`` comes with the first one of a run, ``None`` with a reload: the highest number that an instance of an
    earlier run has had, so that ids are never used again.
    """

    models: tuple[Model, ...]
    devices: tuple[Device, ...]
    settings: Settings = Settings()
    serial: int | None = None


class Arrived(_Happened, frozen=True):
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


class Withdrawn(_Happened, frozen=True):
    """The client of a waiting ticket left."""

    ticket: TicketId


class Progressed(_Happened, frozen=True):
    """Bytes of these leases' answers moved since the last report, or their engine was seen to work on them: all in one event.

    Told one by one, the first report would let the others be judged by what was known before.
    """

    ticket: TicketId
    others: tuple[TicketId, ...] = ()


class Released(_Happened, frozen=True):
    """A lease ended, by whatever road: exactly one for each grant."""

    ticket: TicketId
    outcome: Outcome = Outcome.done


class Checked(_Happened, frozen=True):
    """The pre-checks of a start are done (R14); ``failure`` ``None`` means that it may be tried."""

    instance: InstanceId
    failure: Failure | None = None


class Started(_Happened, frozen=True):
    """The process of the instance lives; it has not answered yet."""

    instance: InstanceId


class LoadProgressed(_Happened, frozen=True):
    """News of a start or a wake: a phase in words, 0-100 %, and the seconds that are probably left."""

    instance: InstanceId
    phase: str
    percent: float | None = None
    left_s: float | None = None


class Proved(_Happened, frozen=True):
    """The instance made a token as the right model: it may be granted. ``measured`` is what it takes."""

    instance: InstanceId
    measured: Footprint | None = None


class StartFailed(_Happened, frozen=True):
    """The start (or its proof) failed. The process may still live: it must be stopped."""

    instance: InstanceId
    failure: Failure


class Exited(_Happened, frozen=True):
    """The engine's main process ended without being asked. What it left behind is not swept yet."""

    instance: InstanceId
    failure: Failure


class Gone(_Happened, frozen=True):
    """The instance is truly gone: no process, port refused, memory back except on the ``dirty`` devices."""

    instance: InstanceId
    dirty: frozenset[DeviceId] = frozenset()


class Cleaned(_Happened, frozen=True):
    """The memory of a dirty device is back."""

    device: DeviceId


class Parked(_Happened, frozen=True):
    """The engine sleeps: its memory is freed, its process lives."""

    instance: InstanceId


class ParkFailed(_Happened, frozen=True):
    """The engine would not sleep."""

    instance: InstanceId


class Woken(_Happened, frozen=True):
    """The parked engine is awake and made a token."""

    instance: InstanceId


class WakeFailed(_Happened, frozen=True):
    """The parked engine would not wake."""

    instance: InstanceId
    failure: Failure


class Sickened(_Happened, frozen=True):
    """The instance answers its health check but fails its requests (R27): drain it and start another."""

    instance: InstanceId
    failure: Failure


class Adopted(_Happened, frozen=True):
    """A running engine of an earlier router was found; it takes part once it is proved."""

    instance: InstanceId
    model: ModelName
    devices: tuple[DeviceId, ...]


class UnloadAsked(_Happened, frozen=True):
    """An operator wants the model out of memory: drained, then stopped."""

    model: ModelName


class PinAsked(_Happened, frozen=True):
    """An operator pins or unpins the model until the next reload."""

    model: ModelName
    pin: bool


class ForgiveAsked(_Happened, frozen=True):
    """An operator wants the remembered failures of the model forgotten: the next request tries again."""

    model: ModelName


class ShutdownAsked(_Happened, frozen=True):
    """The router ends. No new grants; leases finish; engines are stopped unless they are to be kept."""

    keep_engines: bool = False


class Ticked(_Happened, frozen=True):
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
