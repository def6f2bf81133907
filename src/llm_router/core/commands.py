"""Everything the scheduler can ask for. Imperative; frozen; each performance ends as the event named here."""

from msgspec import Struct

from llm_router.core.words import DeviceId, EndReason, InstanceId, ModelName, Refusal, TicketId


class _Asked(Struct, frozen=True, omit_defaults=True, tag_field="command"):
    """What all commands have: a journal writes only what says more than a default does."""


class Check(_Asked, frozen=True):
    """Check all that can be checked before anybody is stopped for this start. Ends as ``Checked``."""

    instance: InstanceId
    model: ModelName
    devices: tuple[DeviceId, ...]


class Start(_Asked, frozen=True):
    """Start an engine. Ends as ``Started`` or ``StartFailed``."""

    instance: InstanceId
    model: ModelName
    devices: tuple[DeviceId, ...]


class Prove(_Asked, frozen=True):
    """Ask the instance until it has made a token. Ends as ``Proved`` or ``StartFailed``."""

    instance: InstanceId


class Stop(_Asked, frozen=True):
    """Stop the instance and sweep what it left; ends as ``Gone``, always.

    ``polite``: nobody holds a lease, so it may take its grace. Otherwise it is killed at once.
    """

    instance: InstanceId
    polite: bool = True


class Park(_Asked, frozen=True):
    """Put the engine to sleep and wait for its memory. Ends as ``Parked`` or ``ParkFailed``."""

    instance: InstanceId


class Wake(_Asked, frozen=True):
    """Wake the parked engine and prove it. Ends as ``Woken`` or ``WakeFailed``."""

    instance: InstanceId


class Grant(_Asked, frozen=True):
    """The ticket may use the instance, until its ``Released``."""

    ticket: TicketId
    instance: InstanceId


class Refuse(_Asked, frozen=True):
    """The ticket will not be granted; it is forgotten."""

    ticket: TicketId
    refusal: Refusal


class End(_Asked, frozen=True):
    """End a running answer: its client gets an error, never a clean-looking end. Ends as ``Released``."""

    ticket: TicketId
    reason: EndReason


class Tell(_Asked, frozen=True):
    """There is news for those who wait for this model: each waiter's ``Scheduler.notice`` has changed."""

    model: ModelName


class Finish(_Asked, frozen=True):
    """The shutdown is complete: nothing runs that should not, nobody waits."""


Command = Check | Start | Prove | Stop | Park | Wake | Grant | Refuse | End | Tell | Finish
