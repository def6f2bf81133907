"""What the Python engines have in common: their environment, their split over devices, their first questions.

This file knows the forms that SGLang, vLLM and transformers share because they share libraries. What only
one of them does is in its own adapter.
"""

import re
from collections.abc import Iterable, Mapping

from llm_router.core.words import FailureKind
from llm_router.engines.engine import Answer, Job, Judgement, Question, Step, Verdict
from llm_router.engines.folder import is_local, model_path
from llm_router.engines.proof import (
    WAIT,
    YES,
    error_text,
    json_of,
    judge_choice,
    judge_status,
    member,
    proof_step,
    refused,
)
from llm_router.engines.render import CommandLine, option_name, visible_devices

_PORT = re.compile(r"https?://[^\s/:]*:(\d{1,5})\b|https?://\[[0-9a-f:.]*\]:(\d{1,5})\b")
#: The one spelling that both the multi-threaded and the older loaders of SGLang and vLLM print.
SHARDS = re.compile(r":\s+(\d{1,3})% Completed")
#: A first answer may compile kernels; one that takes longer is asked for again.
PROOF_S = 60.0
PROOF_ASKS = 3


def python_environment(job: Job) -> dict[str, str]:
    """Unbuffered and colourless logs, no network for a model that is here, the devices, then the job's own."""
    environment = {"PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "TERM": "dumb"}
    if is_local(model_path(job)):
        environment["HF_HUB_OFFLINE"] = "1"
    return environment | visible_devices(job.devices, job.device_ids) | dict(job.env)


def own_options(job: Job, set_by_router: Mapping[str, str]) -> dict[str, object]:
    """The options by bare name, in their order.

    Raises ``ValueError`` for one that the router sets itself; ``set_by_router`` names the word to use instead.
    """
    options: dict[str, object] = {}
    for key, value in job.options.items():
        name = option_name(key)
        if name in set_by_router:
            raise ValueError(
                f"cannot pass the option {key!r} for {job.model}: the router sets it; use {set_by_router[name]}"
            )
        options[name] = value
    return options


def take_number(options: dict[str, object], names: Iterable[str], default: int) -> int:
    """Take the first of these spellings out of the options, as a number of at least 1. Raises ``ValueError``."""
    chosen: int | None = None
    for name in names:
        if name not in options:
            continue
        value = options.pop(name)
        if isinstance(value, bool) or not str(value).isdigit() or int(str(value)) < 1:
            raise ValueError(f"cannot use {name}: {value!r} is not a whole number of at least 1")
        chosen = int(str(value)) if chosen is None else chosen
    return default if chosen is None else chosen


def tensor_split(job: Job, options: dict[str, object], tensor: Iterable[str], others: Iterable[Iterable[str]]) -> int:
    """How many devices share each layer: all of them, divided by what the other splits take.

    ``others`` are the spellings of pipeline and data splits, which stay in the options. Raises ``ValueError``
    when the devices cannot be divided like that.
    """
    rest = 1
    for names in others:
        rest *= take_number(dict(options), names, 1)
    devices = len(job.devices)
    default = devices // rest if devices else 1
    chosen = take_number(options, tensor, max(default, 1))
    if devices and chosen * rest != devices:
        raise ValueError(
            f"cannot split {job.model} over {devices} devices: tensor split {chosen} times the other splits {rest} "
            f"is {chosen * rest}; change gpus or the splits in args"
        )
    return chosen


def nice(line: CommandLine, job: Job, flag: str, *values: object) -> None:
    """Add a flag that is only a comfort, if the installed program surely has it."""
    if job.flags is not None:
        line.like(flag, *values)


def listening_port(line: str) -> int | None:
    """The port of the first address in a line of the log."""
    found = _PORT.search(line)
    return int(found[1] or found[2]) if found else None


def health_step(path: str, *, timeout_s: float = 2.0, headers: tuple[tuple[str, str], ...] = ()) -> Step:
    """Wait until ``path`` answers 200; everything else is not yet."""

    def judge(answer: Answer) -> Judgement:
        return YES if answer.status == 200 else WAIT

    return Step("ready", Question("GET", path, headers=headers, timeout_s=timeout_s), judge)


def identity_step(job: Job, owner: str, headers: tuple[tuple[str, str], ...] = ()) -> Step:
    """The model list must hold the served name, and be of this engine."""

    def judge(answer: Answer) -> Judgement:
        judged = judge_status(answer, "the list of models")
        if judged:
            return judged
        entries = member(json_of(answer), "data")
        cards = entries if isinstance(entries, list) else []
        names = [name for card in cards if isinstance(name := member(card, "id"), str)]
        strangers = [card for card in cards if member(card, "owned_by") not in (None, owner)]
        if job.model in names and not strangers:
            return YES
        found = ", ".join(names) or error_text(answer)
        return refused(
            FailureKind.wrong_identity,
            f"cannot use port {job.port} for {job.model}: another server answers there and serves {found}",
        )

    return Step("identity", Question("GET", "/v1/models", headers=headers), judge, attempts=5)


def proof(job: Job, kind: str, headers: tuple[tuple[str, str], ...] = (), served: str | None = None) -> Step:
    """One token, vector or ranking, asked of ``served`` (default: the model's name).

    A model without a chat template is asked to complete a text instead. SGLang and vLLM say that this is why;
    transformers answers a bare 500, and TabbyAPI a 422.
    """
    name = served or job.model
    if kind != "chat":
        return proof_step(kind, name, headers, timeout_s=PROOF_S, attempts=PROOF_ASKS)
    completion = proof_step("completions", name, headers, timeout_s=PROOF_S).question

    def judge(answer: Answer) -> Judgement:
        why = error_text(answer).lower()
        if (answer.status in (400, 422, 500) and "chat template" in why) or why == "internal server error":
            return Judgement(Verdict.wait, instead=completion)
        return judge_choice(answer)

    return proof_step("chat", name, headers, timeout_s=PROOF_S, attempts=PROOF_ASKS, judge=judge)


def part(low: float, high: float, percent: float) -> float:
    """Where ``percent`` of one phase lies in the whole load, which it takes from ``low`` to ``high``."""
    return round(low + (high - low) * min(max(percent, 0.0), 100.0) / 100.0, 1)
