"""SGLang: AWQ, GPTQ, FP8, compressed-tensors and 16-bit folders.

This file knows its flags, its order of a start (weights, cache, graphs, then the port, then a warm-up), its log,
and how it drains. Facts are of SGLang 0.5.23 (``python/sglang/srt``), tolerant back to 0.4.6. It does not know
how much memory a model needs.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from llm_router.core.words import Failure, FailureKind
from llm_router.engines.causes import Cause, explain_by
from llm_router.engines.engine import (
    Answer,
    Check,
    Ended,
    Farewell,
    FileToWrite,
    Job,
    Judgement,
    Launch,
    LogFact,
    Parking,
    Question,
    Step,
    Verdict,
)
from llm_router.engines.folder import folder_checks, judge_config, model_path
from llm_router.engines.keys import admin_key, secrets_of
from llm_router.engines.marks import CACHE, GRAPHS, LOADING, STARTING, WARMING, Mark, read_marks
from llm_router.engines.proof import WAIT, YES, bearer, json_of, member
from llm_router.engines.render import CommandLine, Spelling, option_name
from llm_router.engines.serving import identity_step, own_options, proof, python_environment, take_number, tensor_split
from llm_router.wire.dialect import Dialect

#: One value after the flag may be several words there.
SPELLING: Final = Spelling(
    spread=frozenset({"lora-paths", "lora-target-modules", "cuda-graph-bs-decode", "cuda-graph-bs", "nccl-port"})
)
RESERVED: Final[Mapping[str, str]] = {
    "host": "host of the backend",
    "port": "port of the backend",
    "model-path": "path",
    "model": "path",
    "served-model-name": "the model's name",
    "api-key": "keys of the router",
    "admin-api-key": "keys of the router",
    "config": "args of the model or backend",
}
TENSOR: Final = ("tp-size", "tensor-parallel-size", "tp")
PIPELINE: Final = ("pp-size", "pipeline-parallel-size", "pp")
#: With DP attention the replicas live on the same devices as the tensor split; only plain replicas multiply.
REPLICAS: Final = ("dp-size", "data-parallel-size", "dp")

#: Admin calls. Versions without an admin key take the usual one for them.
RESERVED_PATHS: Final = frozenset(
    f"/{name}"
    for name in (
        *("release_memory_occupation", "resume_memory_occupation", "pause_generation", "continue_generation"),
        *("update_weights_from_disk", "update_weights_from_tensor", "update_weights_from_distributed"),
        *("flush_cache", "abort_request", "load_lora_adapter", "unload_lora_adapter"),
    )
)
#: What it must be started with to sleep: memory that can be released, and weights that are kept meanwhile.
SAVERS: Final = ("enable-memory-saver", "enable-weights-cpu-backup")

#: It frees device memory in its last seconds; killed then, memory may outlive it (tokenizer_manager.py).
GRACE_S: Final = 30.0

_BUSY_PORT: Final = Cause(
    r"\[Errno 98\]|error while attempting to bind on address",
    FailureKind.port_in_use,
    "cannot start {model}: port {port} is in use by another process, which SGLang notices only after the whole load; "
    "stop that or choose another port",
)
CAUSES: Final[tuple[Cause, ...]] = (
    _BUSY_PORT,
    Cause(
        r"Not enough memory\. Please try to increase --mem-fraction-static",
        FailureKind.out_of_memory,
        "cannot load {model}: its weights leave no memory for the cache within its share; raise mem-fraction-static, "
        "lower its context, or give it more devices",
    ),
    Cause(
        r"Loaded weights leave no GPU memory for the KV cache",
        FailureKind.out_of_memory,
        "cannot load {model}: its weights leave no GPU memory for the cache; raise mem-fraction-static, or give it "
        "more devices",
    ),
    Cause(
        r"Capture cuda graph failed(?:.*?GPU (?P<device>\d+) has)?",
        FailureKind.out_of_memory,
        "cannot load {model}: out of memory{where} while capturing graphs; lower mem-fraction-static or "
        "cuda-graph-max-bs-decode",
    ),
    Cause(
        r"The memory capacity is unbalanced\. Some GPUs may be occupied",
        FailureKind.no_room,
        "cannot load {model}: its devices are not equally free; another process holds memory on one of them",
    ),
    Cause(
        r"Unknown quantization method:? ?['\"]?(?P<what>[\w-]*)",
        FailureKind.unsupported,
        "cannot load {model}: SGLang does not know its quantisation {what}; see which backend takes it with "
        "'llm-router models scan'",
    ),
    Cause(
        r"does not match the quantization method specified|Cannot find the config file for (?:awq|gptq|fp8|w4|w8|modelopt)",
        FailureKind.bad_argument,
        "cannot load {model}: quantization in its args is not the one of its files; leave it out",
    ),
    Cause(
        r"(?P<what>[\w-]*) ?quantization is currently not supported",
        FailureKind.unsupported,
        "cannot load {model}: its quantisation {what} does not run on this kind of GPU",
    ),
    Cause(
        r"Health check failed\. Server couldn't get a response from detokenizer",
        FailureKind.timeout,
        "cannot use {model}: its scheduler is stuck; SGLang's own health check got no token",
    ),
)

#: Only the first rank of the first stage counts; each prints the same lines.
_OTHER_RANK: Final = re.compile(r"^\[[^\]]*\b(?:TP|PP|DP|EP)[1-9]\d*\b[^\]]*\]")
#: Each chunk of a prompt, and one in some forty steps of generating. Older versions have a full stop.
_WORKS: Final = re.compile(r"\b(?:Prefill|Decode) batch[,.]")
MARKS: Final[tuple[Mark, ...]] = (
    Mark(r"The server is fired up and ready to roll", WARMING, 100.0, near=True),
    Mark(r"Uvicorn running on http", WARMING, 97.0, near=True),
    Mark(r"Application startup complete", WARMING, 97.0, near=True),
    Mark(r"max_total_num_tokens=", WARMING, 96.0, near=True),
    Mark(r"Capturing (?:batches|num tokens)[^|]*?(?P<percent>\d{1,3})%\|", GRAPHS, 76.0, 95.0),
    Mark(r"(?i)capture .*cuda graph end", GRAPHS, 95.0),
    Mark(r"(?i)capture .*cuda graph begin", GRAPHS, 76.0),
    Mark(r"KV Cache is allocated|KV cache allocated", CACHE, 75.0),
    Mark(r"Load weight end", CACHE, 70.0),
    Mark(r":\s+(?P<percent>\d{1,3})% Completed", LOADING, 3.0, 70.0),
    Mark(r"Load weight begin", LOADING, 3.0),
    Mark(r"Memory baseline taken|Init parallel ends|(?i:init torch distributed)", STARTING, 2.0),
)


class SGLang:
    """The adapter of SGLang. Its keys go by a file, since it takes them from no environment variable."""

    name = "sglang"

    def help_argv(self, job: Job) -> tuple[str, ...] | None:
        return (*_program(job), "--help")

    def checks(self, job: Job) -> tuple[Check, ...]:
        files = (str(value) for key, value in job.options.items() if option_name(key) == "chat-template")
        return folder_checks(job, _program(job)[0], *files)

    def judge_file(self, job: Job, path: str, head: bytes, size: int) -> Failure | None:
        try:
            split = _splits(job, own_options(job, RESERVED))
        except ValueError:
            split = 1  # The launch will say what is wrong with the settings.
        return judge_config(job, self.name, path, head, size, split)

    def launch(self, job: Job) -> Launch:
        if not job.path:
            raise ValueError(f"cannot start {job.model}: it has no path; set path to the model's folder")
        options = own_options(job, RESERVED)
        split = _splits(job, options)
        line = CommandLine(_program(job), job.flags, SPELLING)
        line.need("--model-path", model_path(job))
        line.need("--served-model-name", job.model)
        line.need("--host", job.host)
        line.need("--port", job.port)
        if split > 1:
            line.need(("--tp-size", "--tensor-parallel-size", "--tp"), split)
        if job.context is not None and "context-length" not in options:
            line.need("--context-length", job.context)
        if job.parallel is not None and "max-running-requests" not in options:
            line.need("--max-running-requests", job.parallel)
        for name in SAVERS if job.park else ():
            if name not in options:
                line.need(f"--{name}")
        if "sleep-on-idle" not in options:
            # Without it an idle engine spins on a whole core.
            line.like("--sleep-on-idle")
        # Several tokenizer processes cannot check keys; it listens on loopback all the same.
        keyless = take_number(dict(options), ("tokenizer-worker-num",), 1) > 1
        files = () if keyless else _keep_keys(line, job)
        line.add(options)
        return Launch(line.words(), python_environment(job), job.cwd, files, secrets=secrets_of(job.key))

    def steps(self, job: Job) -> tuple[Step, ...]:
        headers = bearer(job.key)
        return _ready(), identity_step(job, "sglang", headers), proof(job, _kind(job), headers)

    def watch(self, job: Job) -> Step | None:  # noqa: ARG002 - the protocol asks by job
        # Not /health: each call generates a token, takes a second, and crashes an engine whose memory is released.
        return _ready()

    def read(self, line: str) -> LogFact | None:
        if _WORKS.search(line):
            return LogFact(works=True)
        if _OTHER_RANK.match(line):
            return None
        if re.search(_BUSY_PORT.text, line):
            # It logs this after the whole load and then lives on without a port.
            cause = "cannot use its port: it is in use by another process; stop that or choose another port"
            return LogFact(failure=Failure(FailureKind.port_in_use, cause, (line,)))
        return read_marks(MARKS, line)

    def explain(self, job: Job, ended: Ended | None, tail: Sequence[str]) -> Failure:
        return explain_by(CAUSES, job, ended, tail)

    def farewell(self, job: Job) -> Farewell:
        # After SIGTERM it would wait for running requests without any limit.
        headers = (("Content-Type", "application/json"), *bearer(_admin(job)))
        abort = Question("POST", "/abort_request", b'{"rid": "", "abort_all": true}', headers, timeout_s=2.0)
        return Farewell(GRACE_S, (abort,))

    def dialect(self, job: Job) -> Dialect:
        # The name is written although any name works: it selects LoRA adapters when it holds a colon.
        return Dialect(model_name=job.model, headers=bearer(job.key), ask_usage=True, reserved=RESERVED_PATHS)

    def all_on_devices(self, job: Job) -> bool:
        options = own_options(job, RESERVED)
        return not any(options.get(name) for name in ("cpu-offload-gb", "offload-group-size", "kt-weight-path"))

    def parking(self, job: Job) -> Parking | None:
        """Possible when started with its memory saver; with weights kept in main memory, or they would be lost."""
        options = own_options(job, RESERVED)
        if not all(options.get(name, job.park) for name in SAVERS):
            return None
        headers = (("Content-Type", "application/json"), *bearer(_admin(job)))
        release = Question("POST", "/release_memory_occupation", b"{}", headers, timeout_s=60.0)
        resume = Question("POST", "/resume_memory_occupation", b"{}", headers, timeout_s=60.0)
        sleep = Step("sleep", release, _judge_done, attempts=1)
        # Asked once: a second resume of what is not released kills the server.
        wake = Step("wake", resume, _judge_done, attempts=1)
        # The scheduler asserts that it is idle, and one that is not takes the whole server with it.
        return Parking((_idle(job), sleep), (wake, _ready(), proof(job, _kind(job), bearer(job.key))))


def _program(job: Job) -> tuple[str, ...]:
    if not job.command:
        return ("sglang", "serve")
    bare = len(job.command) == 1 and job.command[0].rpartition("/")[2] == "sglang"
    return (*job.command, "serve") if bare else job.command


def _splits(job: Job, options: dict[str, object]) -> int:
    """The tensor split, taken out of the options. Replicas share devices with it when DP attention is on."""
    attention = options.get("enable-dp-attention") or take_number(dict(options), ("attn-dp-size",), 1) > 1
    return tensor_split(job, options, TENSOR, (PIPELINE,) if attention else (PIPELINE, REPLICAS))


def _kind(job: Job) -> str:
    embedding = any(option_name(key) == "is-embedding" and value for key, value in job.options.items())
    return "embeddings" if embedding else "chat"


def _admin(job: Job) -> str | None:
    """The admin key, where the installed version has one: else admin calls take the usual key."""
    known = job.flags is not None and "--admin-api-key" in job.flags
    return admin_key(job.key) if job.key and known else job.key


def _keep_keys(line: CommandLine, job: Job) -> tuple[FileToWrite, ...]:
    """Keys in a file of its own form (flags as YAML keys), so that no process list shows them."""
    if not job.key:
        return ()
    keys = {"api-key": job.key}
    if (admin := _admin(job)) and admin != job.key:
        # With it, what clients are passed through with cannot release memory or change weights.
        keys["admin-api-key"] = admin
    if not job.directory or not line.like("--config", f"{job.directory}/sglang.yml"):
        for name, key in keys.items():
            line.need(f"--{name}", key)
        return ()
    content = "".join(f'{name}: "{key}"\n' for name, key in keys.items())
    return (FileToWrite(f"{job.directory}/sglang.yml", content.encode(), secret=True),)


def _ready() -> Step:
    """``/ready`` is instant and honest; versions before it have ``/health``, which is neither, hence the proof."""
    older = Question("GET", "/health", timeout_s=25.0)

    def judge(answer: Answer) -> Judgement:
        if answer.status == 404:
            return Judgement(Verdict.wait, instead=older)
        return YES if answer.status == 200 else WAIT

    return Step("ready", Question("GET", "/ready", timeout_s=2.0), judge)


def _idle(job: Job) -> Step:
    """Whether nothing runs: an answer whose client has left may still be ending. Older versions cannot tell."""

    def judge(answer: Answer) -> Judgement:
        if answer.status not in (200, 404):
            return WAIT
        told = member(json_of(answer), "loads")
        loads = told if isinstance(told, list) else []
        busy = any(member(load, name) for load in loads for name in ("num_running_reqs", "num_waiting_reqs"))
        return WAIT if busy else YES

    return Step("idle", Question("GET", "/v1/loads", headers=bearer(job.key), timeout_s=2.0), judge)


def _judge_done(answer: Answer) -> Judgement:
    return YES if answer.status == 200 else WAIT
