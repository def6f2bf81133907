import json

import pytest

from llm_router.core.words import EndReason, Failure, FailureKind, ModelName, Notice, Reason, Refusal, Stage
from llm_router.wire import errors

M = ModelName("m")


@pytest.mark.parametrize("reason", list(Reason))
def test_every_refusal_has_status_code_and_text(reason: Reason) -> None:
    for after in (None, 12.3):
        fault = errors.refusal(Refusal(reason, M, after))
        assert fault.status in (404, 429, 503)
        assert fault.message.startswith("cannot ")
        assert "m" in fault.message
        body = json.loads(errors.openai_body(fault))
        assert body["error"]["code"] == fault.code
        headers = dict(errors.headers(fault))
        assert headers.get(b"retry-after") == (None if after is None else b"13")
        assert headers.get(b"x-should-retry") == (b"false" if after is None else None)


@pytest.mark.parametrize("reason", list(EndReason))
def test_every_end_has_a_cause(reason: EndReason) -> None:
    assert errors.ended(reason).message


@pytest.mark.parametrize(
    ("cause", "message"),
    [
        ("cannot start model-a: its engine ended", "cannot start model-a: its engine ended"),
        ("cannot find the file x.gguf", "cannot load model-a: cannot find the file x.gguf"),
        ("port 1 is in use", "cannot load model-a: port 1 is in use"),
    ],
)
def test_a_cause_that_says_what_cannot_be_is_not_said_twice(cause: str, message: str) -> None:
    failure = Failure(FailureKind.crashed, cause)
    assert errors.refusal(Refusal(Reason.load_failed, ModelName("model-a"), None, failure)).message == message


def test_a_failure_is_told_with_its_log() -> None:
    failure = Failure(FailureKind.out_of_memory, "out of memory on GPU 0", ("line 1", "line 2"))
    fault = errors.refusal(Refusal(Reason.load_failed, M, None, failure))
    assert fault.message == "cannot load m: out of memory on GPU 0"
    error = json.loads(errors.openai_body(fault))["error"]
    assert error["failure"] == {"kind": "out_of_memory", "cause": "out of memory on GPU 0", "log": ["line 1", "line 2"]}


def test_the_last_notice_goes_with_a_refusal() -> None:
    loading = errors.refusal(Refusal(Reason.too_long, M, 5.0), Notice(M, Stage.loading, 9.0, percent=40.0))
    assert json.loads(errors.openai_body(loading))["error"]["loading"]["percent"] == 40.0
    queued = errors.refusal(Refusal(Reason.queue_full, M, 5.0), Notice(M, Stage.queued, 9.0, place=7))
    assert json.loads(errors.openai_body(queued))["error"]["queue"]["place"] == 7


def test_names_that_were_meant() -> None:
    assert errors.unknown_model("mm", ["m1", "m2", "m3"]).message.endswith("did you mean m1, m2 or m3?")
    assert "/v1/models" in errors.unknown_model("mm", []).message
    assert errors.no_model(["m1"]).status == 400


def test_anthropics_form() -> None:
    body = json.loads(errors.anthropic_body(errors.unknown_model("x", [])))
    assert (body["type"], body["error"]["type"]) == ("error", "not_found_error")


def test_a_held_request_is_told_how_long() -> None:
    fault = errors.still_waiting(Notice(M, Stage.loading, 9.0, percent=40.0, left_s=7.2), "m")
    assert dict(errors.headers(fault))[b"retry-after"] == b"8"
    assert "40 %" in fault.message
    assert errors.still_waiting(None, "m").retry_after_s == 10.0
