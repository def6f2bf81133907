"""What the log of llama.cpp's server tells: the phases of a load, and why it failed.

This file knows the texts of the builds of 2024 to 2026, some older and some newer than others. Since 2026 the
lines of a load are printed from verbosity 4 on; before that always.
"""

import json
import re
from typing import Final

from llm_router.core.words import FailureKind
from llm_router.engines.causes import Cause
from llm_router.engines.engine import LogFact
from llm_router.engines.proof import member

#: Searched in this order: what names the cause before what only says that it failed.
CAUSES: Final = (
    Cause(
        r"couldn't bind (?:HTTP server|to server) socket",
        FailureKind.port_in_use,
        "cannot start {model}: port {port} is in use by another process; stop that or choose another port",
    ),
    Cause(
        r"error: invalid argument: (?P<what>\S+)",
        FailureKind.bad_argument,
        "cannot start {model}: llama.cpp does not know the argument {what}; correct args of the model or backend",
    ),
    Cause(
        r"error while handling argument \"(?P<what>[^\"]+)\"(?:: (?P<why>.+))?",
        FailureKind.bad_argument,
        "cannot start {model}: llama.cpp refuses the value of {what} ({why}); correct args of the model or backend",
    ),
    Cause(
        r"(?P<what>V cache quantization requires flash_attn|quantized V cache.*requires.*[Ff]lash)",
        FailureKind.bad_argument,
        "cannot start {model}: a quantised V cache needs flash attention; set fa: on beside ctv",
    ),
    Cause(
        r"failed to open GGUF file .*\(No such file or directory\)",
        FailureKind.missing_file,
        "cannot load {model}: its file {path} does not exist; correct its path",
    ),
    Cause(
        r"failed to open GGUF file .*\((?P<what>[^)]+)\)",
        FailureKind.missing_file,
        "cannot load {model}: its file {path} cannot be opened ({what})",
    ),
    Cause(
        r"invalid magic characters",
        FailureKind.bad_file,
        "cannot load {model}: {path} is not a GGUF file",
    ),
    Cause(
        r"data is not within the file bounds|corrupted or incomplete|failed to read key-value pairs"
        r"|failed to read tensor|unexpectedly reached end of file",
        FailureKind.bad_file,
        "cannot load {model}: {path} is damaged or cut off; download or copy it again",
    ),
    Cause(
        r"unknown model architecture: '(?P<what>[^']+)'",
        FailureKind.unsupported,
        "cannot load {model}: this build of llama.cpp does not know the architecture {what}; update it",
    ),
    Cause(
        r"unknown pre-tokenizer type: '(?P<what>[^']+)'",
        FailureKind.unsupported,
        "cannot load {model}: this build of llama.cpp does not know the tokenizer {what}; update it",
    ),
    Cause(
        r"(?:failed to read header|unsupported (?:GGUF )?version|bad GGUF version|invalid ggml type|has invalid ggml type)",
        FailureKind.unsupported,
        "cannot load {model}: {path} is of a GGUF version or tensor type that this build of llama.cpp does not know; update it",
    ),
    Cause(
        r"(?:failed to load model split|invalid split file|missing split)(?P<what>.*)",
        FailureKind.missing_file,
        "cannot load {model}: a part of the split file {path} is missing or of another model",
    ),
    Cause(
        r"allocating (?P<need>[\d.]+ MiB) on device (?P<device>\d+): (?:cuda|hip|musa)Malloc failed",
        FailureKind.out_of_memory,
        "cannot load {model}: out of memory{where}, which could not give {need} more; lower its context or parallel, "
        "or give it more devices",
    ),
    Cause(
        r"(?:cuda|hip|musa)Malloc failed|CUDA error: out of memory|ErrorOutOfDeviceMemory|failed to fit params",
        FailureKind.out_of_memory,
        "cannot load {model}: out of GPU memory; lower its context or parallel, or give it more devices",
    ),
    Cause(
        r"unable to allocate (?P<what>\S+) buffer|failed to allocate (?:compute )?buffer|failed to allocate buffer for kv cache",
        FailureKind.out_of_memory,
        "cannot load {model}: out of memory while its buffers were allocated; lower its context or parallel",
    ),
    Cause(
        r"missing tensor '(?P<what>[^']+)'|wrong number of tensors",
        FailureKind.unsupported,
        "cannot load {model}: the tensors of {path} are not those that this build of llama.cpp expects; update it",
    ),
    Cause(
        r"error loading model: (?P<what>.+)",
        FailureKind.bad_file,
        "cannot load {model}: llama.cpp refuses {path}: {what}",
    ),
    Cause(
        r"failed to initialize CUDA: (?P<what>.+)",
        FailureKind.driver,
        "cannot start {model}: the GPU driver does not serve llama.cpp ({what}); see nvidia-smi",
    ),
    Cause(
        r"failed to (?:create_context|create context with model|initialize the context)",
        FailureKind.out_of_memory,
        "cannot load {model}: its context could not be made, most likely for lack of memory; lower its context",
    ),
    Cause(
        r"(?:CUDA|ROCm|SYCL) error: (?P<what>.+)",
        FailureKind.driver,
        "cannot run {model}: the GPU or its driver failed ({what}); see the kernel's log",
    ),
    Cause(
        r"(?P<what>[^/\s]+\.(?:cpp|cuh?|c|h|hpp|m):\d+: (?:GGML_ASSERT|fatal error).*)",
        FailureKind.crashed,
        "cannot run {model}: llama.cpp gave itself up ({what})",
    ),
)

_PREFIX: Final = re.compile(r"^\d+\.\d\d\.\d{3}\.\d{3} [A-Z] ")
_PHASES: Final = (
    (re.compile(r"model loaded|(?:server is |init: )listening on http|all slots are idle"), "warming up", True),
    (re.compile(r"warming up the model"), "warming up", True),
    (re.compile(r"llama_context: constructing|llama_kv_cache|sched_reserve|graph_reserve"), "allocating cache", False),
    (
        re.compile(r"loading model tensors|load_tensors:|load_model: loading model|init: loading model"),
        "loading weights",
        False,
    ),
)
_STATE: Final = "cmd_child_to_router:state:"
#: One batch of a prompt is read: "progress" stands before the numbers in builds before 2026, and behind them since.
_WORKS: Final = re.compile(r"prompt processing(?: progress)?, n_")
_LISTENING: Final = re.compile(r"listening on https?://[^\s:]+:(?P<port>\d+)")


def read_line(line: str) -> LogFact | None:
    """What one line tells, with or without the prefix of elapsed time and level."""
    if line.startswith(_STATE):
        return _read_state(line[len(_STATE) :])
    text = _PREFIX.sub("", line)
    found = _LISTENING.search(text)
    port = int(found["port"]) if found else None
    for pattern, phase, near in _PHASES:
        if pattern.search(text):
            return LogFact(phase, near=near, port=port)
    if port:
        return LogFact(port=port)
    return LogFact(works=True) if _WORKS.search(text) else None


def _read_state(text: str) -> LogFact | None:
    """A line for llama-server's own router, printed when ``LLAMA_SERVER_ROUTER_PORT`` is set: it has a true percent."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if member(told, "state") == "ready":
        return LogFact("warming up", 100.0, near=True)
    value = member(told, "payload", "value")
    if member(told, "state") != "loading" or not isinstance(value, int | float) or not 0 <= value <= 1:
        return None
    return LogFact("loading weights", value * 100.0)
