"""How runs become figures."""

from bench.cases import CASES, Case, Run, figures, quickened
from bench.tools import Load


def found(ok: int, events: int = 0, seconds: float = 2.0, **more: object) -> dict[str, object]:
    nothing = dict.fromkeys(("refused", "bad_status", "cut", "incomplete"), 0)
    points = {"whole": {"count": ok}, "first": {"count": 0}, "event": {"count": events}}
    return {**nothing, "ok": ok, "events": events, "seconds": seconds, **points, **more}


REQUESTS = Case("requests", "requests", Load(50, seconds=2))
STREAMS = Case("streams", "streams", Load(10, events=100), "event", "requests")


def test_cpu_is_told_per_request_as_the_median_of_the_rounds() -> None:
    runs = [Run("router", "requests", found(1000), cpu_s) for cpu_s in (0.1, 0.3, 0.12)]
    row = figures(runs, [REQUESTS])["router"]["requests"]
    assert row["cpu"] == 120.0
    assert row["per_second"] == 500.0


def test_the_requests_of_streams_are_taken_off_from_their_events() -> None:
    runs = [
        Run("router", "requests", found(1000), 0.1),
        Run("router", "streams", found(10, 1000), 0.051),
    ]
    assert figures(runs, [REQUESTS, STREAMS])["router"]["streams"]["cpu"] == 50.0


def test_failures_of_all_rounds_are_summed() -> None:
    runs = [Run("router", "requests", found(10, cut=1)), Run("router", "requests", found(10, incomplete=2, refused=1))]
    assert figures(runs, [REQUESTS])["router"]["requests"]["failed"] == 4


def test_a_target_whose_processes_are_not_known_has_no_cpu() -> None:
    row = figures([Run("direct", "requests", found(10, whole={"count": 10, "p50": 18.0, "p99": 30.0}))], [REQUESTS])
    assert "cpu" not in row["direct"]["requests"]
    assert row["direct"]["requests"]["whole_p50"] == 18.0


def test_a_run_without_an_answer_divides_by_nothing() -> None:
    assert "cpu" not in figures([Run("router", "requests", found(0), 0.1)], [REQUESTS])["router"]["requests"]


def test_memory_is_told_with_what_came_on_top() -> None:
    run = Run("router", "requests", found(1), 0.1, rss_mb=70.0, rss_before_mb=60.0)
    row = figures([run], [REQUESTS])["router"]["requests"]
    assert (row["rss_mb"], row["rss_more_mb"]) == (70.0, 10.0)


def test_a_quick_run_asks_for_less_but_from_as_many_clients() -> None:
    for case in CASES:
        quick = quickened(case).load
        assert quick.connections == case.load.connections
        assert (quick.seconds or 0) <= (case.load.seconds or 0)
        assert (quick.requests or quick.connections) >= quick.connections
        assert bool(quick.events) == bool(case.load.events)


def test_every_base_is_measured_before_it_is_needed() -> None:
    seen: set[str | None] = {None}
    for case in CASES:
        assert case.base in seen
        seen.add(case.name)
