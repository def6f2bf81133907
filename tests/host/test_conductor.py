"""The conductor with the real scheduler and a crew that does as the test says."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fakes.crew import FakeCrew
from llm_router.core import events as ev
from llm_router.core import story
from llm_router.core.commands import Command
from llm_router.core.instance import State
from llm_router.core.scheduler import Scheduler
from llm_router.core.words import (
    HOST_DEVICE,
    Device,
    EndReason,
    Failure,
    FailureKind,
    InstanceId,
    Model,
    ModelName,
    Outcome,
    Reason,
    Refusal,
    Settings,
    Stage,
    TicketId,
)
from llm_router.host.conductor import FOR_EVER_S, Conductor
from llm_router.host.crew import performances
from llm_router.host.desk import Exchange, Lease, Wish
from llm_router.host.journal import Journal
from llm_router.host.machine.tasks import Tasks

ALPHA, BETA = ModelName("alpha"), ModelName("beta")
DEVICES = (Device(HOST_DEVICE, 2**34),)
QUICK = Settings(linger_s=0.0, quantum_min_s=0.0, quantum_max_s=0.0, stall_s=0.05, backoff_s=0.01)


@dataclass
class Client:
    """A waiter that remembers what it was told."""

    desk: Conductor
    lease: Lease | None = None
    refusal: Refusal | None = None
    end: EndReason | None = None
    news: int = 0
    bytes_moved: int | None = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def ask(self, model: ModelName = ALPHA, **more: object) -> TicketId:
        return self.desk.arrive(Wish(model, **more), self)  # type: ignore[arg-type]

    def granted(self, lease: Lease) -> None:
        assert self.lease is None
        assert self.refusal is None
        self.lease = lease
        self.changed.set()

    def refused(self, refusal: Refusal) -> None:
        assert self.lease is None
        assert self.refusal is None
        self.refusal = refusal
        self.changed.set()

    def told(self) -> None:
        self.news += 1

    def ended(self, reason: EndReason) -> None:
        self.end = reason
        self.changed.set()

    def moved(self) -> int | None:
        return self.bytes_moved

    async def answered(self) -> "Client":
        async with asyncio.timeout(5):
            await self.changed.wait()
        self.changed.clear()
        return self

    def finish(self, outcome: Outcome = Outcome.done, status: int = 200) -> None:
        assert self.lease is not None
        lease = self.lease
        self.desk.release(
            lease.ticket,
            Exchange(lease.ticket, lease.model, "/v1/chat/completions", status, True, outcome, 0.0, 0.0, None, 0.0),
        )


@dataclass
class House:
    crew: FakeCrew
    conductor: Conductor
    recorded: list[Exchange]

    def client(self) -> Client:
        return Client(self.conductor)

    def configure(self, *models: Model, settings: Settings = QUICK) -> None:
        names = {str(model.name): model.name for model in models} | {"a": ALPHA}
        self.conductor.configure(models, DEVICES, settings, names)

    async def settled(self, true: object) -> None:
        assert callable(true)
        async with asyncio.timeout(5):
            while not true():
                await asyncio.sleep(0)


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[House]:
    crew, tasks, recorded = FakeCrew(), Tasks("test"), list[Exchange]()
    journal = Journal(tmp_path / "journal.jsonl")
    conductor = Conductor(crew, tasks, journal=journal, recorded=recorded.append)
    stage = House(crew, conductor, recorded)
    stage.configure(Model(ALPHA), Model(BETA))
    yield stage
    conductor.close()
    await tasks.aclose()
    journal.close()


async def test_a_request_is_granted_after_check_start_and_proof(stage: House) -> None:
    client = stage.client()
    ticket = client.ask()
    notice = stage.conductor.notice(ticket)
    assert notice is not None
    assert notice.model == ALPHA
    await client.answered()
    assert client.lease is not None
    assert stage.crew.done == ["check alpha#1", "start alpha#1", "prove alpha#1"]
    assert client.news >= 1
    assert stage.conductor.notice(ticket) is None
    client.finish()
    assert [exchange.ticket for exchange in stage.recorded] == [ticket]
    assert stage.crew.outcomes == [Outcome.done]


async def test_a_warm_request_is_granted_before_arrive_returns(stage: House) -> None:
    (await _served(stage, ALPHA)).finish()
    warm = stage.client()
    warm.ask()
    assert warm.lease is not None


async def _served(stage: House, model: ModelName) -> Client:
    client = stage.client()
    client.ask(model)
    return await client.answered()


async def test_a_switch_waits_for_the_running_answer_and_stops_before_it_starts(stage: House) -> None:
    first = await _served(stage, ALPHA)
    second = stage.client()
    second.ask(BETA)
    await stage.settled(lambda: "check beta#2" in stage.crew.done)
    assert second.lease is None
    first.finish()
    await second.answered()
    assert stage.crew.done[3:] == ["check beta#2", "stop alpha#1", "start beta#2", "prove beta#2"]


async def test_a_client_that_leaves_while_waiting_is_forgotten(stage: House) -> None:
    stage.crew.waits["prove"] = asyncio.Event()
    client = stage.client()
    ticket = client.ask()
    stage.conductor.withdraw(ticket)
    assert stage.conductor.age(ticket) is None
    stage.conductor.withdraw(ticket)
    stage.crew.waits["prove"].set()
    await stage.settled(lambda: stage.conductor.snapshot().waiting == 0)
    assert client.lease is None
    assert client.refusal is None


async def test_who_is_told_to_come_back_leaves_the_load_going(stage: House) -> None:
    stage.crew.waits["prove"] = asyncio.Event()
    tickets = [stage.client().ask() for _ in range(3)]
    await stage.settled(lambda: "prove alpha#1" in stage.crew.done)
    for ticket in tickets:
        stage.conductor.let_go(ticket)
    assert stage.conductor.snapshot().waiting == 1, "one is enough"
    stage.conductor.let_go(tickets[1])
    stage.crew.waits["prove"].set()
    await stage.settled(lambda: stage.conductor.serving() == (ALPHA,))
    assert stage.conductor.snapshot().leases == 0
    assert not any("stop" in done for done in stage.crew.done)
    back = stage.client()
    back.ask()
    assert back.lease is not None
    stage.conductor.let_go(back.lease.ticket)
    assert stage.crew.outcomes[-1] is Outcome.left, "too late: it was granted"


async def test_a_wish_to_keep_a_model_for_ever_is_a_number(stage: House) -> None:
    client = stage.client()
    stage.conductor.arrive(Wish(ALPHA, keep_s=float("inf")), client)
    (await client.answered()).finish()
    (instance,) = stage.conductor.snapshot().instances
    assert instance.leaves_in_s == pytest.approx(FOR_EVER_S, abs=60)


async def test_leaving_when_the_grant_has_come_gives_the_lease_back(stage: House) -> None:
    client = await _served(stage, ALPHA)
    assert client.lease is not None
    stage.conductor.withdraw(client.lease.ticket)
    assert stage.conductor.snapshot().leases == 0
    assert stage.recorded == []


async def test_a_lease_given_back_twice_is_said_and_changes_nothing(
    stage: House, caplog: pytest.LogCaptureFixture
) -> None:
    client = await _served(stage, ALPHA)
    client.finish()
    client.finish()
    assert "released twice" in caplog.text
    assert len(stage.recorded) == 1


async def test_a_failed_start_tells_the_cause(stage: House) -> None:
    stage.crew.fails["check"] = Failure(FailureKind.missing_file, "cannot find the file x.gguf")
    client = await _served(stage, ALPHA)
    assert client.refusal is not None
    assert client.refusal.reason is Reason.load_failed
    assert client.refusal.failure == stage.crew.fails["check"]


@pytest.mark.parametrize("verb", ["check", "start", "prove"])
async def test_what_the_machine_refuses_is_told_in_its_own_words(
    stage: House, verb: str, caplog: pytest.LogCaptureFixture
) -> None:
    stage.crew.raises[verb] = [OSError(24, "Too many open files") for _ in range(9)]
    client = await _served(stage, ALPHA)
    assert client.refusal is not None
    assert client.refusal.failure is not None
    assert "Too many open files" in client.refusal.failure.cause
    assert "fault of the router" not in client.refusal.failure.cause
    assert not client.refusal.failure.deterministic
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("verb", ["check", "start", "prove"])
async def test_a_fault_of_the_crew_is_a_failure_and_hangs_nobody(
    stage: House, verb: str, caplog: pytest.LogCaptureFixture
) -> None:
    stage.crew.raises[verb] = [ZeroDivisionError("oops") for _ in range(9)]
    client = await _served(stage, ALPHA)
    assert client.refusal is not None
    assert client.refusal.failure is not None
    assert "a fault of the router" in client.refusal.failure.cause
    assert f"cannot {verb} alpha#1" in caplog.text


@pytest.mark.parametrize("error", [ZeroDivisionError("oops"), OSError(24, "Too many open files")])
async def test_a_stop_that_fails_is_tried_again_and_not_told_before(
    stage: House, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(performances, "STOP_AGAIN_S", 0.0)
    (await _served(stage, ALPHA)).finish()
    stage.crew.raises["stop"] = [error]
    await _served(stage, BETA)
    assert stage.crew.done.count("stop alpha#1") == 2


async def test_an_engine_that_dies_is_swept_and_started_anew_for_the_next_one(stage: House) -> None:
    client = await _served(stage, ALPHA)
    stage.crew.ends[InstanceId("alpha#1")].set_result(Failure(FailureKind.crashed, "it crashed"))
    await stage.settled(lambda: "stop alpha#1" in stage.crew.done)
    client.finish(Outcome.failed, status=502)
    again = await _served(stage, ALPHA)
    assert again.lease is not None
    assert again.lease.instance == "alpha#2"


async def test_a_lease_without_progress_is_ended_while_others_wait_and_a_moving_one_is_not(stage: House) -> None:
    still, moving, unseen = await _served(stage, ALPHA), stage.client(), stage.client()
    moving.ask()
    unseen.ask()
    unseen.bytes_moved = None
    assert moving.lease is not None
    assert unseen.lease is not None
    stage.client().ask(BETA)

    async def move() -> None:
        for moved in itertools.count(1):
            if still.end is not None:
                return
            moving.bytes_moved = moved
            await asyncio.sleep(0.001)

    async with asyncio.timeout(5):
        await move()
    assert still.end is EndReason.stalled
    assert moving.end is None
    assert unseen.end is None, "a whole answer cannot be seen to move"


async def test_names_aliases_and_the_default(stage: House) -> None:
    conductor = stage.conductor
    assert conductor.find("alpha") == conductor.find("a") == ALPHA
    assert conductor.find("alpah") is None
    assert conductor.find("") is None
    assert conductor.nearest("alpah") == ["alpha"]
    stage.configure(Model(ALPHA), Model(BETA, default=True))
    assert conductor.find("") == BETA
    stage.configure(Model(ALPHA))
    assert conductor.find("") == ALPHA, "a single model needs no name"
    assert set(conductor.names()) == {"alpha", "a"}


async def test_an_operator_loads_unloads_and_pins(stage: House) -> None:
    conductor = stage.conductor
    conductor.load(ALPHA)
    conductor.load(ALPHA)
    await stage.settled(lambda: conductor.snapshot().models[0].state is State.ready)
    assert conductor.snapshot().leases == 0
    assert stage.crew.done.count("start alpha#1") == 1
    assert stage.recorded == []
    conductor.pin(ALPHA, pin=True)
    assert conductor.snapshot().models[0].pin
    conductor.unload(ALPHA)
    await stage.settled(lambda: conductor.snapshot().models[0].state is State.gone)


async def test_loading_forgives_an_earlier_failure(stage: House) -> None:
    stage.crew.fails["prove"] = Failure(FailureKind.out_of_memory, "cannot fit")
    assert (await _served(stage, ALPHA)).refusal is not None
    stage.crew.fails.clear()
    refused = stage.client()
    refused.ask()
    assert refused.refusal is not None, "remembered"
    stage.conductor.load(ALPHA)
    await stage.settled(lambda: stage.conductor.snapshot().models[0].state is State.ready)


async def test_a_load_that_fails_is_told_in_the_log(stage: House, caplog: pytest.LogCaptureFixture) -> None:
    stage.crew.fails["check"] = Failure(FailureKind.missing_file, "cannot find the file x.gguf")
    with caplog.at_level("INFO"):
        stage.conductor.load(ALPHA)
        await stage.settled(lambda: "alpha is not loaded: cannot find the file x.gguf" in caplog.text)


async def test_an_operator_cancels_a_wait_and_an_answer(stage: House) -> None:
    running = await _served(stage, ALPHA)
    waiting = stage.client()
    ticket = waiting.ask(BETA)
    assert stage.conductor.cancel(ticket)
    assert waiting.refusal is not None
    assert running.lease is not None
    assert stage.conductor.cancel(running.lease.ticket)
    assert running.end is EndReason.asked
    assert not stage.conductor.cancel(TicketId(999))


async def test_an_adopted_engine_is_proved_and_used(stage: House) -> None:
    stage.crew.models[InstanceId("alpha#7")] = ALPHA
    stage.conductor.adopt(ev.Adopted(InstanceId("alpha#7"), ALPHA, (HOST_DEVICE,)))
    client = await _served(stage, ALPHA)
    assert client.lease is not None
    assert client.lease.instance == "alpha#7"
    assert stage.crew.done == ["prove alpha#7"]


@pytest.mark.parametrize("keep", [True, False])
async def test_the_end_waits_for_answers_and_refuses_who_waits(stage: House, keep: bool) -> None:
    running = await _served(stage, ALPHA)
    waiting = stage.client()
    waiting.ask(BETA)
    end = asyncio.ensure_future(stage.conductor.shut_down(keep_engines=keep))  # noqa: TID251 - awaited below
    await waiting.answered()
    assert waiting.refusal is not None
    assert waiting.refusal.reason is Reason.shutting_down
    assert not end.done()
    running.finish()
    async with asyncio.timeout(5):
        await end
    assert ("stop alpha#1" in stage.crew.done) is not keep


async def test_a_bug_of_the_core_is_loud_and_leaves_nobody_waiting(
    stage: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(event: ev.Event, now: float) -> list[object]:
        raise RuntimeError("an unknown move")

    monkeypatch.setattr(stage.conductor._scheduler, "step", broken)
    client = stage.client()
    client.ask()
    assert client.refusal is not None
    assert "an unknown move" in caplog.text


async def test_the_journal_can_be_lived_through_again(stage: House, tmp_path: Path) -> None:
    client = await _served(stage, ALPHA)
    client.finish()
    assert stage.conductor._journal is not None
    stage.conductor._journal.flush()
    lines = (tmp_path / "journal.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines][:4] == ["Configured", "Arrived", "Checked", "Started"]
    told = list(story.replay(lines))
    assert any("Grant 1 alpha#1" in line for line in told)


async def test_each_further_file_of_the_journal_can_be_lived_through_by_itself(stage: House, tmp_path: Path) -> None:
    journal = stage.conductor._journal
    assert journal is not None
    client = await _served(stage, ALPHA)
    journal.flush()
    journal._handler.doRollover()
    client.finish()
    journal.flush()
    told = list(story.replay((tmp_path / "journal.jsonl").read_text().splitlines()))
    assert told[0].startswith("approximate: ")
    assert "Configured" in told[1]
    assert "Released 1" in told[-1]


async def test_a_notice_names_the_stage(stage: House) -> None:
    stage.crew.waits["prove"] = asyncio.Event()
    client = stage.client()
    ticket = client.ask()
    await stage.settled(lambda: "prove alpha#1" in stage.crew.done)
    notice = stage.conductor.notice(ticket)
    assert notice is not None
    assert notice.stage is Stage.loading
    assert notice.phase == "loading weights"
    assert notice.percent == 50.0
    assert stage.conductor.age(ticket) is not None
    stage.crew.waits["prove"].set()
    await client.answered()


class Late(Scheduler):
    """A scheduler whose deadline has passed when it is asked for, and asked for again."""

    def __init__(self) -> None:
        super().__init__()
        self.due: float | None = asyncio.get_running_loop().time() - 1.0
        self.ticked = asyncio.Event()

    def step(self, event: ev.Event, now: float) -> list[Command]:
        if isinstance(event, ev.Ticked):
            self.due = None
            self.ticked.set()
        return []

    def deadline(self) -> float | None:
        return self.due


async def test_a_deadline_that_has_passed_is_a_tick_as_soon_as_can_be() -> None:
    tasks = Tasks("the test")
    scheduler = Late()
    conductor = Conductor(FakeCrew(), tasks, scheduler=scheduler)
    conductor.tell(ev.PinAsked(ALPHA, pin=True))
    conductor.tell(ev.PinAsked(ALPHA, pin=False))
    async with asyncio.timeout(5):
        await scheduler.ticked.wait()
    conductor.close()
    await tasks.aclose()
