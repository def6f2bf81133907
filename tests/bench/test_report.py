"""The figures as tables."""

from bench.cases import CASES

from bench import report

ROAD = {
    "direct": {"json-1": {"failed": 0, "whole_p50": 18.0, "whole_p99": 30.0}},
    "router": {"json-1": {"failed": 1, "cpu": 1234.5, "whole_p50": 120.0, "whole_p99": 230.0, "per_second": 7000}},
}
IDLE = {"router": {"rss_mb": 58.0, "cpu_percent": 0.1}}


def test_numbers_are_readable() -> None:
    assert report.number(1234567.0) == "1,234,567"
    assert report.number(None) == "-"


def test_what_is_added_is_the_difference_to_direct_access() -> None:
    text = report.waits(ROAD, CASES[:1])
    assert "| 1 KB, 1 connection | router | the whole answer | 102 | 200 | 7,000 | 1 |" in text.splitlines()


def test_direct_access_has_no_column_of_cpu() -> None:
    text = report.cpu(ROAD, CASES[:1])
    assert "| Case | Per | router |" in text
    assert "1,234.5" in text


def test_a_report_holds_what_was_measured_and_nothing_else() -> None:
    machine = {"cpu": "some", "cores": 2, "memory_gb": 16, "system": "Linux", "python": "3.11"}
    head = {"machine": machine, "rounds": 1, "load_average": 0.1}
    whole = report.markdown(
        {
            **head,
            "road": ROAD,
            "idle": IDLE,
            "lag": {"busy": {"p50": 20.0, "max": 60.0, "count": 8}},
            "decisions": {"10": {"p50_us": 30.0, "p99_us": 60.0, "per_second": 30000}},
        },
        CASES[:1],
    )
    assert whole.count("###") == 5
    assert report.markdown(head, []).count("###") == 0
