"""The crew with supervisors and engines in memory; the real ones are met in tests/e2e."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fakes.supervisor import FakeSupervisor, Machine, Program
from llm_router.config import shelf
from llm_router.config.load import Config, parse
from llm_router.core import commands as do
from llm_router.core import events as ev
from llm_router.core.words import (
    HOST_DEVICE,
    Device,
    DeviceId,
    FailureKind,
    Footprint,
    InstanceId,
    ModelName,
    Outcome,
    TicketId,
)
from llm_router.engines import registry
from llm_router.engines.engine import Answer, Job, Question
from llm_router.host.crew import crew as module
from llm_router.host.crew.crew import LocalCrew
from llm_router.host.crew.progress import Vitals
from llm_router.host.history import History
from llm_router.host.machine import memory, ports
from llm_router.host.machine.gpus import Gauge, Holder
from llm_router.host.machine.logs import LogTail
from llm_router.host.machine.memory import Gate
from llm_router.host.machine.tasks import Tasks
from llm_router.host.road.asking import Asker
from llm_router.host.road.upstream import Pools
from llm_router.host.state import StateFolder
from llm_router.host.supervisors.supervisor import Exit, Handle

M, ONE = ModelName("m"), InstanceId("m#1")
HERE = (HOST_DEVICE,)
CARD = DeviceId("GPU-a")
CONFIG = (
    "models: {m: {command: [engine, '{port}'], args: {proof: none}}, other: {command: [engine], args: {proof: none}}}"
)


class Lines(Pools):
    """Connections of which only the end is seen."""

    def __init__(self) -> None:
        super().__init__()
        self.closed: list[int] = []

    def close(self, host: str, port: int) -> None:
        self.closed.append(port)


class Talk(Asker):
    """Answers for the engines: ``ready`` says whether they do, on which port nobody cares."""

    def __init__(self) -> None:
        self.lines = Lines()
        super().__init__(self.lines)
        self.ready = True
        self.asked: list[str] = []

    async def ask(self, host: str, port: int, question: Question) -> Answer:
        self.asked.append(question.path)
        await asyncio.sleep(0)
        return Answer(200, {}, b"{}") if self.ready else Answer(0, {}, b"refused")


@dataclass
class Yard:
    """Everything around one crew."""

    folder: Path
    machine: Machine
    talk: Talk
    tasks: Tasks
    crew: LocalCrew
    history: History
    told: list[ev.Event] = field(default_factory=list)

    async def up(self, instance: InstanceId = ONE, model: ModelName = M) -> None:
        assert (await self.crew.check(do.Check(instance, model, HERE))).failure is None
        assert isinstance(await self.crew.start(do.Start(instance, model, HERE)), ev.Started)


def configured(text: str = CONFIG) -> Config:
    return parse(text, "x.yml", {"HOME": "/home/me"}, lambda path: path, registry.names(), folder="/etc/r")


@pytest.fixture
async def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Yard]:
    monkeypatch.setenv("LLM_ROUTER_GPUS", "none")
    (tmp_path / "bin").mkdir()
    engine = tmp_path / "bin" / "engine"
    engine.write_text("#!/bin/sh\n")
    engine.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(ports, "owned_by", lambda port, pids, host: True)
    machine = Machine(tmp_path, {"engine": Program()})
    talk, tasks, history = Talk(), Tasks("yard"), History(tmp_path / "history.db")
    supervisor = FakeSupervisor(machine)
    crew = LocalCrew(
        configured(), supervisor, talk.lines, Gauge(), tasks, StateFolder(tmp_path), history=history, asker=talk
    )
    yard = Yard(tmp_path, machine, talk, tasks, crew, history)
    crew.tell = yard.told.append
    yield yard
    await tasks.aclose()
    history.close()


async def test_check_start_prove_lease_stop(yard: Yard) -> None:
    await yard.up()
    news: list[ev.LoadProgressed] = []
    assert await yard.crew.prove(do.Prove(ONE), news.append) == ev.Proved(ONE, None)
    assert news[0].phase == "starting"
    lease = yard.crew.lease(ONE, TicketId(1), arrived=0.0, now=10.0)
    running = yard.machine.of(ONE)
    assert (lease.model, str(lease.port)) == ("m", running.launch.argv[1])
    assert lease.waited_s == 10.0
    assert 0.0 <= lease.loaded_s < 10.0
    place = yard.crew.places()[ONE]
    assert running.handle.note["model"] == "m"
    assert await yard.crew.stop(do.Stop(ONE)) == ev.Gone(ONE)
    assert running.exit is not None
    assert yard.talk.lines.closed == [place.job.port]
    assert yard.crew.places() == {}
    assert [row["model"] for row in await yard.history.loads(9)] == ["m"]


async def test_the_number_of_an_instance_outlives_the_router(yard: Yard) -> None:
    await yard.up(InstanceId("m#41"))
    assert StateFolder(yard.folder).serial == 41


async def test_a_check_names_what_is_missing_and_starts_nothing(yard: Yard) -> None:
    yard.crew.config = configured(
        "models: {m: {command: [nothing-like-it]}, n: {backend: llamacpp, command: [engine], path: /no/x.gguf}}"
    )
    checked = await yard.crew.check(do.Check(ONE, M, HERE))
    assert checked.failure is not None
    assert checked.failure.kind is FailureKind.missing_program
    assert "nothing-like-it" in checked.failure.cause
    missing = await yard.crew.check(do.Check(InstanceId("n#2"), ModelName("n"), HERE))
    assert missing.failure is not None
    assert missing.failure.kind is FailureKind.missing_file
    assert yard.machine.instances == {}


async def test_a_port_that_answers_is_refused_at_the_check(yard: Yard) -> None:
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    yard.crew.config = configured(
        f"{{backends: {{b: {{engine: command, command: [engine], port: {port}}}}}, models: {{m: {{backend: b}}}}}}"
    )
    checked = await yard.crew.check(do.Check(ONE, M, HERE))
    server.close()
    assert checked.failure is not None
    assert checked.failure.kind is FailureKind.port_in_use
    assert str(port) in checked.failure.cause


async def test_a_fixed_port_is_given_to_one_instance_at_a_time(yard: Yard) -> None:
    port = ports.free_port()
    text = f"{{backends: {{b: {{engine: command, command: [engine], port: {port}}}}}, models: {{m: {{backend: b}}, n: {{backend: b}}}}}}"
    yard.crew.config = configured(text)
    await yard.up()
    await yard.up(InstanceId("n#2"), ModelName("n"))
    found = [place.job.port for place in yard.crew.places().values()]
    assert found[0] == port
    assert found[1] != port


async def test_a_process_that_ends_while_it_starts_fails_with_its_log(yard: Yard) -> None:
    yard.machine.programs["engine"] = Program(says="loading\nRuntimeError: bad thing\n", ends_with=3)
    yard.talk.ready = False
    await yard.up()
    result = await yard.crew.prove(do.Prove(ONE), lambda _news: None)
    assert isinstance(result, ev.StartFailed)
    assert "RuntimeError: bad thing" in result.failure.tail
    assert "3" in result.failure.cause
    (load,) = await yard.history.loads(9)
    assert load["cause"] == result.failure.cause
    assert await yard.crew.stop(do.Stop(ONE)) == ev.Gone(ONE)


async def test_a_stop_ends_a_proof_that_goes_on(yard: Yard) -> None:
    yard.talk.ready = False
    await yard.up()
    proving = yard.tasks.spawn("prove", yard.crew.prove(do.Prove(ONE), lambda _news: None))
    await asyncio.sleep(0.01)
    assert await yard.crew.stop(do.Stop(ONE, polite=False)) == ev.Gone(ONE)
    assert isinstance(await proving, ev.StartFailed)


async def test_a_program_that_cannot_start_is_a_failure(yard: Yard) -> None:
    yard.machine.programs.clear()
    assert (await yard.crew.check(do.Check(ONE, M, HERE))).failure is None
    result = await yard.crew.start(do.Start(ONE, M, HERE))
    assert isinstance(result, ev.StartFailed)
    assert "there is no program engine" in result.failure.cause
    assert await yard.crew.stop(do.Stop(ONE)) == ev.Gone(ONE)


async def test_an_end_that_nobody_asked_for_is_told_with_its_cause(yard: Yard) -> None:
    await yard.up()
    waiting = yard.tasks.spawn("ended", yard.crew.ended(ONE))
    yard.machine.of(ONE).handle.log.write_text("Segmentation fault\n")
    yard.machine.of(ONE).end(-11)
    ended = await waiting
    assert isinstance(ended, ev.Exited)
    assert "Segmentation fault" in ended.failure.tail


async def test_an_end_that_was_asked_for_is_none_to_tell(yard: Yard) -> None:
    await yard.up()
    waiting = yard.tasks.spawn("ended", yard.crew.ended(ONE))
    await asyncio.sleep(0)
    await yard.crew.stop(do.Stop(ONE))
    assert await waiting is None
    assert await yard.crew.ended(ONE) is None


async def test_stopping_what_never_started_is_done_at_once(yard: Yard) -> None:
    assert await yard.crew.stop(do.Stop(InstanceId("m#9"))) == ev.Gone(InstanceId("m#9"))


async def test_a_later_router_takes_over_what_is_unchanged_and_stops_the_rest(yard: Yard) -> None:
    await yard.up()
    await yard.up(InstanceId("other#2"), ModelName("other"))
    changed = dataclasses.replace(configured(), models=dict(configured().models))
    other = dict(changed.models)
    other["other"] = other["other"].model_copy(update={"context": 9})
    later = LocalCrew(
        dataclasses.replace(changed, models=other),
        FakeSupervisor(yard.machine), yard.talk.lines, Gauge(), yard.tasks, StateFolder(yard.folder), asker=yard.talk,
    )  # fmt: skip
    assert await later.adopt() == [ev.Adopted(ONE, M, HERE)]
    assert later.places()[ONE].job == dataclasses.replace(yard.crew.places()[ONE].job, flags=None)
    assert later.places()[ONE].revision == shelf.revision(configured(), "m")
    assert yard.machine.of(InstanceId("other#2")).exit is not None
    assert yard.machine.of(ONE).exit is None
    assert await later.prove(do.Prove(ONE), lambda _news: None) == ev.Proved(ONE, None)


async def test_an_engine_that_goes_bad_is_reported(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    class Sick:
        def __init__(self, *_: object, **__: object) -> None:
            self.outcomes: list[Outcome] = []

        def over(self, outcome: Outcome) -> None:
            self.outcomes.append(outcome)

        async def run(self) -> object:
            return "the failure"

    monkeypatch.setattr(module, "Watch", Sick)
    await yard.up()
    await yard.crew.prove(do.Prove(ONE), lambda _news: None)
    await asyncio.sleep(0.01)
    assert yard.told == [ev.Sickened(ONE, "the failure")]  # type: ignore[arg-type]
    yard.crew.begun(ONE, TicketId(1), lambda: 0)
    yard.crew.over(ONE, TicketId(1), Outcome.failed)
    watch = yard.crew.places()[ONE].watch
    assert watch is not None
    assert vars(watch)["outcomes"] == [Outcome.failed]


async def told(yard: Yard, kind: type[ev.Event]) -> ev.Event:
    async with asyncio.timeout(5):
        while True:
            for event in yard.told:
                if isinstance(event, kind):
                    return event
            await asyncio.sleep(0.001)


async def test_a_silent_answer_on_which_its_engine_works_has_not_stalled(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The desk counts bytes. That the engine computes on a prompt only the crew can see."""
    yard.crew.config = configured("server: {look_every: 0.01}\n" + CONFIG)
    busy = asyncio.get_running_loop().time
    await yard.up()
    await yard.crew.prove(do.Prove(ONE), lambda _news: None)
    monkeypatch.setattr(module, "vitals_of", lambda _pids, *, gpu: Vitals(busy(), 0, 0, gpu))
    for ticket in (TicketId(1), TicketId(2)):
        yard.crew.begun(ONE, ticket, lambda: 0)
    assert await told(yard, ev.Progressed) == ev.Progressed(TicketId(1), (TicketId(2),))


async def test_an_engine_that_cannot_be_looked_at_shows_no_work(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """No descriptor is left for its log or for /proc. Nobody hides behind that for ever."""

    def none_left(*_: object, **__: object) -> Vitals:
        raise OSError(24, "Too many open files")

    yard.crew.config = configured("server: {look_every: 0.01, answer_silence: 0.05}\n" + CONFIG)
    await yard.up()
    await yard.crew.prove(do.Prove(ONE), lambda _news: None)
    monkeypatch.setattr(module, "vitals_of", none_left)
    monkeypatch.setattr(LogTail, "latest", none_left)
    yard.talk.ready = False
    yard.crew.begun(ONE, TicketId(1), lambda: 0)
    assert isinstance(await told(yard, ev.Sickened), ev.Sickened)
    assert not [event for event in yard.told if isinstance(event, ev.Progressed)]


async def test_patience_over_kills_all(yard: Yard) -> None:
    await yard.up()
    await yard.crew.kill_all()
    assert yard.machine.of(ONE).exit is not None


async def test_an_engine_that_cannot_sleep_fails_to(yard: Yard) -> None:
    await yard.up()
    await yard.crew.prove(do.Prove(ONE), lambda _news: None)
    assert await yard.crew.park(do.Park(ONE)) == ev.ParkFailed(ONE)
    assert isinstance(await yard.crew.wake(do.Wake(ONE), lambda _news: None), ev.WakeFailed)


async def test_an_engine_gets_the_time_to_end_that_is_configured(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    graces: list[float] = []

    async def stop(self: FakeSupervisor, handle: Handle, grace_s: float) -> Exit:
        graces.append(grace_s)
        return Exit(0, asked=True, killed=False)

    monkeypatch.setattr(FakeSupervisor, "stop", stop)
    patient = configured("backends: {command: {grace: 77s}}\n" + CONFIG)
    for number, config in enumerate((patient, configured(), configured("models: {other: {command: [engine]}}")), 1):
        yard.crew.config = configured()
        await yard.up(InstanceId(f"m#{number}"))
        yard.crew.config = config
        await yard.crew.stop(do.Stop(InstanceId(f"m#{number}")))
    usual = registry.find("command").farewell(Job("m", (), 1)).grace_s
    assert graces == [77.0, usual, usual]


class Card(Gauge):
    """One GPU; ``now`` are the bytes in use."""

    def __init__(self) -> None:
        self.now = 0

    def devices(self) -> tuple[Device, ...]:
        return (Device(CARD, 24 * 2**30),)

    def indices(self, devices: tuple[DeviceId, ...]) -> tuple[int, ...]:
        return (0,)

    def used(self, device: DeviceId) -> int | None:
        return self.now

    def holders(self, device: DeviceId) -> tuple[Holder, ...]:
        return (Holder(7, "stubborn", self.now),)


async def test_memory_that_is_not_back_makes_the_device_dirty_until_it_is(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(memory, "DIRTY_LOOK_S", 0.001)
    card, told = Card(), asyncio.Event()
    crew = LocalCrew(
        configured(), FakeSupervisor(yard.machine), yard.talk.lines, card, yard.tasks, StateFolder(yard.folder),
        gate=Gate(card, limit_s=0.01, look_s=0.001), asker=yard.talk,
    )  # fmt: skip

    def tell(event: ev.Event) -> None:
        yard.told.append(event)
        told.set()

    crew.tell = tell
    assert (await crew.check(do.Check(ONE, M, (CARD,)))).failure is None
    await crew.start(do.Start(ONE, M, (CARD,)))
    card.now = 9 * 2**30
    assert await crew.prove(do.Prove(ONE), lambda _news: None) == ev.Proved(ONE, Footprint(9 * 2**30))
    assert await crew.stop(do.Stop(ONE)) == ev.Gone(ONE, frozenset({CARD}))
    assert "held by stubborn (pid 7, 9.0 GiB)" in caplog.text
    assert yard.told == []
    card.now = 0
    await told.wait()
    assert yard.told == [ev.Cleaned(CARD)]
