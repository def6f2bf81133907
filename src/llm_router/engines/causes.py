"""From the last lines of an engine's log to one sentence that names the cause.

This file knows how a table of texts is searched, and the texts that every Python engine shares (PyTorch,
CUDA, uvicorn, argparse, the import system). It knows no engine: each adapter brings its own table, which
is searched first.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from llm_router.core.words import DeviceId, Failure, FailureKind
from llm_router.engines.engine import Ended, Job

_LONGEST = 300
_SIGKILL = 9
#: Linux's numbers on every machine this runs on; the names are what people look for.
_SIGNALS = {
    1: "SIGHUP",
    2: "SIGINT",
    3: "SIGQUIT",
    4: "SIGILL",
    6: "SIGABRT",
    7: "SIGBUS",
    8: "SIGFPE",
    9: "SIGKILL",
    11: "SIGSEGV",
    13: "SIGPIPE",
    15: "SIGTERM",
}


@dataclass(frozen=True, slots=True)
class Cause:
    """A text of the log and what it means.

    ``text`` is a regular expression, searched anywhere in a line. ``sentence`` is a template: it knows
    ``{model}``, ``{path}``, ``{port}``, ``{program}``, ``{where}`` and the named groups of ``text``. The group
    ``device`` is the engine's own number of a GPU; ``{where}`` names the machine's.
    """

    text: str
    kind: FailureKind
    sentence: str


#: Texts of the libraries below the Python engines, the most telling first.
COMMON: tuple[Cause, ...] = (
    Cause(
        r"CUDA out of memory\..*?GPU (?P<device>\d+) has a total capacity of (?P<total>[\d.]+ \w+)",
        FailureKind.out_of_memory,
        "cannot load {model}: out of memory{where}, which has {total}; lower its context or memory share, "
        "or give it more devices",
    ),
    Cause(
        r"(?:OutOfMemoryError|CUDA out of memory|HIP out of memory)",
        FailureKind.out_of_memory,
        "cannot load {model}: out of GPU memory{where}; lower its context or memory share, or give it more devices",
    ),
    Cause(
        r"(?:DefaultCPUAllocator: can't allocate memory|^MemoryError\b|\bMemoryError$)",
        FailureKind.out_of_memory,
        "cannot load {model}: the machine is out of main memory",
    ),
    Cause(
        r"(?:\[Errno 98\]|[Aa]ddress already in use)",
        FailureKind.port_in_use,
        "cannot start {model}: port {port} is in use by another process; stop that or choose another port",
    ),
    Cause(
        r"(?P<what>CUDA driver version is insufficient|NVIDIA driver on your system is too old"
        r"|No CUDA GPUs are available|no CUDA-capable device is detected|Found no NVIDIA driver"
        r"|CUDA unknown error|libcuda\.so[.\d]*: cannot open)",
        FailureKind.driver,
        "cannot start {model}: the GPU driver does not serve the engine ({what}); see nvidia-smi",
    ),
    Cause(
        r"no kernel image is available for execution on the device",
        FailureKind.unsupported,
        "cannot start {model}: the installed engine has no code for this kind of GPU; install a build for it",
    ),
    Cause(
        r"(?P<what>(?:CUDA error|NCCL error|ncclUnhandledCudaError|ncclSystemError|CUDA driver error)[^\n]{0,120})",
        FailureKind.driver,
        "cannot start {model}: {what}",
    ),
    Cause(
        # Not the models that SGLang skips aloud in every start because a package of theirs is missing.
        r"^(?!.*[Ii]gnore import error).*No module named ['\"](?P<what>[\w.]+)['\"]",
        FailureKind.missing_program,
        "cannot start {model}: the engine's installation lacks the Python package {what}; mend {program}",
    ),
    Cause(
        r"error while loading shared libraries: (?P<what>[^:\s]+)",
        FailureKind.missing_program,
        "cannot start {model}: the engine's installation lacks the library {what}; mend {program}",
    ),
    Cause(
        # As argparse and as click say it.
        r"[Ee]rror: (?P<what>(?:No such option|Invalid value for|unrecognized arguments|argument |the following arguments|ambiguous option)[^\n]{0,160})",
        FailureKind.bad_argument,
        "cannot start {model}: the engine refuses its arguments ({what}); correct args of the model or backend",
    ),
    Cause(
        r"(?:SafetensorError|Error while deserializing header|HeaderTooLarge|InvalidHeaderDeserialization|MetadataIncompleteBuffer|incomplete metadata, file not fully covered)",
        FailureKind.bad_file,
        "cannot load {model}: a weight file in {path} is damaged or cut off; copy it again",
    ),
    Cause(
        r"trust_remote_code=True|contains custom code which must be executed",
        FailureKind.bad_argument,
        "cannot load {model}: its folder brings code of its own; set trust-remote-code in its args if you trust it",
    ),
    Cause(
        r"(?:Can't load the configuration of|does not appear to have a file named|is not a valid model identifier"
        r"|Repo id must be|Incorrect path_or_model_id|Cannot find any model weights|No safetensors weights found"
        r"|couldn't find (?:them|it) in the cached files|We couldn't connect to)",
        FailureKind.missing_file,
        "cannot load {model}: {path} is not a complete model folder (configuration, tokenizer and weights)",
    ),
    Cause(
        r"(?:FileNotFoundError|No such file or directory):? ?(?P<what>[^\n]{0,200})",
        FailureKind.missing_file,
        "cannot start {model}: a file is missing ({what})",
    ),
    Cause(
        r"No space left on device",
        FailureKind.crashed,
        "cannot start {model}: a disk or /dev/shm is full (no space left on device)",
    ),
    Cause(
        r"(?:model type `?(?P<what>[\w-]+)`? but Transformers does not recognize|Model architectures? (?P<arch>\S+) (?:are|is) not supported)",
        FailureKind.unsupported,
        "cannot load {model}: the installed engine does not know its architecture; update the engine",
    ),
)

_LAST_WORDS = re.compile(r"(?:^|[\s)\]])(?P<what>[A-Za-z_][\w.]*(?:Error|Exception|Interrupt): .+)$")

#: Exceptions that only say that there was another one before.
_ECHO: Final = re.compile(
    r"See root cause above|died during initialization|Received sigquit|initialization failed due to"
)


@lru_cache(maxsize=512)
def _compiled(text: str) -> re.Pattern[str]:
    return re.compile(text)


def explain_by(table: Sequence[Cause], job: Job, ended: Ended | None, tail: Sequence[str]) -> Failure:
    """Why ``job`` ended, or hangs (``ended`` ``None``): by the table, by ``COMMON``, else by its last words."""
    for cause in (*table, *COMMON):
        found = find(cause, tail)
        if found:
            return _told(cause, found, job, tail)
    kind = FailureKind.timeout if ended is None else FailureKind.crashed
    words = _last_words(tail)
    return Failure(kind, f"cannot start {job.model}: {_ending(ended, words)}{words}", tuple(tail))


def find(cause: Cause, tail: Sequence[str]) -> re.Match[str] | None:
    """The first line of the log that shows this cause: what follows is usually its consequence."""
    pattern = _compiled(cause.text)
    return next((found for line in tail if (found := pattern.search(line))), None)


def line_failure(table: Sequence[Cause], line: str) -> tuple[Cause, re.Match[str]] | None:
    """The cause that one line alone shows, if any."""
    return next(((cause, found) for cause in table if (found := find(cause, (line,)))), None)


def _told(cause: Cause, found: re.Match[str], job: Job, tail: Sequence[str]) -> Failure:
    words = {name: _short(text or "") for name, text in found.groupdict().items()}
    number = words.get("device", "")
    where, device = _device(job, number)
    sentence = cause.sentence.format(
        model=job.model,
        path=job.path or "its folder",
        port=job.port,
        program=job.command[0] if job.command else job.home or "the engine",
        where=where,
        **words,
    )
    return Failure(cause.kind, sentence, tuple(tail), device)


def _device(job: Job, number: str) -> tuple[str, DeviceId | None]:
    """Inside the process GPUs are counted from 0 among the visible ones; people count them in PCI order."""
    if not number.isdigit():
        return "", None
    index = int(number)
    name = job.devices[index] if index < len(job.devices) else index
    device = job.device_ids[index] if index < len(job.device_ids) else None
    return f" on GPU {name}", device


def _ending(ended: Ended | None, words: str) -> str:
    if ended is None:
        return "its engine makes no progress"
    if ended.code is None:
        return "its engine ended, nobody knows how"
    if ended.code >= 0:
        return f"its engine ended by itself with exit code {ended.code}"
    number = -ended.code
    name = _SIGNALS.get(number, f"signal {number}")
    # An engine that complained before was killed by itself: SGLang does that.
    silent = number == _SIGKILL and "its log says" not in words
    guess = ", perhaps by the kernel for lack of main memory" if silent else ""
    return f"its engine was killed by {name}{guess}"


def _last_words(tail: Sequence[str]) -> str:
    """The last exception of the log, else its last line: not a cause, but where to look."""
    for line in reversed(tail):
        found = _LAST_WORDS.search(line)
        if found and not _ECHO.search(line):
            return f"; its log says: {_short(found['what'])}"
    last = next((line for line in reversed(tail) if line.strip()), "")
    return f"; the last line of its log: {_short(last)}" if last else "; its log is empty"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
