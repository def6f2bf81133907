"""TabbyAPI's load, as its event stream tells it: the percent, the end, and the failure inside a 200.

This file knows the events of ``POST /v1/model/load``. What a failure means is in the adapter's table.
"""

import json
from collections.abc import Sequence
from typing import Final

from llm_router.core.words import Failure, FailureKind
from llm_router.engines.causes import COMMON, Cause, explain_by, line_failure
from llm_router.engines.engine import Answer, Job, Judge, Judgement, Verdict
from llm_router.engines.marks import CACHE, LOADING
from llm_router.engines.proof import WAIT, YES, error_text, member
from llm_router.engines.serving import part
from llm_router.wire import sse

#: In this order, and only those that the model has; the model itself takes nearly all of the time.
_PARTS: Final = {"vision": (2.0, 6.0), "draft": (6.0, 12.0), "model": (12.0, 97.0)}


def judge_load(job: Job, causes: Sequence[Cause]) -> Judge:
    """A judge of the stream, of its beginning too. An empty stream that ended says that the model was there already."""

    def judge(answer: Answer) -> Judgement:
        if answer.status == 0:
            return WAIT
        if answer.status != 200:
            return Judgement(Verdict.no, _failure(job, causes, answer.status, error_text(answer)))
        told = [event for event in map(_event, sse.events(answer.body)) if event is not None]
        broken = next((event for event in told if member(event, "error") is not None), None)
        if broken is not None:
            message = member(broken, "error", "message") or member(broken, "error")
            return Judgement(Verdict.no, _failure(job, causes, 200, str(message)))
        # The closing of the stream decides, not its last event: the cache is set up between the two.
        return _progress(told[-1] if told else None) if not answer.complete else _end(job, told)

    return judge


def _event(event: bytes) -> object:
    """The object of one event, ``None`` for pings and what is not JSON."""
    text = sse.payload(event)
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None


def _progress(event: object) -> Judgement:
    module, modules = member(event, "module"), member(event, "modules")
    kind = member(event, "model_type")
    if not isinstance(module, int) or not isinstance(modules, int) or modules <= 0:
        return Judgement(Verdict.wait, phase=LOADING)
    low, high = _PARTS.get(kind if isinstance(kind, str) else "model", _PARTS["model"])
    done = kind == "model" and module >= modules
    return Judgement(Verdict.wait, phase=CACHE if done else LOADING, percent=part(low, high, 100 * module / modules))


def _end(job: Job, told: list[object]) -> Judgement:
    last = told[-1] if told else None
    if last is None or (member(last, "model_type") in ("model", None) and member(last, "status") == "finished"):
        return Judgement(YES.verdict, phase=CACHE, percent=97.0)
    cause = f"cannot load {job.model}: TabbyAPI broke the load off without a reason"
    return Judgement(Verdict.no, Failure(FailureKind.crashed, cause))


def _failure(job: Job, causes: Sequence[Cause], status: int, message: str) -> Failure:
    if status in (401, 403):
        return Failure(FailureKind.key, f"cannot load {job.model}: TabbyAPI refuses the router's key: {message}")
    if line_failure((*causes, *COMMON), message):
        return explain_by(causes, job, None, (message,))
    kind = FailureKind.bad_argument if status == 422 else FailureKind.crashed
    return Failure(kind, f"cannot load {job.model}: TabbyAPI says: {message}")
