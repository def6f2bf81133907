"""One token as a proof: the questions that make an instance generate, and what their answers mean.

This file knows the OpenAI forms that all engines share and the shapes of their errors. It knows no engine
by name; what only one engine does belongs to its adapter.
"""

import json
from collections.abc import Mapping

from llm_router.core.words import Failure, FailureKind
from llm_router.engines.engine import Answer, Judge, Judgement, Question, Step, Verdict

YES = Judgement(Verdict.yes)
WAIT = Judgement(Verdict.wait)
_JSON = ("Content-Type", "application/json")
_LONGEST_TEXT = 300


def bearer(key: str | None) -> tuple[tuple[str, str], ...]:
    """The header that carries the instance's key; nothing without a key."""
    return (("Authorization", f"Bearer {key}"),) if key else ()


def refused(kind: FailureKind, cause: str) -> Judgement:
    """A final no with its cause."""
    return Judgement(Verdict.no, Failure(kind, cause))


def json_of(answer: Answer) -> object:
    """The body as JSON, ``None`` when it is not."""
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):
        return None


def member(value: object, *keys: str | int) -> object:
    """What lies under these keys and indices, ``None`` when any of them is missing."""
    for key in keys:
        if isinstance(value, Mapping):
            value = value.get(key)
        elif isinstance(value, list) and isinstance(key, int) and -len(value) <= key < len(value):
            value = value[key]
        else:
            return None
    return value


def error_text(answer: Answer) -> str:
    """The engine's own words for an error, in one line of at most 300 characters.

    Understood are ``{"error": {"message"}}``, ``{"error": text}``, ``{"message"}``, ``{"detail"}`` and plain text.
    """
    parsed = json_of(answer)
    for keys in (("error", "message"), ("error",), ("message",), ("detail",), ("detail", 0, "msg")):
        found = member(parsed, *keys)
        if isinstance(found, str) and found:
            return _one_line(found)
    return _one_line(answer.body.decode("utf-8", "replace")) or "no reason given"


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_TEXT else line[: _LONGEST_TEXT - 1] + "…"


def judge_status(answer: Answer, what: str) -> Judgement | None:
    """What the status alone says of ``what`` ("the first token"); ``None`` when the body must decide.

    Silence, 502, 503, 504, 408 and 429 mean not yet; a key problem and every other error are final.
    """
    if answer.status in (0, 408, 429, 502, 503, 504):
        return WAIT
    if answer.status in (401, 403):
        return refused(FailureKind.key, f"cannot get {what}: the engine refuses the router's key ({answer.status})")
    if 200 <= answer.status < 300:
        return None
    return refused(FailureKind.crashed, f"cannot get {what}: the engine answers {answer.status}: {error_text(answer)}")


def judge_choice(answer: Answer) -> Judgement:
    """A generation is proved by a choice with a finish reason."""
    judged = judge_status(answer, "the first token")
    if judged:
        return judged
    if isinstance(member(json_of(answer), "choices", 0, "finish_reason"), str):
        return YES
    return refused(FailureKind.crashed, f"cannot get the first token: the answer holds none: {error_text(answer)}")


def judge_embedding(answer: Answer) -> Judgement:
    """An embedding is proved by a vector."""
    judged = judge_status(answer, "the first embedding")
    if judged:
        return judged
    vector = member(json_of(answer), "data", 0, "embedding")
    if isinstance(vector, str | list) and vector:
        return YES
    return refused(FailureKind.crashed, f"cannot get the first embedding: the answer holds none: {error_text(answer)}")


def judge_ranking(answer: Answer) -> Judgement:
    """A ranking is proved by a scored result, under ``results`` (Jina's form) or ``data``, or as a bare list."""
    judged = judge_status(answer, "the first ranking")
    if judged:
        return judged
    parsed = json_of(answer)
    if any(isinstance(found, list) and found for found in (parsed, member(parsed, "results"), member(parsed, "data"))):
        return YES
    return refused(FailureKind.crashed, f"cannot get the first ranking: the answer holds none: {error_text(answer)}")


_BODIES: Mapping[str, tuple[str, Mapping[str, object], Judge]] = {
    "chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}, judge_choice),
    "completions": ("/v1/completions", {"prompt": "hi"}, judge_choice),
    "embeddings": ("/v1/embeddings", {"input": "hi"}, judge_embedding),
    "rerank": ("/v1/rerank", {"query": "hi", "documents": ["hi", "ho"]}, judge_ranking),
}
#: The words for ``proof``: what an instance is asked to make.
PROOFS = tuple(_BODIES)


def proof_step(
    kind: str,
    model: str,
    headers: tuple[tuple[str, str], ...] = (),
    *,
    timeout_s: float = 60.0,
    attempts: int = 5,
    judge: Judge | None = None,
) -> Step:
    """The last step of a start: one token (``chat``, ``completions``), one vector or one ranking as ``model``.

    ``judge`` replaces the usual reading of the answer. Raises ``KeyError`` for a kind not in ``PROOFS``.
    """
    path, fields, usual = _BODIES[kind]
    body: dict[str, object] = {"model": model, **fields}
    if kind in ("chat", "completions"):
        body |= {"max_tokens": 1, "temperature": 0}
    question = Question("POST", path, json.dumps(body).encode(), (_JSON, *headers), timeout_s)
    name = "first token" if kind in ("chat", "completions") else f"first {kind}"
    return Step(name, question, judge or usual, attempts)
