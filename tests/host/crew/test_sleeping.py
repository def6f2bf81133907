"""Sleep and wake by an adapter's steps, with an engine and a driver in memory."""

from pathlib import Path
from typing import Any

import pytest

from llm_router.core.words import DeviceId, Failure, FailureKind, InstanceId
from llm_router.engines.engine import Answer, Ended, Job, Judgement, Parking, Question, Step, Verdict
from llm_router.host.crew.place import Place
from llm_router.host.crew.probe import Eyes, Proof
from llm_router.host.crew.sleeping import Sleeping
from llm_router.host.machine.gpus import Gauge
from llm_router.host.machine.memory import Gate, Ledger
from llm_router.wire.dialect import Dialect

GIB = 2**30
CARD = DeviceId("GPU-a")


def judge(answer: Answer) -> Judgement:
    return Judgement(Verdict.yes if answer.status == 200 else Verdict.wait)


class Engine:
    """Sleeps and wakes by one question each, if its job was started for it."""

    def parking(self, job: Job) -> Parking | None:
        steps = {name: (Step(name, Question("POST", f"/{name}"), judge, attempts=1),) for name in ("sleep", "wake")}
        return Parking(steps["sleep"], steps["wake"]) if job.park else None

    def read(self, line: str) -> None:
        return None

    def explain(self, job: Job, ended: Ended | None, tail: object) -> Failure:
        return Failure(FailureKind.crashed, f"ended with {ended.code if ended else None}")


class Card(Gauge):
    """One card; ``now`` are the bytes in use."""

    def __init__(self) -> None:
        self.now = 17 * GIB

    def used(self, device: DeviceId) -> int | None:
        return self.now

    def taken_by(self, pids: frozenset[int], device: DeviceId) -> int | None:
        return None


class Yard:
    """One awake instance of 16 GiB beside 1 GiB of somebody else, and what it answers."""

    def __init__(self, folder: Path) -> None:
        self.card = Card()
        self.sleeping = Sleeping(Gate(self.card, limit_s=0.02, look_s=0.001))
        job = Job("m", ("x",), 1, directory=str(folder / "work"), park=True)
        engine: Any = Engine()
        self.place = Place(InstanceId("m#1"), "m", "r", (CARD,), engine, job, Dialect(), 0.0)
        self.place.ledger = Ledger({CARD: GIB}, {CARD: 16 * GIB})
        self.asked: list[str] = []
        self.status = 200
        self.frees = 15 * GIB
        self.news: list[str] = []

    def eyes(self) -> Eyes:
        async def ask(host: str, port: int, question: Question) -> Answer:
            self.asked.append(question.path)
            self.card.now += {"/sleep": -self.frees, "/wake": self.frees}[question.path]
            return Answer(self.status)

        async def ended() -> Ended:
            await self.place.settled.wait()
            return Ended(-9)

        return Eyes(ask, ended)

    async def sleep(self, most: int = 2 * GIB) -> Proof | Failure:
        return await self.sleeping.sleep(self.place, self.eyes(), frozenset, most=most, limit_s=5.0)

    async def wake(self) -> Proof | Failure:
        told = self.news
        return await self.sleeping.wake(
            self.place, self.eyes(), frozenset, limit_s=5.0, history=(), news=lambda phase, *_: told.append(phase)
        )


@pytest.fixture
def one(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


def sleeps(one: Yard) -> bool:
    """What the next router would find."""
    return one.place.asleep


async def test_it_sleeps_and_wakes_and_its_memory_is_followed(one: Yard) -> None:
    assert isinstance(await one.sleep(), Proof)
    assert sleeps(one)
    assert one.place.ledger.taken == {CARD: GIB}
    assert isinstance(await one.wake(), Proof)
    assert not sleeps(one)
    assert one.place.ledger.taken == {CARD: 16 * GIB}
    assert one.asked == ["/sleep", "/wake"]
    assert one.news


async def test_its_word_alone_is_not_believed(one: Yard) -> None:
    one.frees = 0
    failure = await one.sleep()
    assert isinstance(failure, Failure)
    assert failure.cause.startswith(
        "cannot park m: it says that it sleeps, but holds 16.0 GiB of GPU-a; raise parked_memory (now 2.0 GiB)"
    )


async def test_what_does_not_fall_asleep_may_be_asleep_all_the_same(one: Yard) -> None:
    one.status = 500
    failure = await one.sleep()
    assert isinstance(failure, Failure)
    assert failure.cause.startswith("cannot park m: it does not fall asleep (")
    assert sleeps(one), "the next router must not ask it for a token"


async def test_what_does_not_wake_is_a_failure(one: Yard) -> None:
    await one.sleep()
    one.status = 500
    assert isinstance(await one.wake(), Failure)
    assert sleeps(one)


async def test_one_that_dies_of_it_is_told_with_its_end(one: Yard) -> None:
    one.status = 0
    one.place.settled.set()
    failure = await one.sleep()
    assert isinstance(failure, Failure)
    assert "ended with -9" in failure.cause


async def test_what_was_not_started_for_it_is_not_asked(tmp_path: Path) -> None:
    one = Yard(tmp_path)
    one.place.job = Job("m", ("x",), 1)
    for failure in (await one.sleep(), await one.wake()):
        assert isinstance(failure, Failure)
        assert failure.kind is FailureKind.unsupported
    assert one.asked == []
    assert not sleeps(one)
