from dataclasses import replace

import pytest

from llm_router.core.scheduler import Scheduler
from llm_router.sim.report import compare, simulate
from llm_router.sim.trace import Request, Trace, TraceModel, generate, shelf_of_three


def test_one_request_is_measured_exactly() -> None:
    trace = Trace(
        "one",
        (TraceModel("a", load_s=(10.0, 10.0)),),
        (Request(5.0, "a", prompt=1000, tokens=100),),
    )
    report = simulate(trace)
    assert report.to_dict() == {
        "policy": "ours",
        "trace": "one",
        "requests": 1,
        "granted": 1,
        "refused": 0,
        "wait_p50": pytest.approx(10.07),
        "wait_p95": pytest.approx(10.07),
        "wait_p99": pytest.approx(10.07),
        "wait_max": pytest.approx(10.07),
        "wait_mean": pytest.approx(10.07),
        "switches": 1,
        "loads": 1,
        "wakes": 0,
        "utilisation": pytest.approx(3.0 / 13.07),
        "seconds": pytest.approx(13.07),
    }


def test_percentiles_are_values_that_occurred() -> None:
    requests = tuple(Request(100.0 * number, "a") for number in range(100))
    trace = Trace("warm", (TraceModel("a", load_s=(10.0, 10.0)),), requests)
    report = simulate(trace)
    assert (report.wait_p50, report.wait_p95, report.wait_p99) == (0.0, 0.0, 0.0)
    assert report.wait_max == pytest.approx(10.07)
    assert report.wait_mean == pytest.approx(0.1007)


def test_an_empty_trace_makes_an_empty_report() -> None:
    report = simulate(Trace("nothing", (TraceModel("a"),), ()))
    assert (report.granted, report.seconds, report.utilisation, report.wait_p99) == (0, 0.0, 0.0, 0.0)


def test_unknown_policies_are_named() -> None:
    with pytest.raises(ValueError, match="cannot simulate the policy 'random': there are ours, fifo, lru"):
        simulate(generate(requests=1), "random")


def test_any_policy_can_be_simulated() -> None:
    assert simulate(generate(requests=5), Scheduler()).policy == "Scheduler"


@pytest.mark.slow
@pytest.mark.parametrize("parked", [False, True])
def test_on_the_shelf_of_three_batches_beat_plain_order_by_far(parked: bool) -> None:
    ours, fifo, lru = compare(shelf_of_three(parked=parked))
    assert ours.granted == fifo.granted == lru.granted == 600
    assert ours.wait_p50 * 10 < fifo.wait_p50
    assert ours.wait_max < fifo.wait_max / 5
    assert ours.wait_p99 < lru.wait_p99 * 1.1
    assert (ours.wakes > 0) == parked


@pytest.mark.slow
def test_parking_makes_the_waits_shorter() -> None:
    assert simulate(shelf_of_three(parked=True)).wait_p50 < simulate(shelf_of_three(parked=False)).wait_p50 / 3


@pytest.mark.slow
def test_a_busy_model_cannot_starve_another_as_it_does_when_loading_on_demand() -> None:
    """R11: red is asked every second for an hour, blue once. On demand alone, blue waits until red is left alone."""
    models = (TraceModel("red", load_s=(20.0, 20.0)), TraceModel("blue", load_s=(20.0, 20.0)))
    busy = [Request(float(second), "red") for second in range(1800)]
    trace = Trace("busy", models, tuple(sorted([*busy, Request(60.5, "blue")], key=lambda request: request.at)))
    ours, lru = simulate(trace), simulate(trace, "lru")
    assert lru.wait_max > 1700
    assert ours.wait_max < 130
    assert ours.switches <= 4


def test_seeds_of_the_host_are_the_traces() -> None:
    trace = generate(requests=60)
    assert simulate(trace) == simulate(trace)
    assert simulate(trace) != simulate(replace(trace, seed=9))
