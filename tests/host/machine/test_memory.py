import asyncio

import pytest

from llm_router.core.words import HOST_DEVICE, DeviceId, Footprint
from llm_router.host.machine import memory as module
from llm_router.host.machine.gpus import Gauge, Holder
from llm_router.host.machine.memory import TOLERANCE, Gate

GIB = 2**30
A, B = DeviceId("GPU-a"), DeviceId("GPU-b")


class Meter(Gauge):
    """A gauge whose readings the test sets."""

    def __init__(self, **used: int) -> None:
        self.now = {DeviceId(f"GPU-{name}"): value for name, value in used.items()}
        self.by_pid: dict[DeviceId, int] = {}

    def used(self, device: DeviceId) -> int | None:
        return self.now.get(device)

    def taken_by(self, pids: frozenset[int], device: DeviceId) -> int | None:
        return self.by_pid.get(device)

    def holders(self, device: DeviceId) -> tuple[Holder, ...]:
        return (Holder(42, "python", 3 * GIB), Holder(43, "Xorg", None))


def gate(meter: Meter, limit_s: float = 5.0) -> Gate:
    return Gate(meter, limit_s=limit_s, look_s=0.001)


async def test_what_an_instance_takes_is_the_difference_to_what_was_there() -> None:
    meter = Meter(a=1 * GIB, b=2 * GIB)
    ledger = gate(meter).opened((A, B))
    meter.now = {A: 6 * GIB, B: 8 * GIB}
    assert gate(meter).measure(ledger, frozenset({7})) == Footprint(6 * GIB)
    assert ledger.taken == {A: 5 * GIB, B: 6 * GIB}


async def test_the_driver_s_own_count_of_its_processes_wins() -> None:
    meter = Meter(a=1 * GIB)
    ledger = gate(meter).opened((A,))
    meter.now[A] = 9 * GIB
    meter.by_pid[A] = 4 * GIB
    assert gate(meter).measure(ledger, frozenset({7})) == Footprint(4 * GIB)


async def test_memory_is_waited_for() -> None:
    meter = Meter(a=1 * GIB)
    tested = gate(meter)
    ledger = tested.opened((A,))
    meter.now[A] = 9 * GIB
    tested.measure(ledger, frozenset())
    target = tested.target(ledger)
    assert target == {A: 1 * GIB + TOLERANCE}
    waiting = asyncio.ensure_future(tested.back(target))  # noqa: TID251 - a test's own task, awaited below
    await asyncio.sleep(0.005)
    assert not waiting.done()
    meter.now[A] = 1 * GIB + TOLERANCE
    assert await waiting == frozenset()


async def test_a_neighbour_that_came_meanwhile_is_not_waited_for() -> None:
    meter = Meter(a=1 * GIB)
    tested = gate(meter)
    ledger = tested.opened((A,))
    meter.now[A] = 5 * GIB
    tested.measure(ledger, frozenset())
    meter.now[A] = 12 * GIB
    assert tested.target(ledger) == {A: 8 * GIB + TOLERANCE}


async def test_an_engine_that_was_there_before_gives_back_what_the_driver_says_it_has() -> None:
    meter = Meter(a=6 * GIB, b=6 * GIB)
    meter.by_pid[A] = 5 * GIB
    tested = gate(meter)
    assert tested.target(tested.recalled((A, B), frozenset({7}))) == {A: 1 * GIB + TOLERANCE}


async def test_what_is_not_back_is_named_and_can_become_clean(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DIRTY_LOOK_S", 0.001)
    meter = Meter(a=1 * GIB, b=0)
    tested = gate(meter, limit_s=0.01)
    ledger = tested.opened((A, B))
    target = tested.target(ledger)
    meter.now[A] = 4 * GIB
    assert await tested.back(target) == {A}
    assert "the memory of GPU-a is not back after 0 s: held by python (pid 42, 3.0 GiB), Xorg (pid 43)" in caplog.text
    cleaned = asyncio.ensure_future(tested.clean(A, target))  # noqa: TID251 - a test's own task, awaited below
    await asyncio.sleep(0.005)
    assert not cleaned.done()
    meter.now[A] = 0
    await cleaned


async def test_the_host_s_memory_has_no_gate() -> None:
    tested = gate(Meter())
    ledger = tested.opened((HOST_DEVICE,))
    assert tested.measure(ledger, frozenset()) is None
    assert await tested.back(tested.target(ledger)) == frozenset()


async def test_a_sleeper_must_be_seen_to_free_its_memory_whoever_came_meanwhile() -> None:
    meter = Meter(a=1 * GIB)
    tested = gate(meter)
    ledger = tested.opened((A,))
    meter.now[A] = 9 * GIB
    tested.measure(ledger, frozenset())
    meter.now[A] = 14 * GIB
    level = tested.level(ledger)
    waiting = asyncio.ensure_future(tested.shrunk(ledger, frozenset, level, 2 * GIB))  # noqa: TID251 - awaited below
    await asyncio.sleep(0.005)
    assert not waiting.done()
    meter.now[A] = 8 * GIB
    assert await waiting == {}
    assert ledger.taken == {A: 2 * GIB}
    asleep = tested.level(ledger)
    meter.now[A] = 14 * GIB
    tested.moved(ledger, frozenset(), asleep)
    assert ledger.taken == {A: 8 * GIB}


async def test_a_sleeper_that_keeps_its_memory_is_told_with_what_it_holds() -> None:
    meter = Meter(a=1 * GIB)
    tested = gate(meter, limit_s=0.01)
    ledger = tested.opened((A,))
    meter.now[A], meter.by_pid[A] = 9 * GIB, 8 * GIB
    tested.measure(ledger, frozenset({7}))
    assert await tested.shrunk(ledger, lambda: frozenset({7}), tested.level(ledger), 2 * GIB) == {A: 8 * GIB}


async def test_what_cannot_be_read_is_believed_to_sleep() -> None:
    tested = gate(Meter())
    ledger = tested.opened((HOST_DEVICE,))
    assert await tested.shrunk(ledger, frozenset, tested.level(ledger), 0) == {}
