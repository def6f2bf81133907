"""A model as a folder of safetensors: what must be there, and which engine takes which quantisation.

This file knows ``config.json`` as far as a start depends on it. It does not estimate memory, and it reads
no file itself: the host hands it the bytes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from llm_router.core.words import Failure, FailureKind
from llm_router.engines.engine import Check, Job, Need
from llm_router.engines.proof import member

#: Who takes what, for the hint in a refusal; from the engines' own tables of quantisation methods.
TAKERS: Mapping[str, str] = {
    "exl3": "tabbyapi",
    "exl2": "tabbyapi-exl2",
    "gguf": "llamacpp",
    "awq": "sglang or vllm",
    "gptq": "sglang or vllm",
    "fp8": "sglang or vllm",
    "mxfp4": "sglang or vllm",
    "compressed-tensors": "sglang or vllm",
    "bitsandbytes": "transformers",
}


@dataclass(frozen=True, slots=True)
class Taste:
    """What an engine loads. Of ``only`` and ``never`` at most one is set; ``why`` completes the refusal."""

    engine: str
    never: frozenset[str] = frozenset()
    only: frozenset[str] | None = None
    why: Mapping[str, str] = field(default_factory=dict)

    def takes(self, method: str) -> bool:
        return method in self.only if self.only is not None else method not in self.never


def model_path(job: Job) -> str:
    """The model's folder: ``path``, below ``model_dir`` when it is relative and that is configured."""
    return str(PurePosixPath(job.model_dir, job.path)) if job.model_dir else job.path


def is_local(path: str) -> bool:
    """Whether the path is a place on this machine, not a name on a hub."""
    return path.startswith(("/", "./", "../", "~"))


def folder_checks(job: Job, program: str, *extra: str) -> tuple[Check, ...]:
    """The program, the model's folder with its ``config.json``, and further files that the settings name."""
    checks = [Check(Need.program, program)]
    path = model_path(job)
    if path.endswith(".gguf"):
        checks.append(Check(Need.model_header, path))
    elif is_local(path):
        checks += [Check(Need.directory, path), Check(Need.model_header, path.rstrip("/") + "/config.json")]
    checks += [Check(Need.file, path) for path in extra if is_local(path)]
    return tuple(checks)


def judge_config(job: Job, taste: Taste, head: bytes, size: int, split: int = 1) -> Failure | None:
    """Whether the model with this ``config.json`` can be served, split over ``split`` devices by heads."""
    if head.startswith(b"GGUF"):
        return _refusal(job, taste, "gguf")
    if size == 0:
        return Failure(FailureKind.bad_file, f"cannot load {job.model}: config.json in {job.path} is empty")
    config = _object(head)
    if config is None:
        return Failure(
            FailureKind.bad_file,
            f"cannot load {job.model}: config.json in {job.path} is not a JSON object; copy it again",
        )
    method = quant_method(config)
    if not taste.takes(method):
        return _refusal(job, taste, method)
    return _uneven(job, config, split)


def quant_method(config: Mapping[str, object]) -> str:
    """The quantisation that ``config.json`` names, ``none`` for plain weights."""
    for where in (config, member(config, "text_config")):
        method = member(where, "quantization_config", "quant_method")
        if isinstance(method, str) and method:
            return method.lower()
    return "none"


def _object(head: bytes) -> dict[str, object] | None:
    try:
        parsed = json.loads(head)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def _refusal(job: Job, taste: Taste, method: str) -> Failure:
    taker = TAKERS.get(method)
    hint = taste.why.get(method) or (
        f"use the backend {taker}" if taker and taker != taste.engine else "use another backend"
    )
    what = "a GGUF file" if method == "gguf" else f"quantised as {method}" if method != "none" else "not quantised"
    return Failure(
        FailureKind.unsupported, f"cannot load {job.model} with {taste.engine}: {job.path} is {what}; {hint}"
    )


def _uneven(job: Job, config: Mapping[str, object], split: int) -> Failure | None:
    heads = member(config, "num_attention_heads") or member(config, "text_config", "num_attention_heads")
    if split > 1 and isinstance(heads, int) and heads % split:
        return Failure(
            FailureKind.bad_argument,
            f"cannot split {job.model} over {split} devices: its {heads} attention heads do not divide by {split}; "
            "use another number of gpus, or a pipeline split",
        )
    return None
