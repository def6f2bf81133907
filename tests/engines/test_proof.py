"""What proves that an instance works, and what its errors say, in all the engines' shapes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router.core.words import FailureKind
from llm_router.engines.engine import Answer, Judge, Verdict
from llm_router.engines.proof import (
    PROOFS,
    bearer,
    error_text,
    judge_choice,
    judge_embedding,
    judge_ranking,
    member,
    proof_step,
)

CHOICE = {"choices": [{"index": 0, "message": {"content": "I"}, "finish_reason": "length"}]}


def of(body: object, status: int = 200) -> Answer:
    return Answer(status, body=body if isinstance(body, bytes) else json.dumps(body).encode())


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"error": {"message": "Loading model", "code": 503}}, "Loading model"),
        ({"error": "plain"}, "plain"),
        ({"object": "error", "message": "flat", "code": 400}, "flat"),
        ({"detail": "fastapi"}, "fastapi"),
        ({"detail": [{"msg": "field required"}]}, "field required"),
        (b"<html>\n  Bad   Gateway</html>", "<html> Bad Gateway</html>"),
        (b"", "no reason given"),
        ({"error": {"message": "x" * 1000}}, "x" * 299 + "…"),
    ],
)
def test_every_shape_of_error_is_read(body: object, text: str) -> None:
    assert error_text(of(body)) == text


def test_members_are_found_or_none() -> None:
    value = {"a": [{"b": 1}]}
    assert member(value, "a", 0, "b") == 1
    assert member(value, "a", -1, "b") == 1
    for road in (("a", 1, "b"), ("a", "b"), ("x",), ("a", 0, "b", "c")):
        assert member(value, *road) is None


@pytest.mark.parametrize("status", [0, 408, 429, 502, 503, 504])
@pytest.mark.parametrize("judge", [judge_choice, judge_embedding, judge_ranking])
def test_what_will_pass_is_waited_for(judge: Judge, status: int) -> None:
    assert judge(of(b"", status)).verdict is Verdict.wait


@pytest.mark.parametrize(
    ("status", "kind"), [(401, FailureKind.key), (403, FailureKind.key), (500, FailureKind.crashed)]
)
def test_other_errors_are_final_and_name_the_cause(status: int, kind: FailureKind) -> None:
    judged = judge_choice(of({"error": {"message": "Compute error."}}, status))
    assert judged.verdict is Verdict.no
    assert judged.failure is not None
    assert judged.failure.kind is kind
    assert judged.failure.cause.startswith("cannot get the first token: ")


@pytest.mark.parametrize(
    ("judge", "body", "good"),
    [
        (judge_choice, CHOICE, True),
        (judge_choice, {"choices": [{"text": "I", "finish_reason": "length"}]}, True),
        (judge_choice, {"choices": [{"text": "I", "finish_reason": None}]}, False),
        (judge_choice, {"choices": []}, False),
        (judge_choice, {"status": "ok"}, False),
        (judge_choice, b"not json", False),
        (judge_embedding, {"data": [{"embedding": [0.1]}]}, True),
        (judge_embedding, {"data": [{"embedding": "AAAA"}]}, True),
        (judge_embedding, {"data": [{"embedding": []}]}, False),
        (judge_embedding, {"data": []}, False),
        (judge_ranking, {"results": [{"index": 0, "relevance_score": 0.1}]}, True),
        (judge_ranking, {"data": [{"index": 0, "score": 0.1}]}, True),
        (judge_ranking, [{"index": 0, "score": 0.1}], True),
        (judge_ranking, {"results": []}, False),
    ],
)
def test_a_proof_is_what_was_made(judge: Judge, body: object, good: bool) -> None:
    assert judge(of(body)).verdict is (Verdict.yes if good else Verdict.no)


@pytest.mark.parametrize("kind", PROOFS)
def test_each_proof_asks_for_little_as_the_model(kind: str) -> None:
    step = proof_step(kind, "alpha", bearer("k"))
    assert step.question.body is not None
    body = json.loads(step.question.body)
    assert body["model"] == "alpha"
    assert body.get("max_tokens", 1) == 1
    assert step.attempts > 0
    assert ("Authorization", "Bearer k") in step.question.headers
    assert ("Content-Type", "application/json") in step.question.headers


def test_without_a_key_there_is_no_header() -> None:
    assert bearer(None) == bearer("") == ()


@given(st.integers(0, 599), st.binary(max_size=100))
def test_no_answer_makes_a_judge_raise(status: int, body: bytes) -> None:
    for judge in (judge_choice, judge_embedding, judge_ranking):
        judge(Answer(status, body=body))


def test_json_that_is_too_deep_is_no_answer() -> None:
    assert judge_choice(of(b"[" * 200_000)).verdict is Verdict.no
