"""Seeded weather: a shelf of models, clients and mishaps, all drawn from one number.

This file knows how a host and its clients may behave, from kind to beastly. The same seed gives the same
weather, whatever the scheduler does with it is its own affair.
"""

from dataclasses import dataclass, replace
from random import Random

from msgspec import structs

from llm_router.core.commands import Check, Command, Grant, Park, Prove, Start, Stop, Wake
from llm_router.core.events import (
    Arrived,
    Checked,
    Cleaned,
    Configured,
    Event,
    Exited,
    ForgiveAsked,
    Gone,
    LoadProgressed,
    Parked,
    ParkFailed,
    PinAsked,
    Proved,
    Released,
    Sickened,
    Started,
    StartFailed,
    UnloadAsked,
    WakeFailed,
    Withdrawn,
    Woken,
)
from llm_router.core.words import (
    HOST_DEVICE,
    Device,
    DeviceId,
    Failure,
    FailureKind,
    Footprint,
    InstanceId,
    Model,
    ModelName,
    Needs,
    Outcome,
    Settings,
    TicketId,
)
from llm_router.sim.world import Answer, Later, World

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Shelf:
    """A machine and its models. ``sizes`` are bytes that each model really takes on each of its devices."""

    models: tuple[Model, ...]
    devices: tuple[Device, ...]
    settings: Settings
    sizes: dict[ModelName, int]

    @property
    def configured(self) -> Configured:
        return Configured(self.models, self.devices, self.settings)


def draw_shelf(random: Random) -> Shelf:
    """A machine with none to three devices, and two to five models, about half of them of unknown size."""
    count = random.choice((0, 1, 1, 2, 2, 3))
    names = [DeviceId(f"gpu{number}") for number in range(count)] or [HOST_DEVICE]
    devices = tuple(Device(name, 16 * GIB) for name in names)
    sizes: dict[ModelName, int] = {}
    all_unknown = random.random() < 0.3
    models = []
    for number in range(random.randint(2, 5)):
        name = ModelName("abcde"[number])
        sizes[name] = random.choice((5, 7, 11, 14)) * GIB
        models.append(_draw_model(random, name, names, sizes[name], unknown=all_unknown or random.random() < 0.3))
    return Shelf(tuple(models), devices, _draw_settings(random), sizes)


def _draw_model(random: Random, name: ModelName, devices: list[DeviceId], size: int, *, unknown: bool) -> Model:
    parked = random.choice((0, 1)) * GIB
    where = random.choice((None, 1, 1, random.randint(1, len(devices)), (random.choice(devices),)))
    return Model(
        name,
        revision="1",
        needs=Needs(where, None if unknown else Footprint(size, parked)),
        pin=random.random() < 0.05,
        preload=random.random() < 0.1,
        default=random.random() < 0.15,
        idle_s=random.choice((None, None, 5.0, 60.0)),
        priority=random.choice((0, 0, 0, 1)),
        concurrency=random.choice((None, None, 1, 3)),
        on_demand=random.random() > 0.05,
        parkable=random.random() < 0.4,
        load_s=random.choice((None, 10.0)),
    )


def _draw_settings(random: Random) -> Settings:
    return Settings(
        stall_s=random.choice((10.0, 60.0)),
        drain_timeout_s=random.choice((0.0, 30.0, 600.0)),
        quantum_min_s=random.choice((0.0, 5.0)),
        quantum_max_s=random.choice((10.0, 60.0)),
        linger_s=random.choice((0.0, 2.0)),
        max_wait_s=random.choice((0.0, 120.0, 600.0)),
        cooldown_s=random.choice((30.0, 300.0)),
        backoff_s=random.choice((0.5, 2.0)),
        starts_in_a_row=random.choice((1, 3)),
        queue_limit=random.choice((10_000, 20)),
        margin=random.choice((0, GIB // 2)),
    )


class Weather:
    """A nature of which anything can come. ``rough`` is the chance of a mishap; 0 is calm."""

    def __init__(self, seed: int, shelf: Shelf, *, rough: float) -> None:
        self.random = Random(seed)  # noqa: S311  (reproducible on purpose)
        self.shelf = shelf
        self.rough = rough
        self.ticket = 0
        #: Clients stop asking.
        self.still = False
        self._front = 1.0
        self._revision = 1

    # The host

    def perform(self, command: Command, world: World) -> list[Later]:
        random = self.random
        match command:
            case Check(instance):
                failure = self._failure() if self._mishap(0.3) else None
                return [Later(random.uniform(0.0, 3.0), Checked(instance, failure))]
            case Start(instance):
                if self._mishap(0.5):
                    return [Later(random.uniform(0.0, 2.0), StartFailed(instance, self._failure()))]
                return [Later(random.uniform(0.0, 0.5), Started(instance))]
            case Prove(instance):
                return self._load(instance)
            case Stop(instance):
                return self._stop(instance, world)
            case Park(instance):
                failed = self._mishap(0.5)
                return [Later(random.uniform(0.1, 2.0), ParkFailed(instance) if failed else Parked(instance))]
            case Wake(instance):
                if self._mishap(0.5):
                    return [Later(random.uniform(0.1, 2.0), WakeFailed(instance, self._failure()))]
                return [Later(random.uniform(0.5, 4.0), Woken(instance)), *self._life(instance)]
        return []

    def _load(self, instance: InstanceId) -> list[Later]:
        random = self.random
        seconds = random.uniform(2.0, 25.0)
        told = [
            Later(seconds * part, LoadProgressed(instance, "loading weights", part * 100, seconds * (1 - part)))
            for part in (0.2, 0.6)
            if random.random() < 0.5
        ]
        if self._mishap(1.0):
            event: Event = StartFailed(instance, self._failure())
            if random.random() < 0.5:
                event = Exited(instance, self._failure())
            return [*told, Later(seconds * random.random(), event)]
        size = self.shelf.sizes[ModelName(instance.rpartition("#")[0])]
        measured = Footprint(size) if random.random() < 0.3 else None
        return [*told, Later(seconds, Proved(instance, measured)), *self._life(instance, seconds)]

    def _life(self, instance: InstanceId, after: float = 5.0) -> list[Later]:
        """What may befall an instance that runs."""
        failure = Failure(FailureKind.crashed, "it fell")
        events: list[Later] = []
        if self._mishap(1.0):
            events.append(Later(after + self.random.expovariate(1 / 60), Exited(instance, failure)))
        if self._mishap(1.0):
            events.append(Later(after + self.random.expovariate(1 / 60), Sickened(instance, failure)))
        return events

    def _stop(self, instance: InstanceId, world: World) -> list[Later]:
        random = self.random
        seconds = random.uniform(0.0, 4.0)
        dirty: frozenset[DeviceId] = frozenset()
        events: list[Later] = []
        if self._mishap(0.5):
            dirty = frozenset({random.choice(self.shelf.devices).id})
            events = [Later(seconds + random.uniform(1.0, 30.0), Cleaned(device)) for device in dirty]
        for ticket, held in world.leases.items():
            if held == instance:
                world.later(random.uniform(0.0, 2 * seconds), Released(ticket, Outcome.failed))
        stale: tuple[Event, ...] = (
            Proved(instance),
            Started(instance),
            StartFailed(instance, self._failure()),
            Exited(instance, self._failure()),
            Parked(instance),
            Woken(instance),
            Gone(instance),
        )
        if self.rough and random.random() < 0.5:
            events.append(Later(seconds + random.uniform(0.0, 20.0), random.choice(stale), stale=True))
        return [Later(seconds, Gone(instance, dirty)), *events]

    def _mishap(self, weight: float) -> bool:
        return self.random.random() < self.rough * weight

    def _failure(self) -> Failure:
        kind = self.random.choice((FailureKind.crashed, FailureKind.timeout, FailureKind.crashed, FailureKind.bad_file))
        return Failure(kind, "the weather is rough")

    # The clients

    def answer(self, grant: Grant, world: World) -> Answer:  # noqa: ARG002  (weather is blind)
        random = self.random
        if self.still:
            return Answer(random.uniform(0.1, 5.0), moves_every=4.0)
        roll = random.random()
        if roll < self.rough * 0.3:
            return Answer(None)
        outcome = random.choice((Outcome.done, Outcome.done, Outcome.continues))
        if roll < self.rough:
            outcome = random.choice((Outcome.left, Outcome.failed))
        long = random.random() < 0.1
        seconds = random.expovariate(1 / (40.0 if long else 4.0))
        return Answer(seconds, outcome, moves_every=4.0 if random.random() < 0.9 else None)

    def answered(self, ticket: TicketId, outcome: Outcome | None, world: World) -> None:  # noqa: ARG002
        """Some clients go on asking for the same."""
        if self.still or outcome is None or self.random.random() > 0.3:
            return
        self._ask(world, self.random.uniform(0.0, 1.0))

    def blow(self, world: World) -> None:
        """Begin: from now on clients come, in bursts and lulls, until ``still``."""
        if self.still:
            return
        random = self.random
        for _ in range(random.choice((1, 1, 1, 2, 6))):
            self._ask(world, random.uniform(0.0, 0.5))
        if self._mishap(0.2):
            self._meddle(world)
        world.call_later(random.expovariate(1 / random.choice((0.5, 4.0, 30.0))), lambda: self.blow(world))

    def _ask(self, world: World, delay: float) -> None:
        random = self.random
        self.ticket += 1
        ticket = TicketId(self.ticket)
        event = Arrived(
            ticket,
            random.choice(self.shelf.models).name,
            caller=random.choice(("ann", "bob", "", "eve")),
            priority=random.choice((0, 0, 0, 0, 1)),
            background=random.random() < 0.2,
            patience_s=random.choice((None, None, None, 20.0)),
            keep_s=(0.0, 3.0, 40.0)[self.ticket % 3] if self.ticket % 7 == 0 else None,
        )
        world.later(delay, event)
        if random.random() < 0.15:
            world.later(delay + random.expovariate(1 / 8), Withdrawn(ticket))

    def _meddle(self, world: World) -> None:
        """An operator does something."""
        random = self.random
        model = random.choice(self.shelf.models)
        match random.randint(0, 4):
            case 0:
                world.later(0.0, UnloadAsked(model.name))
            case 1:
                world.later(0.0, PinAsked(model.name, pin=True))
                world.later(20.0, PinAsked(model.name, pin=False))
            case 2:
                world.later(0.0, ForgiveAsked(model.name))
            case 3:
                self._revision += 1
                changed = tuple(
                    structs.replace(one, revision=str(self._revision)) if one is model else one
                    for one in self.shelf.models
                )
                self.shelf = replace(self.shelf, models=changed)
                world.later(0.0, self.shelf.configured)
            case _:
                kept = tuple(one for one in self.shelf.models if one is not model)
                world.later(0.0, replace(self.shelf, models=kept or self.shelf.models).configured)
                world.later(15.0, self.shelf.configured)
