"""The nouns of the scheduler: models, devices, room, tickets' answers.

This file knows what the words mean and which values they may take. It knows nothing of engines, HTTP or
processes, and decides nothing.
"""

from enum import Enum
from typing import Final, NewType

from msgspec import Struct

ModelName = NewType("ModelName", str)
#: One incarnation of an engine, e.g. ``qwen#8``; never used again.
InstanceId = NewType("InstanceId", str)
#: A request's place in line and, once granted, its hold on an instance.
TicketId = NewType("TicketId", int)
#: A GPU's UUID, or ``host`` for a machine without one.
DeviceId = NewType("DeviceId", str)

HOST_DEVICE: Final = DeviceId("host")
#: How the ids of AMD's GPUs begin; those of NVIDIA's are its own UUIDs.
AMD: Final = "AMD-"


class Device(Struct, frozen=True, omit_defaults=True):
    """A piece of memory that instances share. ``total`` is in bytes."""

    id: DeviceId
    total: int


class Footprint(Struct, frozen=True, omit_defaults=True):
    """What an instance takes on each of its devices, in bytes: while it runs, and while it is parked."""

    per_device: int
    parked: int = 0


class Needs(Struct, frozen=True, omit_defaults=True):
    """Where a model can live.

    ``devices`` is a number of devices of the scheduler's choice, an explicit tuple, or ``None`` for all of
    them. 0 means that it takes no device at all. ``footprint`` ``None`` means unknown: alone on the machine.
    """

    devices: int | tuple[DeviceId, ...] | None = None
    footprint: Footprint | None = None


class Model(Struct, frozen=True, omit_defaults=True):
    """A name clients ask for, and what the scheduler must know of it. Times are in seconds.

    ``revision`` changes whenever the configuration of the model changes; remembered failures belong to a
    revision. ``load_s`` and ``wake_s`` are the expected costs from history, ``None`` if there is none.
    """

    name: ModelName
    revision: str = ""
    needs: Needs = Needs()
    pin: bool = False
    preload: bool = False
    default: bool = False
    idle_s: float | None = None
    priority: int = 0
    concurrency: int | None = None
    on_demand: bool = True
    parkable: bool = False
    load_s: float | None = None
    wake_s: float | None = None


class Settings(Struct, frozen=True, omit_defaults=True):
    """The scheduler's own rules (R10-R18). Times are in seconds, memory in bytes."""

    stall_s: float = 60.0
    #: 0 means that a lease may live for ever.
    drain_timeout_s: float = 600.0
    #: A switch is paid twice, away and back.
    quantum_factor: float = 2.0
    quantum_min_s: float = 5.0
    quantum_max_s: float = 120.0
    linger_s: float = 2.0
    #: How long a request waits beyond the switches before it; it is refused after that. 0 means no limit.
    max_wait_s: float = 600.0
    #: A deterministic failure is answered from memory for this long.
    cooldown_s: float = 300.0
    #: The first pause after a passing failure; it doubles with each further one.
    backoff_s: float = 2.0
    starts_in_a_row: int = 3
    queue_limit: int = 10_000
    margin: int = 512 * 1024 * 1024
    background_hold_s: float = 2.0
    #: On a loaded model that is idle a background request waits so long for the request it belongs to, which
    #: usually comes a moment after it and should have the engine first.
    background_pause_s: float = 0.5


class FailureKind(Enum):
    """Why an engine could not start or go on. ``deterministic`` ones would fail again the same way."""

    missing_file = "missing_file"
    bad_file = "bad_file"
    unsupported = "unsupported"
    out_of_memory = "out_of_memory"
    bad_argument = "bad_argument"
    missing_program = "missing_program"
    port_in_use = "port_in_use"
    wrong_identity = "wrong_identity"
    driver = "driver"
    timeout = "timeout"
    crashed = "crashed"
    key = "key"
    no_room = "no_room"


DETERMINISTIC: Final = frozenset(
    {
        FailureKind.missing_file,
        FailureKind.bad_file,
        FailureKind.unsupported,
        FailureKind.out_of_memory,
        FailureKind.bad_argument,
        FailureKind.missing_program,
        FailureKind.wrong_identity,
        FailureKind.key,
        FailureKind.no_room,
    }
)


class Failure(Struct, frozen=True, omit_defaults=True):
    """One sentence that names the cause, and the last lines of the engine's log."""

    kind: FailureKind
    cause: str
    tail: tuple[str, ...] = ()
    device: DeviceId | None = None

    @property
    def deterministic(self) -> bool:
        return self.kind in DETERMINISTIC


class Reason(Enum):
    """Why a ticket is refused."""

    unknown_model = "unknown_model"
    queue_full = "queue_full"
    load_failed = "load_failed"
    background = "background_refused"
    not_on_demand = "not_on_demand"
    too_long = "waited_too_long"
    unloaded = "unloaded"
    shutting_down = "shutting_down"


class Refusal(Struct, frozen=True, omit_defaults=True):
    """The answer to a ticket that will not be granted. ``retry_after_s`` ``None``: trying again is useless."""

    reason: Reason
    model: ModelName
    retry_after_s: float | None = None
    failure: Failure | None = None


class EndReason(Enum):
    """Why a running answer is ended by the router (never to make room, R10)."""

    stalled = "stalled"
    drain_timeout = "drain_timeout"
    instance_gone = "instance_gone"
    asked = "asked"


class Outcome(Enum):
    """How a lease ended, as far as it matters for what comes next."""

    done = "done"
    #: The answer asks for tools: the same client comes back soon.
    continues = "continues"
    #: The engine broke the answer off or refused it for a fault of its own.
    failed = "failed"
    #: The client left before the end.
    left = "left"


class Stage(Enum):
    """What a waiting request waits for."""

    queued = "queued"
    draining = "draining"
    stopping = "stopping"
    starting = "starting"
    loading = "loading"
    waking = "waking"
    ready = "ready"


class Notice(Struct, frozen=True, omit_defaults=True):
    """What a waiting client is told. Times are in seconds, ``percent`` is 0-100; ``None`` means not known.

    ``place`` is 1 for the first in line of its model's batch. ``ahead`` are the models that are served
    before, nearest first. ``leaving`` is the model that has to make room.
    """

    model: ModelName
    stage: Stage
    waited_s: float
    place: int = 1
    ahead: tuple[ModelName, ...] = ()
    leaving: ModelName | None = None
    phase: str | None = None
    percent: float | None = None
    left_s: float | None = None
    #: Seconds since this stage's work (a load, a wake) began.
    running_s: float | None = None
