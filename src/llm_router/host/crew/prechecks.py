"""What is checked before a start: files, folders, programs, the head of the model's file, the size of its weights.

It asks the machine what an engine's adapter wants to know, in the adapter's order, and gives the first thing
that does not hold. Blocking; run it in a thread.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from llm_router.core.words import Failure, FailureKind
from llm_router.engines.engine import Check, Engine, Job, Need, Resident
from llm_router.formats.gguf_files import part_names
from llm_router.host.machine.programs import find_program

GIB: Final = 2**30
#: So much of a model's file is read before anybody is stopped for it.
HEAD_BYTES: Final = 16 * 1024 * 1024
#: Files of weights, by their endings.
WEIGHTS: Final = frozenset({".safetensors", ".bin", ".gguf", ".pt"})


def weights_of(job: Job) -> int | None:
    """The size of the model's files in bytes, for the progress of a load; ``None`` if they are not to be found here."""
    path = Path(job.model_dir, job.path) if job.path else None
    try:
        if path is None or not path.exists():
            return None
        if path.is_file():
            parts = [path.with_name(part) for part in part_names(path.name)] or [path]
            return sum(part.stat().st_size for part in parts)
        return sum(file.stat().st_size for file in path.iterdir() if file.suffix in WEIGHTS) or None
    except OSError:
        return None


def too_large(engine: Engine, job: Job, totals: Sequence[int]) -> Failure | None:
    """Whether the weights alone are larger than the memory they must lie in; ``totals`` are the devices', in bytes.

    Only what can never fit is refused: the rest is an estimate, and the engine knows better. An engine that may keep
    weights elsewhere, in main memory or on the disk, is let try.
    """
    weights = weights_of(job)
    if weights is None or not totals or not isinstance(engine, Resident):
        return None
    try:
        resident = engine.all_on_devices(job)
    except ValueError:
        return None  # The launch will say what is wrong with the settings.
    if not resident or weights <= sum(totals):
        return None
    where = "its device has" if len(totals) == 1 else f"its {len(totals)} devices have together"
    return Failure(
        FailureKind.out_of_memory,
        f"cannot load {job.model}: its weights are {weights / GIB:.1f} GiB, {where} {sum(totals) / GIB:.1f} GiB; give it "
        "more devices, or take a smaller edition of it",
    )


def unmet(engine: Engine, job: Job) -> Failure | None:
    """The first pre-check that does not hold, ``None`` if all do."""
    for check in engine.checks(job):
        failure = _failure_of(check, engine, job)
        if failure is not None:
            return failure
    return None


def _failure_of(check: Check, engine: Engine, job: Job) -> Failure | None:
    path = Path(check.path)
    match check.need:
        case Need.program:
            if find_program(check.path, job.cwd) is None:
                return Failure(
                    FailureKind.missing_program,
                    f"cannot find the program {check.path}; install it or correct `command`",
                )
        case Need.directory:
            if not path.is_dir():
                return Failure(FailureKind.missing_file, f"cannot find the folder {check.path}")
        case Need.file:
            if not path.is_file():
                return Failure(FailureKind.missing_file, f"cannot find the file {check.path}")
        case Need.model_header:
            try:
                with path.open("rb") as file:
                    head = file.read(HEAD_BYTES)
                    size = os.fstat(file.fileno()).st_size
            except OSError as error:
                return Failure(FailureKind.missing_file, f"cannot read {check.path}: {error.strerror or error}")
            return engine.judge_file(job, check.path, head, size)
    return None
