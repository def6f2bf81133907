"""The short way through a settling decides what the long way decides."""

from hypothesis import given
from hypothesis import strategies as st

from llm_router.core import commands as do
from llm_router.core import events as ev
from llm_router.core.scheduler import Scheduler
from llm_router.core.words import Model, ModelName, Outcome, Settings, TicketId

MODELS = (
    Model(ModelName("a"), idle_s=3.0, concurrency=2),
    Model(ModelName("b"), priority=1),
    Model(ModelName("c"), concurrency=1),
    Model(ModelName("d"), default=True),
)
SETTINGS = Settings(quantum_min_s=1.0, quantum_max_s=4.0, max_wait_s=20.0, background_hold_s=1.0)


class World:
    """A scheduler, and what its commands lead to: every start succeeds when its time has come."""

    def __init__(self, *, short: bool, models: int = 3) -> None:
        self.scheduler = Scheduler()
        if not short:
            self.scheduler._settle.pass_by = lambda now: False  # type: ignore[method-assign]
        self.said: list[tuple[float, list[do.Command], float | None]] = []
        self.leases: list[TicketId] = []
        self.owed: list[ev.Event] = []
        self.now = 0.0
        self.tell(ev.Configured(MODELS[:models], (), SETTINGS))
        self.act(1001, 0, Outcome.done, 0.0)
        while self.owed:
            self.act(0, 10, Outcome.done, 0.1)

    def tell(self, event: ev.Event) -> None:
        commands = self.scheduler.step(event, self.now)
        self.said.append((self.now, commands, self.scheduler.deadline()))
        for command in commands:
            match command:
                case do.Grant(ticket, _):
                    self.leases.append(ticket)
                case do.Check(instance):
                    self.owed.append(ev.Checked(instance, None))
                case do.Start(instance):
                    self.owed.append(ev.Started(instance))
                case do.Prove(instance):
                    self.owed.append(ev.Proved(instance, None))
                case do.Stop(instance):
                    self.owed.append(ev.Gone(instance))
                case _:
                    pass

    def act(self, number: int, choice: int, outcome: Outcome, seconds: float) -> None:
        self.now += seconds
        deadline = self.scheduler.deadline()
        if deadline is not None and deadline <= self.now:
            self.tell(ev.Ticked())
        if choice < 5:
            name = MODELS[choice % 3].name
            self.tell(ev.Arrived(TicketId(number), name, f"caller-{choice}", background=choice == 4))
        elif choice < 8 and self.leases:
            self.tell(ev.Released(self.leases.pop(choice % len(self.leases)), outcome))
        elif self.owed:
            self.tell(self.owed.pop(0))


acts = st.lists(
    st.tuples(st.integers(0, 10), st.sampled_from(Outcome), st.sampled_from([0.0, 0.01, 0.7, 2.5])), max_size=60
)


@given(acts, st.sampled_from([3, 4]))
def test_the_short_way_is_the_long_way(acts: list[tuple[int, Outcome, float]], models: int) -> None:
    short, long = World(short=True, models=models), World(short=False, models=models)
    for number, (choice, outcome, seconds) in enumerate(acts, 1):
        short.act(number, choice, outcome, seconds)
        long.act(number, choice, outcome, seconds)
        assert short.said[-1] == long.said[-1]
        assert short.scheduler.snapshot(short.now) == long.scheduler.snapshot(long.now)


def test_the_short_way_is_taken() -> None:
    world = World(short=True)
    settled: list[float] = []
    world.scheduler._settle.run = settled.append  # type: ignore[method-assign, assignment]
    world.act(2, 0, Outcome.done, 0.1)
    world.act(3, 5, Outcome.done, 0.1)
    assert len(world.leases) == 1
    assert not settled
