"""A model as a folder of safetensors: what must be there before a start, and what can already be refused.

This file knows which files a start needs and asks ``formats`` what they say. It does not estimate memory, and
it reads no file itself: the host hands it the bytes.
"""

from pathlib import PurePosixPath
from typing import Final

from llm_router.core.words import Failure, FailureKind
from llm_router.engines.engine import Check, Job, Need
from llm_router.formats.document import read_document
from llm_router.formats.estimate import judge_split
from llm_router.formats.hf_config import quantisation
from llm_router.formats.hf_shape import shape
from llm_router.formats.reading import BadFile
from llm_router.formats.serving import refusal
from llm_router.formats.words import Format

#: Methods without a name of ours: a newer engine may know them, so it is asked.
_UNNAMED: Final = frozenset({Format.other, Format.unknown})


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


def judge_config(job: Job, engine: str, path: str, head: bytes, size: int, split: int = 1) -> Failure | None:
    """Whether ``engine`` can serve the model whose ``config.json`` (or GGUF file) begins with ``head``.

    ``size`` is the file's, in bytes; ``split`` the number of devices that share each layer.
    """
    if head.startswith(b"GGUF"):
        return _unsupported(job, refusal(engine, Format.gguf))
    if len(head) < size:
        return Failure(
            FailureKind.bad_file, f"cannot load {job.model}: {path} has {size} bytes, too many for what it is"
        )
    config = read_document(head, PurePosixPath(path).name)
    if isinstance(config, BadFile):
        return Failure(FailureKind.bad_file, f"cannot load {job.model}: {config.reason} ({path})")
    format_ = quantisation(config).format
    if format_ not in _UNNAMED and (why := refusal(engine, format_)):
        return _unsupported(job, why)
    layers = shape(config)
    uneven = judge_split(layers, split) if layers else None
    return Failure(FailureKind.bad_argument, f"cannot split {job.model}: {uneven}") if uneven else None


def _unsupported(job: Job, why: str | None) -> Failure | None:
    return Failure(FailureKind.unsupported, f"cannot load {job.model}: {why}") if why else None
