from random import Random

from llm_router.core.commands import Check, Command, Grant, Prove, Start, Stop, Wake
from llm_router.core.events import Arrived, Checked, Event, Gone, LoadProgressed, Proved, Started, Woken
from llm_router.core.scheduler import Scheduler
from llm_router.core.words import InstanceId, TicketId
from llm_router.sim.weather import Weather, draw_shelf
from llm_router.sim.world import World


def test_the_same_number_draws_the_same_shelf() -> None:
    assert draw_shelf(Random(4)) == draw_shelf(Random(4))
    assert len({str(draw_shelf(Random(seed))) for seed in range(20)}) == 20


def test_declared_sizes_are_the_true_ones() -> None:
    for seed in range(50):
        shelf = draw_shelf(Random(seed))
        for model in shelf.models:
            footprint = model.needs.footprint
            assert footprint is None or footprint.per_device == shelf.sizes[model.name]


def test_in_calm_weather_everything_works() -> None:
    shelf = draw_shelf(Random(1))
    weather = Weather(1, shelf, rough=0.0)
    world = World(Scheduler(), weather)
    name = InstanceId(f"{shelf.models[0].name}#1")
    commands: tuple[Command, ...] = (
        Check(name, shelf.models[0].name, ()),
        Start(name, shelf.models[0].name, ()),
        Prove(name),
    )
    for _ in range(50):
        for command, good in zip(
            (*commands, Wake(name), Stop(name)),
            (Checked(name), Started(name), Proved, Woken(name), Gone(name)),
            strict=True,
        ):
            came = [
                later.event for later in weather.perform(command, world) if not isinstance(later.event, LoadProgressed)
            ]
            assert came == [good] or isinstance(came[0], Proved)
        assert weather.answer(Grant(TicketId(1), name), world).seconds is not None


def test_in_rough_weather_everything_can_go_wrong() -> None:
    shelf = draw_shelf(Random(1))
    weather = Weather(1, shelf, rough=0.5)
    world = World(Scheduler(), weather)
    name = InstanceId(f"{shelf.models[0].name}#1")
    kinds: set[str] = set()
    for _ in range(300):
        for command in (
            Check(name, shelf.models[0].name, ()),
            Start(name, shelf.models[0].name, ()),
            Prove(name),
            Wake(name),
            Stop(name),
        ):
            kinds |= {type(later.event).__name__ for later in weather.perform(command, world)}
    assert {"StartFailed", "WakeFailed", "Exited", "Sickened", "Cleaned", "Gone", "Proved"} <= kinds
    assert any(weather.answer(Grant(TicketId(1), name), world).seconds is None for _ in range(100))


def test_clients_come_until_it_is_still() -> None:
    weather = Weather(2, draw_shelf(Random(2)), rough=0.0)
    seen: list[Event] = []

    class Watch:
        def happened(self, event: Event, world: World) -> None:
            seen.append(event)

        def asked(self, command: Command, world: World) -> None: ...

        def settled(self, world: World) -> None: ...

    world = World(Scheduler(), weather, Watch())
    world.tell(weather.shelf.configured)
    weather.blow(world)
    world.run(until=300.0)
    asked = sum(isinstance(event, Arrived) for event in seen)
    assert asked > 10
    weather.still = True
    world.run(until=310.0)
    seen.clear()
    world.run(until=2000.0)
    assert not any(isinstance(event, Arrived) for event in seen)
