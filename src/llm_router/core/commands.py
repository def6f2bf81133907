"""Everything the scheduler can ask for. Imperative; frozen; each performance ends as the event named here."""

from dataclasses import dataclass

from llm_router.core.words import DeviceId, EndReason, InstanceId, ModelName, Refusal, TicketId


@dataclass(frozen=True, slots=True)
class Check:
    """Check all that can be checked before anybody is stopped for this start. Ends as ``Checked``."""

    instance: InstanceId
    model: ModelName
    devices: tuple[DeviceId, ...]


@dataclass(frozen=True, slots=True)
class Start:
    """Start an engine. Ends as ``Started`` or ``StartFailed``."""

    instance: InstanceId
    model: ModelName
    devices: tuple[DeviceId, ...]


@dataclass(frozen=True, slots=True)
class Prove:
    """Ask the instance until it has made a token. Ends as ``Proved`` or ``StartFailed``."""

    instance: InstanceId


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop the instance and sweep what it left; ends as ``Gone``, always.

    ``polite``: nobody holds a lease, so it may take its grace. Otherwise it is killed at once.
    """

    instance: InstanceId
    polite: bool = True


@dataclass(frozen=True, slots=True)
class Park:
    """Put the engine to sleep and wait for its memory. Ends as ``Parked`` or ``ParkFailed``."""

    instance: InstanceId


@dataclass(frozen=True, slots=True)
class Wake:
    """Wake the parked engine and prove it. Ends as ``Woken`` or ``WakeFailed``."""

    instance: InstanceId


@dataclass(frozen=True, slots=True)
class Grant:
    """The ticket may use the instance, until its ``Released``."""

    ticket: TicketId
    instance: InstanceId


@dataclass(frozen=True, slots=True)
class Refuse:
    """The ticket will not be granted; it is forgotten."""

    ticket: TicketId
    refusal: Refusal


@dataclass(frozen=True, slots=True)
class End:
    """End a running answer: its client gets an error, never a clean-looking end. Ends as ``Released``."""

    ticket: TicketId
    reason: EndReason


@dataclass(frozen=True, slots=True)
class Tell:
    """There is news for those who wait for this model: each waiter's ``Scheduler.notice`` has changed."""

    model: ModelName


@dataclass(frozen=True, slots=True)
class Finish:
    """The shutdown is complete: nothing runs that should not, nobody waits."""


Command = Check | Start | Prove | Stop | Park | Wake | Grant | Refuse | End | Tell | Finish
