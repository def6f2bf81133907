"""From the last lines of a log to a sentence: order of causes, devices, endings, last words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router.core.words import DeviceId, FailureKind
from llm_router.engines.causes import COMMON, Cause, explain_by, find, line_failure
from llm_router.engines.engine import Ended, Job

JOB = Job("alpha", ("/opt/x/bin/serve",), 8000, path="/m/a", devices=(3, 5), device_ids=(DeviceId("GPU-a"),))
OWN = Cause(
    r"boom on device (?P<device>\d+)(?: of (?P<size>\w+))?",
    FailureKind.driver,
    "cannot run {model}: boom{where} {size}",
)


def test_the_engines_own_table_is_searched_first_and_the_first_line_counts() -> None:
    tail = ["CUDA out of memory", "boom on device 0 of small", "boom on device 1"]
    failure = explain_by((OWN,), JOB, Ended(1), tail)
    assert failure.cause == "cannot run alpha: boom on GPU 3 small"
    assert failure.kind is FailureKind.driver
    assert failure.device == "GPU-a"
    assert failure.tail == tuple(tail)


def test_a_device_without_a_name_keeps_its_number() -> None:
    assert explain_by((OWN,), JOB, None, ["boom on device 1"]).device is None
    assert "GPU 5" in explain_by((OWN,), JOB, None, ["boom on device 1"]).cause
    assert "GPU 7" in explain_by((OWN,), JOB, None, ["boom on device 7"]).cause


@pytest.mark.parametrize(
    ("ended", "words"),
    [
        (None, "makes no progress"),
        (Ended(None), "nobody knows how"),
        (Ended(0), "ended by itself with exit code 0"),
        (Ended(3), "exit code 3"),
        (Ended(-9), "killed by SIGKILL, perhaps by the kernel for lack of main memory"),
        (Ended(-6), "killed by SIGABRT"),
        (Ended(-40), "killed by signal 40"),
    ],
)
def test_an_end_without_a_cause_is_described(ended: Ended | None, words: str) -> None:
    failure = explain_by((), JOB, ended, ["something", "  "])
    assert words in failure.cause
    assert failure.cause.endswith("the last line of its log: something")
    assert failure.kind is (FailureKind.timeout if ended is None else FailureKind.crashed)


def test_who_complained_before_was_not_killed_for_lack_of_memory() -> None:
    cause = explain_by((), JOB, Ended(-9), ["ValueError: odd"]).cause
    assert cause == "cannot start alpha: its engine was killed by SIGKILL; its log says: ValueError: odd"


def test_long_texts_are_cut() -> None:
    assert len(explain_by((), JOB, Ended(1), ["RuntimeError: " + "x" * 5000]).cause) < 500


def test_one_line_alone() -> None:
    shown = line_failure((OWN,), "boom on device 1")
    assert shown is not None
    assert shown[0] is OWN
    assert line_failure((OWN,), "peace") is None
    assert find(OWN, ["peace"]) is None


@given(st.lists(st.text(max_size=80), max_size=5), st.none() | st.integers(-70, 300))
def test_any_log_gives_a_sentence(tail: list[str], code: int | None) -> None:
    failure = explain_by((OWN,), JOB, Ended(code), tail)
    assert failure.cause.startswith("cannot ")


@given(st.sampled_from(COMMON), st.text(alphabet="{}x%\\", max_size=12))
def test_words_of_the_log_cannot_break_a_sentence(cause: Cause, text: str) -> None:
    line = f"No module named '{'x'}' error: unrecognized arguments {text} CUDA error: {text} No such file or directory: {text}"
    assert explain_by((cause,), JOB, Ended(1), [line]).cause.startswith("cannot ")
