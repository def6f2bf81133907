"""A conversation with a scheduler: tell it things at moments, and look at what it asks for."""

from collections.abc import Iterable

from llm_router.core.commands import Check, Command, Grant, Refuse, Start, Stop, Tell
from llm_router.core.events import Arrived, Checked, Configured, Event, Gone, Proved, Released, Started, Ticked
from llm_router.core.invariants import violations
from llm_router.core.rules import Rules
from llm_router.core.scheduler import Scheduler
from llm_router.core.words import (
    Device,
    DeviceId,
    Failure,
    FailureKind,
    Footprint,
    InstanceId,
    Model,
    ModelName,
    Needs,
    Settings,
    TicketId,
)

GIB = 2**30
CRASH = Failure(FailureKind.crashed, "it ended with exit code 1")
BAD_FILE = Failure(FailureKind.bad_file, "it cannot be read")
GPU0, GPU1 = DeviceId("gpu0"), DeviceId("gpu1")


def model(
    name: str, size: int | None = None, devices: int | tuple[DeviceId, ...] | None = None, **more: object
) -> Model:
    """A model; its size is in GiB on each device."""
    parked = more.pop("parked", 0)
    assert isinstance(parked, int)
    footprint = None if size is None else Footprint(size * GIB, parked * GIB)
    return Model(ModelName(name), needs=Needs(devices, footprint), **more)  # type: ignore[arg-type]


def gpus(count: int, size: int = 16) -> tuple[Device, ...]:
    return tuple(Device(DeviceId(f"gpu{number}"), size * GIB) for number in range(count))


class Play:
    """Invariants are checked after every step; time passes tick by tick."""

    def __init__(
        self,
        *models: Model,
        devices: tuple[Device, ...] | None = None,
        settings: Settings = Settings(),
        rules: Rules | None = None,
    ) -> None:
        self.scheduler = Scheduler(rules=rules)
        self.now = 0.0
        self.said: list[Command] = []
        self.devices = gpus(1) if devices is None else devices
        self.settings = settings
        self.configure(*models)

    def configure(self, *models: Model) -> list[Command]:
        return self.tell(Configured(models, self.devices, self.settings))

    def tell(self, event: Event, at: float | None = None) -> list[Command]:
        """What the scheduler says to it, without the ``Tell``s."""
        if at is not None:
            self.until(at)
        said: list[Command] = []
        said += [command for command in self.scheduler.step(event, self.now) if not isinstance(command, Tell)]
        assert violations(self.scheduler.book, self.scheduler.deadline()) == []
        self.said += said
        return said

    def until(self, at: float) -> list[Command]:
        """Let time pass; what was said at the ticks."""
        said: list[Command] = []
        while (due := self.scheduler.deadline()) is not None and due <= at:
            self.now = max(self.now, due)
            said += self.tell(Ticked())
        self.now = max(self.now, at)
        return said

    def ask(self, ticket: int, name: str, at: float | None = None, **more: object) -> list[Command]:
        return self.tell(Arrived(TicketId(ticket), ModelName(name), **more), at)  # type: ignore[arg-type]

    def release(self, ticket: int, at: float | None = None) -> list[Command]:
        return self.tell(Released(TicketId(ticket)), at)

    def load(self, instance: str, seconds: float = 10.0) -> list[Command]:
        """From the check to the proof; what was said to the proof."""
        name = InstanceId(instance)
        self.tell(Checked(name))
        self.tell(Started(name))
        return self.tell(Proved(name), self.now + seconds)

    def serve(self, ticket: int, name: str, instance: str) -> None:
        """Bring a model up for one request that is answered at once."""
        self.ask(ticket, name)
        assert Grant(TicketId(ticket), InstanceId(instance)) in self.load(instance)
        self.release(ticket)

    def gone(self, instance: str, at: float | None = None) -> list[Command]:
        return self.tell(Gone(InstanceId(instance)), at)

    def states(self) -> dict[str, str]:
        return {inst.id: inst.state.value for inst in self.scheduler.snapshot(self.now).instances}


def granted(commands: Iterable[Command]) -> list[int]:
    return [command.ticket for command in commands if isinstance(command, Grant)]


def refused(commands: Iterable[Command]) -> dict[int, str]:
    return {command.ticket: command.refusal.reason.value for command in commands if isinstance(command, Refuse)}


def checked(commands: Iterable[Command]) -> list[str]:
    return [command.instance for command in commands if isinstance(command, Check)]


def started(commands: Iterable[Command]) -> list[str]:
    return [command.instance for command in commands if isinstance(command, Start)]


def stopped(commands: Iterable[Command]) -> list[str]:
    return [command.instance for command in commands if isinstance(command, Stop)]
