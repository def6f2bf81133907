"""vLLM: AWQ, GPTQ, FP8, compressed-tensors and 16-bit folders.

This file knows its flags, its log, what its ``/health`` does not say, and what it leaves behind. Facts are of
vLLM 0.33 (``vllm/``), tolerant back to 0.8. It does not know how much memory a model needs.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from llm_router.core.words import Failure, FailureKind
from llm_router.engines.causes import Cause, explain_by
from llm_router.engines.engine import (
    Answer,
    Check,
    Ended,
    Farewell,
    Job,
    Judgement,
    Launch,
    LogFact,
    Parking,
    Question,
    Step,
)
from llm_router.engines.folder import folder_checks, judge_config, model_path
from llm_router.engines.keys import secrets_of
from llm_router.engines.marks import CACHE, COMPILING, GRAPHS, LOADING, WARMING, Mark, read_marks
from llm_router.engines.proof import WAIT, YES, bearer, json_of, member
from llm_router.engines.render import CommandLine, Spelling, option_name
from llm_router.engines.serving import (
    health_step,
    identity_step,
    nice,
    own_options,
    proof,
    python_environment,
    tensor_split,
)
from llm_router.wire.dialect import Dialect

SPELLING: Final = Spelling(
    short=frozenset({"tp", "pp", "dp"}),
    negatable=frozenset({"enable-prefix-caching", "enable-chunked-prefill", "async-scheduling"}),
    spread=frozenset({"lora-modules", "compilation-sizes", "cudagraph-capture-sizes"}),
)
RESERVED: Final[Mapping[str, str]] = {
    "host": "host of the backend",
    "port": "port of the backend",
    "uds": "host and port of the backend",
    "model": "path",
    "served-model-name": "the model's name",
    "api-key": "keys of the router",
}
TENSOR: Final = ("tensor-parallel-size", "tp")
PIPELINE: Final = ("pipeline-parallel-size", "pp")
REPLICAS: Final = ("data-parallel-size", "dp")
#: What its development mode, without which it cannot sleep, opens to everybody who reaches it, key or not.
RESERVED_PATHS: Final = frozenset(
    f"/{name}"
    for name in (
        *("sleep", "wake_up", "pause", "resume", "collective_rpc", "server_info"),
        *(
            "reset_prefix_cache",
            "reset_mm_cache",
            "reset_encoder_cache",
            "init_weight_transfer_engine",
            "update_weights",
        ),
    )
)
#: Of the whole card; it was 0.9 up to 0.11 and is 0.92 since, so it is always said.
SHARE: Final = 0.9
#: What a running answer may take after SIGTERM; with 0, its default, it may hang for ever instead.
DRAIN_S: Final = 10
GRACE_S: Final = 20.0

CAUSES: Final[tuple[Cause, ...]] = (
    Cause(
        r"Free memory on device (?:cuda:(?P<device>\d+) )?\((?P<free>[\d.]+)/(?P<total>[\d.]+) Gi?B\) on startup is less",
        FailureKind.out_of_memory,
        "cannot load {model}: only {free} of {total} GiB are free{where}, less than its share; lower "
        "gpu-memory-utilization, or free the device",
    ),
    Cause(
        r"Free memory on device .*on startup is less than desired GPU memory utilization",
        FailureKind.out_of_memory,
        "cannot load {model}: less GPU memory is free than its share; lower gpu-memory-utilization, or free the device",
    ),
    Cause(
        r"No available memory for the cache blocks",
        FailureKind.out_of_memory,
        "cannot load {model}: its weights leave no memory for the cache within its share; raise "
        "gpu-memory-utilization, or give it more devices",
    ),
    Cause(
        r"\(?(?P<need>[\d.]+ Gi?B) KV cache is needed, which is larger than the available KV cache memory "
        r"\((?P<have>[\d.]+ Gi?B)\).*?maximum model length is (?P<longest>\d+)",
        FailureKind.out_of_memory,
        "cannot load {model}: a request of its full context needs {need} of cache and {have} are there; "
        "lower its context to {longest}, or give it more memory",
    ),
    Cause(
        r"KV cache is needed, which is larger than the available KV cache memory",
        FailureKind.out_of_memory,
        "cannot load {model}: a request of its full context does not fit into the cache; lower its context",
    ),
    Cause(
        r"Error in memory profiling\. Initial free memory",
        FailureKind.crashed,
        "cannot load {model}: another process freed GPU memory while vLLM measured; it can be tried again",
    ),
    Cause(
        r"Unknown quantization method:? ?['\"]?(?P<what>[\w-]+)|^\s*quantization\s*$",
        FailureKind.unsupported,
        "cannot load {model}: vLLM does not know its quantisation {what}; see which backend takes it with "
        "'llm-router models scan'",
    ),
    Cause(
        r"validation error.*\bquantization\b|Quantization method specified in the model config \((?P<what>[\w-]+)\) does not match",
        FailureKind.bad_argument,
        "cannot load {model}: quantization in its args is not one that its files have; leave it out",
    ),
    Cause(
        r"max_model_len \((?P<asked>\d+)\) is greater than the derived max_model_len \(.*?=(?P<has>\d+)",
        FailureKind.bad_argument,
        "cannot load {model}: its context of {asked} tokens is more than the {has} it was made for; lower its context",
    ),
    Cause(
        r"attention heads \((?P<heads>\d+)\) must be divisible by tensor parallel size \((?P<split>\d+)\)",
        FailureKind.bad_argument,
        "cannot split {model} over {split} devices: its {heads} attention heads do not divide; use another number of gpus",
    ),
    Cause(
        r"Sleep mode is not supported on current platform",
        FailureKind.bad_argument,
        "cannot start {model}: this machine has no GPU on which vLLM can sleep; take enable-sleep-mode out of its args",
    ),
)

_OTHER_RANK: Final = re.compile(r"^\((?:Worker|EngineCore)[^)]*_(?:TP|PP|DP|EP)[1-9]\d*(?![0-9])")
#: Printed every 10 s while requests run, also by one that hangs: then with zeros.
_WORKS: Final = re.compile(r"Avg (?:prompt|generation) throughput: (?!0+\.0+ )\d")
MARKS: Final[tuple[Mark, ...]] = (
    Mark(r"Application startup complete", WARMING, 99.0, near=True),
    Mark(r"Starting vLLM (?:API )?server.* on http", WARMING, 98.0, near=True),
    Mark(r"init engine \(profile", WARMING, 96.0, near=True),
    Mark(r"Graph capturing finished", GRAPHS, 95.0),
    Mark(r"Capturing (?:CUDA|cuda) ?graphs?[^%]*?(?P<percent>\d{1,3})%\|", GRAPHS, 80.0, 95.0),
    Mark(r"Available KV cache memory|GPU KV cache size|CPU KV cache size|# GPU blocks", CACHE, 80.0),
    Mark(r"Directly load the compiled graph", COMPILING, 70.0),
    Mark(r"Compiling a graph for|Cache the graph", COMPILING, 62.0),
    Mark(r"Dynamo bytecode transform time", COMPILING, 60.0),
    Mark(r"Loading weights took|Model loading took", LOADING, 55.0),
    Mark(r":\s+(?P<percent>\d{1,3})% Completed", LOADING, 3.0, 55.0),
    Mark(r"Starting to load model", LOADING, 3.0),
)


class VLLM:
    """The adapter of vLLM. Its key goes by environment; only paths below ``/v1`` ask for it."""

    name = "vllm"

    def help_argv(self, job: Job) -> tuple[str, ...] | None:
        # Plain --help lists groups instead of options.
        return (*_program(job), "--help=all") if _program(job)[-1] == "serve" else (*_program(job), "--help")

    def checks(self, job: Job) -> tuple[Check, ...]:
        files = (str(value) for key, value in job.options.items() if option_name(key) == "chat-template")
        return folder_checks(job, _program(job)[0], *files)

    def judge_file(self, job: Job, path: str, head: bytes, size: int) -> Failure | None:
        try:
            split = tensor_split(job, own_options(job, RESERVED), TENSOR, (PIPELINE, REPLICAS))
        except ValueError:
            split = 1  # The launch will say what is wrong with the settings.
        return judge_config(job, self.name, path, head, size, split)

    def launch(self, job: Job) -> Launch:
        if not job.path:
            raise ValueError(f"cannot start {job.model}: it has no path; set path to the model's folder")
        if job.flags is not None and "--port" not in job.flags:
            # A help that lists groups of options says nothing of options.
            job = replace(job, flags=None)
        options = own_options(job, RESERVED)
        split = tensor_split(job, options, TENSOR, (PIPELINE, REPLICAS))
        program = _program(job)
        serves = program[-1] == "serve"
        line = CommandLine((*program, model_path(job)) if serves else program, job.flags, SPELLING)
        if not serves:
            line.need("--model", model_path(job))
        line.need("--served-model-name", job.model)
        line.need("--host", job.host)
        line.need("--port", job.port)
        if split > 1:
            line.need(("--tensor-parallel-size", "-tp"), split)
        if job.context is not None and "max-model-len" not in options:
            line.need("--max-model-len", job.context)
        if job.parallel is not None and "max-num-seqs" not in options:
            line.need("--max-num-seqs", job.parallel)
        if job.devices and not options.keys() & {"gpu-memory-utilization", "kv-cache-memory-bytes"}:
            line.need("--gpu-memory-utilization", SHARE)
        if job.park and "enable-sleep-mode" not in options:
            line.need("--enable-sleep-mode")
        if "shutdown-timeout" not in options:
            nice(line, job, "--shutdown-timeout", DRAIN_S)
        if "disable-access-log-for-endpoints" not in options:
            nice(line, job, "--disable-access-log-for-endpoints", "/health,/metrics")
        line.add(options)
        return Launch(line.words(), _environment(job), job.cwd, secrets=secrets_of(job.key))

    def steps(self, job: Job) -> tuple[Step, ...]:
        headers = bearer(job.key)
        awake = (_awake(),) if _sleeps(job) else ()
        return health_step("/health"), identity_step(job, "vllm", headers), *awake, proof(job, _kind(job), headers)

    def watch(self, job: Job) -> Step | None:  # noqa: ARG002 - the protocol asks by job
        return health_step("/health")

    def read(self, line: str) -> LogFact | None:
        if _WORKS.search(line):
            return LogFact(works=True)
        return None if _OTHER_RANK.match(line) else read_marks(MARKS, line)

    def explain(self, job: Job, ended: Ended | None, tail: Sequence[str]) -> Failure:
        return explain_by(CAUSES, job, ended, tail)

    def farewell(self, job: Job) -> Farewell:  # noqa: ARG002 - the protocol asks by job
        return Farewell(GRACE_S)

    def dialect(self, job: Job) -> Dialect:
        # The one engine that refuses another name than its own (404).
        reserved = RESERVED_PATHS if _sleeps(job) else frozenset()
        return Dialect(model_name=job.model, headers=bearer(job.key), ask_usage=True, reserved=reserved)

    def all_on_devices(self, job: Job) -> bool:
        return not any(_wanted(job, name) for name in ("cpu-offload-gb", "offload-group-size"))

    def parking(self, job: Job) -> Parking | None:
        """Level 1: weights go to main memory, which must hold them. Requests in between would hang, unanswered."""
        if not _sleeps(job):
            return None
        sleep = Step("sleep", Question("POST", "/sleep?level=1", b"", timeout_s=120.0), _judge_done, attempts=1)
        wake = Step("wake", Question("POST", "/wake_up", b"", timeout_s=120.0), _judge_done, attempts=1)
        return Parking((sleep,), (wake, _awake(), proof(job, _kind(job), bearer(job.key))))


def _program(job: Job) -> tuple[str, ...]:
    if not job.command:
        return ("vllm", "serve")
    bare = len(job.command) == 1 and job.command[0].rpartition("/")[2] == "vllm"
    return (*job.command, "serve") if bare else job.command


def _environment(job: Job) -> dict[str, str]:
    environment = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if job.key:
        environment["VLLM_API_KEY"] = job.key
    if _sleeps(job):
        # Without it the routes for sleeping do not exist. It opens further ones, without a key, on loopback.
        environment["VLLM_SERVER_DEV_MODE"] = "1"
    return environment | python_environment(job)


def _wanted(job: Job, name: str) -> object:
    return next((value for key, value in job.options.items() if option_name(key) == name), None)


def _sleeps(job: Job) -> bool:
    return job.park or bool(_wanted(job, "enable-sleep-mode"))


def _kind(job: Job) -> str:
    """What its runner makes: pooling models have no chat, and are no rankers unless converted to one."""
    task, convert = _wanted(job, "task"), _wanted(job, "convert")
    if task in ("score", "rerank", "classify") or convert == "classify":
        return "rerank"
    pools = _wanted(job, "runner") == "pooling" or task in ("embed", "embedding", "reward") or convert == "embed"
    return "embeddings" if pools else "chat"


def _awake() -> Step:
    """An engine that sleeps calls itself healthy, and keeps requests without an answer."""

    def judge(answer: Answer) -> Judgement:
        asleep = member(json_of(answer), "is_sleeping")
        return YES if answer.status == 404 or (answer.status == 200 and asleep is False) else WAIT

    return Step("awake", Question("GET", "/is_sleeping"), judge)


def _judge_done(answer: Answer) -> Judgement:
    """By the status alone: up to 0.20 the answer was empty."""
    return YES if answer.status == 200 else WAIT
