"""Anything with an HTTP port: a command of the operator's own, with places for what the router decides.

This file knows the places and the usual paths by which a server of unknown kind shows that it is ready. It
knows nothing of the program: not its flags, not its log, not its errors.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from llm_router.core.words import Failure, FailureKind
from llm_router.engines.causes import explain_by
from llm_router.engines.engine import (
    Answer,
    Check,
    Ended,
    Farewell,
    Job,
    Judge,
    Judgement,
    Launch,
    LogFact,
    Need,
    Question,
    Step,
    Verdict,
)
from llm_router.engines.proof import (
    PROOFS,
    WAIT,
    YES,
    bearer,
    error_text,
    json_of,
    judge_choice,
    member,
    proof_step,
    refused,
)
from llm_router.engines.render import CommandLine, Spelling, option_name, visible_devices
from llm_router.wire.dialect import Dialect

USUAL_HEALTH: Final = "/health"
MODELS: Final = "/v1/models"
GRACE_S: Final = 10.0
#: Options that are the router's own words and no flags of the program.
OWN_OPTIONS: Final = frozenset({"proof", "served-name"})
AUTOMATIC, NO_PROOF = "auto", "none"

_PLACE: Final = re.compile(r"\{(port|host|model|path|context|key)\}")
_NEAR: Final = re.compile(
    r"\b(?:listening|running|serving|started|ready)\b.*(?:https?://|\bport\b)|startup complete", re.IGNORECASE
)


class Command:
    """The adapter of a program that the operator starts by a command of his own.

    In the command's words and in ``env``, ``{port} {host} {model} {path} {context} {key}`` are filled in; further
    braces stay. ``PORT`` and ``HOST`` are in the environment too. ``args`` may hold ``proof`` (auto, none, chat,
    completions, embeddings, rerank) and ``served-name`` (what the program calls the model); the rest are its flags.
    """

    name = "command"

    def checks(self, job: Job) -> tuple[Check, ...]:
        return (Check(Need.program, job.command[0]),) if job.command else ()

    def judge_file(self, job: Job, path: str, head: bytes, size: int) -> Failure | None:  # noqa: ARG002 - a seam
        return None

    def launch(self, job: Job) -> Launch:
        if not job.command:
            raise ValueError(f"cannot start {job.model}: it has no command; set command to the program and its words")
        _proof_kind(job)
        line = CommandLine((_fill(word, job) for word in job.command), None, Spelling())
        line.add({key: value for key, value in job.options.items() if option_name(key) not in OWN_OPTIONS})
        env = {"PORT": str(job.port), "HOST": job.host, **visible_devices(job.devices, job.device_ids)}
        env |= {key: _fill(value, job) for key, value in job.env.items()}
        return Launch(line.words(), env, job.cwd, secrets=(job.key,) if job.key and _has_key(job) else ())

    def steps(self, job: Job) -> tuple[Step, ...]:
        headers = _headers(job)
        first = Question("GET", job.health or USUAL_HEALTH, headers=headers, timeout_s=2.0)
        ready = Step(
            "ready", first, _judge_own_health if job.health else _UsualHealth(Question("GET", MODELS, headers=headers))
        )
        kind = _proof_kind(job)
        if kind == NO_PROOF:
            return (ready,)
        if kind != AUTOMATIC:
            return ready, proof_step(kind, _served_name(job), headers)
        chat = proof_step("chat", _served_name(job), headers).question
        listed = Question("GET", MODELS, headers=headers)
        return ready, Step("first token", listed, _chat_if_listed(chat), attempts=5)

    def watch(self, job: Job) -> Step | None:
        question = Question("GET", job.health or USUAL_HEALTH, headers=_headers(job))
        return Step("health", question, _judge_own_health if job.health else _judge_usual_health)

    def read(self, line: str) -> LogFact | None:
        return LogFact(near=True) if _NEAR.search(line) else None

    def explain(self, job: Job, ended: Ended | None, tail: Sequence[str]) -> Failure:
        return explain_by((), job, ended, tail)

    def farewell(self, job: Job) -> Farewell:  # noqa: ARG002 - a seam
        return Farewell(GRACE_S)

    def help_argv(self, job: Job) -> tuple[str, ...] | None:  # noqa: ARG002 - a seam
        """Nothing is asked: an unknown program might serve instead of printing help."""
        return None

    def dialect(self, job: Job) -> Dialect:
        own = _own(job).get("served-name")
        return Dialect(model_name=str(own) if own else None, headers=_headers(job), says_done=False)


def _own(job: Job) -> Mapping[str, object]:
    return {option_name(key): value for key, value in job.options.items() if option_name(key) in OWN_OPTIONS}


def _served_name(job: Job) -> str:
    return str(_own(job).get("served-name") or job.model)


def _proof_kind(job: Job) -> str:
    kind = _own(job).get("proof", AUTOMATIC)
    if kind in (False, None):
        return NO_PROOF
    if kind not in (AUTOMATIC, NO_PROOF, *PROOFS):
        words = ", ".join((AUTOMATIC, NO_PROOF, *PROOFS))
        raise ValueError(f"cannot prove {job.model} by {kind!r}: proof is one of {words}")
    return str(kind)


def _headers(job: Job) -> tuple[tuple[str, str], ...]:
    return bearer(job.key) if _has_key(job) else ()


def _has_key(job: Job) -> bool:
    """Whether the program knows the key: it was given it, or its operator says so."""
    return job.asks_for_key or any("{key}" in word for word in (*job.command, *job.env.values()))


def _fill(word: str, job: Job) -> str:
    def value(place: re.Match[str]) -> str:
        found: object = getattr(job, place[1])
        if found is None or found == "":
            raise ValueError(
                f"cannot fill {place[0]} in the command of {job.model}: the model has no {place[1]}; set it"
            )
        return str(found)

    return _PLACE.sub(value, word)


def _judge_own_health(answer: Answer) -> Judgement:
    """Any 2xx is ready. A server may add the path late, so everything else is not yet, but for a wrong key."""
    if 200 <= answer.status < 300:
        return YES
    if answer.status in (401, 403):
        return refused(
            FailureKind.key, f"cannot check its health: it asks for a key ({answer.status}); give it {{key}}"
        )
    return WAIT


def _judge_usual_health(answer: Answer) -> Judgement:
    """A running server without the usual path is not ill."""
    return YES if answer.status == 404 else _judge_own_health(answer)


class _UsualHealth:
    """Reads the answer of ``/health``; when there is none, that of ``/v1/models``. It remembers which was asked."""

    def __init__(self, models: Question) -> None:
        self._models = models
        self._asked_models = False

    def __call__(self, answer: Answer) -> Judgement:
        if answer.status != 404:
            return _judge_own_health(answer)
        if not self._asked_models:
            self._asked_models = True
            return Judgement(Verdict.wait, instead=self._models)
        return refused(
            FailureKind.wrong_identity,
            f"cannot tell when it is ready: it has neither {USUAL_HEALTH} nor {MODELS}; set health to a path that answers 2xx",
        )


def _chat_if_listed(chat: Question) -> Judge:
    """Ask for a chat where there is a list of models; a server without one is believed by its health."""

    def judge(answer: Answer) -> Judgement:
        if answer.status in (404, 405, 501):
            return YES
        told = json_of(answer)
        if answer.status == 200 and isinstance(member(told, "data"), list):
            return Judgement(Verdict.wait, instead=chat)
        judged = judge_choice(answer)
        if judged.verdict is Verdict.no and answer.status in (400, 422):
            return refused(
                FailureKind.wrong_identity,
                f"cannot get the first token: it refuses a chat: {error_text(answer)}; set proof (none, completions, "
                "embeddings) or served-name in its args",
            )
        return judged

    return judge
