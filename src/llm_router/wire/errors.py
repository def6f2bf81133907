"""Whatever goes wrong, as clients are told: one table from the reason to status, code and text.

This file knows the error bodies of OpenAI and Anthropic and what makes their SDKs try again
(``Retry-After``, ``x-should-retry``). It refuses to know when an error happens.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from llm_router.core.words import EndReason, Notice, Reason, Refusal
from llm_router.wire.notices import describe


class BadRequestError(Exception):
    """The client's request cannot be used; the text says why, ``code`` is for programs."""

    def __init__(self, message: str, code: str = "invalid_request", status: int = 400) -> None:
        super().__init__(message)
        self.fault = Fault(status, code, message, kind="invalid_request_error")


@dataclass(frozen=True, slots=True)
class Fault:
    """One error. ``retry_after_s``: when trying again may help. ``retry`` ``False``: it never will.

    ``more`` is added to the error object, for programs.
    """

    status: int
    code: str
    message: str
    kind: str = "server_error"
    retry_after_s: float | None = None
    retry: bool | None = None
    more: Mapping[str, object] = field(default_factory=dict)


#: Reason -> status, code. The text is made in ``refusal``.
_REFUSALS: Final = {
    Reason.unknown_model: (404, "model_not_found"),
    Reason.queue_full: (429, "queue_full"),
    Reason.load_failed: (503, "model_load_failed"),
    Reason.background: (503, "background_refused"),
    Reason.not_on_demand: (503, "model_not_loaded"),
    Reason.too_long: (503, "waited_too_long"),
    Reason.unloaded: (503, "model_unloaded"),
    Reason.shutting_down: (503, "shutting_down"),
}

_TEXTS: Final = {
    Reason.queue_full: "cannot queue the request for {model}: the queue is full; try again later",
    Reason.background: "cannot serve a background request now: {model} is not loaded, and it would cost a switch",
    Reason.not_on_demand: "cannot load {model} on request: it is loaded by its operator only",
    Reason.too_long: "cannot serve {model} in time: the request waited as long as it may; try again later",
    Reason.unloaded: "cannot serve {model}: it was unloaded while the request waited",
    Reason.shutting_down: "cannot serve {model}: the router is shutting down",
}

_ENDS: Final = {
    EndReason.stalled: ("stalled", "the answer was ended: its engine had to leave and made no progress with it"),
    EndReason.drain_timeout: ("drain_timeout", "the answer was ended: it ran longer than may be while others wait"),
    EndReason.instance_gone: ("engine_gone", "the answer was broken off: the engine of this model ended"),
    EndReason.asked: ("cancelled", "the answer was ended by the operator"),
}


OWN_FAULT: Final = Fault(
    500, "router_fault", "cannot go on because of a fault in llm-router; please report it with what its log says"
)


def unknown_model(name: str, nearest: Sequence[str]) -> Fault:
    """A model that nobody has configured."""
    hint = f"; did you mean {_listed(nearest)}?" if nearest else "; GET /v1/models lists what there is"
    return Fault(404, "model_not_found", f"cannot find the model {name!r}{hint}", "invalid_request_error")


def no_model(names: Sequence[str]) -> Fault:
    """A request that names no model where there is no default."""
    hint = f", for example {_listed(names)}" if names else " (GET /v1/models lists what there is)"
    return Fault(400, "model_missing", f"cannot choose a model: name one in `model`{hint}", "invalid_request_error")


def not_allowed(model: str, models: Sequence[str]) -> Fault:
    """A key that may not use this model."""
    hint = f"it may use {_listed(models)}" if models else "it may use no model"
    return Fault(403, "model_not_allowed", f"cannot use {model!r} with this key: {hint}", "permission_error")


def no_background(model: str) -> Fault:
    """A background request where such are refused."""
    text = f"cannot serve a background request for {model}: this router refuses them"
    return Fault(503, "background_refused", text, retry=False)


def refusal(refused: Refusal, notice: Notice | None = None, *, operator: bool = True) -> Fault:
    """Why the scheduler refused. ``notice`` is what the client was last told.

    Only an ``operator`` is shown the end of an engine's log: it may tell of paths, and of other people's prompts.
    """
    status, code = _REFUSALS[refused.reason]
    failure = refused.failure
    if failure is not None:
        whole = failure.cause.startswith("cannot ") and refused.model in failure.cause
        text = failure.cause if whole else f"cannot load {refused.model}: {failure.cause}"
    elif refused.reason is Reason.unknown_model:
        text = f"cannot find the model {str(refused.model)!r}"
    elif refused.reason is Reason.load_failed:
        text = f"cannot load {refused.model}"
    else:
        text = _TEXTS[refused.reason].format(model=refused.model)
    after = refused.retry_after_s
    if after is not None and status == 503:
        text += f"; try again in about {max(1, math.ceil(after))} s"
    more: dict[str, object] = {}
    if notice is not None:
        more["loading" if notice.percent is not None or notice.phase else "queue"] = loading(notice)
    if failure is not None:
        log = {"log": list(failure.tail)} if operator else {}
        more["failure"] = {"kind": failure.kind.value, "cause": failure.cause, **log}
    kind = "invalid_request_error" if status == 404 else "rate_limit_error" if status == 429 else "server_error"
    return Fault(status, code, text, kind, after, None if after is not None else False, more)


def loading(notice: Notice) -> dict[str, object]:
    """A notice for programs: what is waited for, how far it is. Unknown values are left out."""
    values: dict[str, object] = {
        "model": notice.model,
        "stage": notice.stage.value,
        "text": describe(notice),
        "waited_s": round(notice.waited_s, 3),
        "place": notice.place,
        "ahead": list(notice.ahead) or None,
        "leaving": notice.leaving,
        "phase": notice.phase,
        "percent": notice.percent,
        "left_s": notice.left_s,
    }
    return {name: value for name, value in values.items() if value is not None}


def still_waiting(notice: Notice | None, model: str, after_s: float = 10.0) -> Fault:
    """A held request whose hold ended before the model was there."""
    left = notice.left_s if notice is not None and notice.left_s is not None else after_s
    more = {"loading": loading(notice)} if notice is not None else {}
    text = f"cannot answer yet: {describe(notice) if notice else f'{model} is being loaded'}; try again later"
    return Fault(503, "model_loading", text, retry_after_s=left, more=more)


def ended(reason: EndReason) -> Fault:
    """Why the router took a lease back."""
    code, text = _ENDS[reason]
    return Fault(503, code, text, retry_after_s=1.0)


def engine(code: str, text: str) -> Fault:
    """The engine broke the rules: unreachable, broken off, garbage."""
    return Fault(502, code, text)


class _Error(msgspec.Struct):
    error: object = None
    message: object = None
    detail: object = None
    code: object = None


def of_engine(status: int, body: bytes) -> Fault:
    """An engine's error, in any of the shapes in which engines write it, as one of ours."""
    text = body.decode(errors="replace").strip()[:2000]
    code = "engine_error"
    try:
        found: object = msgspec.json.decode(body, type=_Error)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = None
    if isinstance(found, _Error):
        inner = found.error if isinstance(found.error, dict) else {}
        for message in (inner.get("message"), found.error, found.message, found.detail):
            if isinstance(message, str) and message:
                text = message
                break
        for word in (inner.get("code"), inner.get("type"), found.code):
            if isinstance(word, str) and word:
                code = word
                break
    kind = "invalid_request_error" if 400 <= status < 500 else "server_error"
    wrong = status if status >= 400 else 502
    return Fault(wrong, code, text or f"the engine answered with status {status} and no text", kind)


def headers(fault: Fault) -> list[tuple[bytes, bytes]]:
    """The headers that tell clients whether and when to try again."""
    lines = [(b"content-type", b"application/json")]
    if fault.retry_after_s is not None:
        lines.append((b"retry-after", b"%d" % max(1, math.ceil(fault.retry_after_s))))
    if fault.retry is not None:
        lines.append((b"x-should-retry", b"true" if fault.retry else b"false"))
    return lines


def openai_body(fault: Fault) -> bytes:
    """OpenAI's error object."""
    return msgspec.json.encode(
        {"error": {"message": fault.message, "type": fault.kind, "param": None, "code": fault.code, **fault.more}}
    )


#: Anthropic's error types by status (its API reference, "Errors").
_ANTHROPIC: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def anthropic_body(fault: Fault) -> bytes:
    """Anthropic's error object."""
    kind = _ANTHROPIC.get(fault.status, "api_error")
    return msgspec.json.encode(
        {"type": "error", "error": {"type": kind, "message": fault.message, "code": fault.code, **fault.more}}
    )


def body_for(path: bytes, fault: Fault) -> bytes:
    """The error in the form that clients of this path understand."""
    if path.startswith((b"/v1/messages", b"/messages")):
        return anthropic_body(fault)
    if path.startswith(b"/api/"):
        return msgspec.json.encode({"error": fault.message, "code": fault.code, **fault.more})
    return openai_body(fault)


def _listed(names: Sequence[str]) -> str:
    return " or ".join(", ".join(names).rsplit(", ", 1))
