"""Hypothesis plays host, clients and operator: any order of things, shrunk to a handful of steps if one fails."""

import os
from dataclasses import dataclass

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from llm_router.core.commands import Check, Command, Grant, Park, Prove, Refuse, Start, Stop, Wake
from llm_router.core.events import (
    Adopted,
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
    Progressed,
    Proved,
    Released,
    Sickened,
    Started,
    StartFailed,
    Ticked,
    UnloadAsked,
    WakeFailed,
    Withdrawn,
    Woken,
)
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
    Outcome,
    Settings,
    TicketId,
)
from llm_router.sim.watch import Lookout

GIB = 2**30
CRASH = Failure(FailureKind.crashed, "it fell")
BAD = Failure(FailureKind.bad_file, "it cannot be read")
DEVICES = (Device(DeviceId("gpu0"), 16 * GIB), Device(DeviceId("gpu1"), 16 * GIB))
SIZES = {ModelName(name): size * GIB for name, size in (("a", 10), ("b", 12), ("c", 7), ("d", 5))}
MODELS = (
    Model(ModelName("a"), needs=Needs(1, Footprint(10 * GIB, GIB)), parkable=True, load_s=20.0),
    Model(ModelName("b"), needs=Needs((DeviceId("gpu0"),), Footprint(12 * GIB)), concurrency=1),
    Model(ModelName("c"), idle_s=20.0),
    Model(ModelName("d"), needs=Needs(2, Footprint(5 * GIB)), default=True),
)
RULES = Settings(quantum_max_s=30.0, stall_s=20.0, drain_timeout_s=60.0, max_wait_s=200.0, cooldown_s=60.0)
NAMES = st.sampled_from([model.name for model in MODELS])


@dataclass
class Moment:
    now: float = 0.0


class Rules(RuleBasedStateMachine):
    """The host answers what it was asked for when Hypothesis says so."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler()
        self.lookout = Lookout(SIZES, self.scheduler)
        self.clock = Moment()
        self.ticket = 0
        self.waiting: set[TicketId] = set()
        self.leases: dict[TicketId, InstanceId] = {}
        self.owed: dict[InstanceId, Command] = {}
        self.ready: set[InstanceId] = set()
        self.former: list[InstanceId] = []
        self.dirty: set[DeviceId] = set()

    def tell(self, event: Event) -> None:
        self.lookout.happened(event, self.clock)
        for command in self.scheduler.step(event, self.clock.now):
            self.lookout.asked(command, self.clock)
            self.note(command)
        self.lookout.settled(self.clock)

    def note(self, command: Command) -> None:
        match command:
            case Check(instance) | Start(instance) | Prove(instance) | Wake(instance):
                self.owed[instance] = command
            case Park(instance) | Stop(instance):
                self.owed[instance] = command
                self.ready.discard(instance)
            case Grant(ticket, instance):
                self.waiting.discard(ticket)
                self.leases[ticket] = instance
            case Refuse(ticket):
                self.waiting.discard(ticket)

    @initialize()
    def begin(self) -> None:
        self.tell(Configured(MODELS, DEVICES, RULES))

    # Clients

    @rule(model=NAMES, background=st.booleans(), priority=st.sampled_from((0, 0, 1)), caller=st.sampled_from("xy"))
    def arrive(self, model: ModelName, background: bool, priority: int, caller: str) -> None:
        self.ticket += 1
        ticket = TicketId(self.ticket)
        self.waiting.add(ticket)
        self.tell(Arrived(ticket, model, caller, priority, background))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.waiting)))
        self.waiting.discard(ticket)
        self.tell(Withdrawn(ticket))

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), outcome=st.sampled_from(Outcome))
    def release(self, data: st.DataObject, outcome: Outcome) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.leases)))
        del self.leases[ticket]
        self.tell(Released(ticket, outcome))

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def move(self, data: st.DataObject) -> None:
        self.tell(Progressed(data.draw(st.sampled_from(sorted(self.leases)))))

    # The host

    @precondition(lambda self: self.owed)
    @rule(data=st.data(), well=st.sampled_from((True, True, True, False)), failure=st.sampled_from((CRASH, CRASH, BAD)))
    def answer(self, data: st.DataObject, well: bool, failure: Failure) -> None:
        self.perform(data.draw(st.sampled_from(sorted(self.owed))), None if well else failure)

    def perform(self, instance: InstanceId, failure: Failure | None) -> None:
        command = self.owed.pop(instance)
        match command:
            case Check():
                self.tell(Checked(instance, failure))
            case Start():
                self.tell(StartFailed(instance, failure) if failure else Started(instance))
            case Prove():
                if failure is None:
                    self.ready.add(instance)
                self.tell(StartFailed(instance, failure) if failure else Proved(instance))
            case Park():
                self.tell(ParkFailed(instance) if failure else Parked(instance))
            case Wake():
                if failure is None:
                    self.ready.add(instance)
                self.tell(WakeFailed(instance, failure) if failure else Woken(instance))
            case _:
                self.former.append(instance)
                dirty = frozenset({DeviceId("gpu0")}) if failure else frozenset[DeviceId]()
                self.dirty |= dirty
                self.tell(Gone(instance, dirty))

    @precondition(lambda self: self.dirty)
    @rule()
    def clean(self) -> None:
        self.tell(Cleaned(self.dirty.pop()))

    @precondition(lambda self: self.ready)
    @rule(data=st.data(), sick=st.booleans())
    def befall(self, data: st.DataObject, sick: bool) -> None:
        instance = data.draw(st.sampled_from(sorted(self.ready)))
        self.ready.discard(instance)
        self.tell(Sickened(instance, CRASH) if sick else Exited(instance, CRASH))

    @precondition(lambda self: any(isinstance(command, Prove | Wake) for command in self.owed.values()))
    @rule(data=st.data(), percent=st.sampled_from((10.0, 60.0)))
    def progress(self, data: st.DataObject, percent: float) -> None:
        loading = sorted(instance for instance, command in self.owed.items() if isinstance(command, Prove | Wake))
        self.tell(LoadProgressed(data.draw(st.sampled_from(loading)), "loading weights", percent, 100.0 - percent))

    @precondition(lambda self: self.former)
    @rule(data=st.data())
    def speak_late(self, data: st.DataObject) -> None:
        instance = data.draw(st.sampled_from(self.former))
        kinds: tuple[Event, ...] = (
            Proved(instance),
            Started(instance),
            Exited(instance, CRASH),
            Gone(instance),
            Woken(instance),
        )
        self.tell(data.draw(st.sampled_from(kinds)))

    # Time and the operator

    @rule(seconds=st.sampled_from((0.1, 3.0, 40.0)))
    def wait(self, seconds: float) -> None:
        until = self.clock.now + seconds
        for _ in range(1000):
            due = self.scheduler.deadline()
            if due is None or due > until:
                break
            self.clock.now = max(self.clock.now, due)
            self.tell(Ticked())
        self.clock.now = until

    @rule(model=NAMES, what=st.sampled_from(("unload", "pin", "unpin", "forgive")))
    def meddle(self, model: ModelName, what: str) -> None:
        events: dict[str, Event] = {
            "unload": UnloadAsked(model),
            "pin": PinAsked(model, pin=True),
            "unpin": PinAsked(model, pin=False),
            "forgive": ForgiveAsked(model),
        }
        self.tell(events[what])

    @rule()
    def find_a_leftover(self) -> None:
        """An engine of a model that is not configured: it is stopped, whatever else goes on."""
        self.ticket += 1
        instance = InstanceId(f"old#{1_000_000 + self.ticket}")
        before = set(self.owed)
        self.tell(Adopted(instance, ModelName("old"), ()))
        assert set(self.owed) - before == {instance}
        self.perform(instance, None)

    @invariant()
    def views_can_be_taken(self) -> None:
        self.scheduler.snapshot(self.clock.now)
        for ticket in self.waiting:
            notice = self.scheduler.notice(ticket, self.clock.now)
            assert notice is not None
            assert notice.left_s is None or notice.left_s >= 0

    def teardown(self) -> None:
        """In calm weather everybody is answered."""
        for _ in range(10_000):
            if self.owed:
                self.perform(min(self.owed), None)
            elif self.leases:
                ticket = next(iter(self.leases))
                del self.leases[ticket]
                self.tell(Released(ticket))
            elif self.dirty:
                self.clean()
            elif self.waiting:
                self.wait(40.0)
            else:
                return
        raise AssertionError(f"{self.waiting} wait for ever, {self.owed} is owed, {self.leases} are held")


DEEP = os.environ.get("LLM_ROUTER_PROFILE") == "deep"
TestRules = Rules.TestCase
TestRules.settings = settings(
    max_examples=2000 if DEEP else 40,
    stateful_step_count=100 if DEEP else 50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
