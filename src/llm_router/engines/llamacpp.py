"""llama.cpp's ``llama-server``, and any program with its flags: GGUF models.

This file knows its flags, its log, its endpoints and how it ends; facts are of llama.cpp of autumn 2026
(``common/arg.cpp``, ``tools/server/``) and tolerant of builds of the two years before. It knows nothing of
memory planning: what the configuration says is passed on, and nothing is left for the engine to fit.
"""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Final

from llm_router.core.words import Failure, FailureKind
from llm_router.engines.causes import explain_by
from llm_router.engines.engine import (
    Answer,
    Check,
    Ended,
    Farewell,
    Job,
    Judgement,
    Launch,
    LogFact,
    Need,
    Question,
    Step,
    Verdict,
)
from llm_router.engines.llamacpp_log import CAUSES, read_line
from llm_router.engines.proof import WAIT, YES, bearer, error_text, json_of, member, proof_step, refused
from llm_router.engines.render import CommandLine, Spelling, option_name, visible_devices
from llm_router.formats.gguf import MAGIC, GgufHeader, read_header
from llm_router.formats.gguf_files import part_name, part_names
from llm_router.formats.reading import BadFile
from llm_router.wire.dialect import Dialect


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


SPELLING: Final = Spelling(
    short=_words(
        "np ngl fa fit fitt fitc ctk ctv ctkd ctvd sm ts mg dev lm ub tb kvu cmoe ncmoe ot nkvo cram ctxcp "
        "lv md mm sps to nocb cb rea ngld cd devd"
    ),
    switches=frozenset({"fa", "flash-attn", "fit", "rea", "reasoning"}),
    negatable=_words(
        "mmap warmup slots jinja cont-batching kv-unified context-shift cache-prompt kv-offload op-offload "
        "repack perf ui webui mmproj-offload prefill-assistant escape"
    ),
    comma=_words("dev device ts tensor-split fitt fit-target lora ot override-tensor alias"),
)
#: What the router itself decides: the reason is told when an option tries to.
RESERVED: Final[Mapping[str, str]] = {
    "host": "the router chooses where an engine listens",
    "port": "the router chooses where an engine listens",
    "m": "set the path of the model instead",
    "model": "set the path of the model instead",
    "api-key": "the router makes the engine's keys itself",
    "api-key-file": "the router makes the engine's keys itself",
    "ssl-key-file": "the router speaks plain HTTP to its engines",
    "ssl-cert-file": "the router speaks plain HTTP to its engines",
    "api-prefix": "the router asks for the usual paths",
    "models-dir": "the router does not use llama-server's own router mode",
    "models-preset": "the router does not use llama-server's own router mode",
    "sleep-idle-seconds": "a sleeping engine takes memory back without asking; set idle of the model instead",
}
#: Different names of one flag: an option under any of them replaces what the router would pass.
_ALIASES: Final = (
    frozenset({"c", "ctx-size"}),
    frozenset({"np", "parallel"}),
    frozenset({"kvu", "kv-unified", "no-kv-unified"}),
    frozenset({"ngl", "gpu-layers", "n-gpu-layers"}),
    frozenset({"fit"}),
    frozenset({"lv", "verbosity", "log-verbosity", "v", "verbose", "log-verbose"}),
    frozenset({"a", "alias"}),
    frozenset({"metrics"}),
    frozenset({"offline"}),
    frozenset({"sse-ping-interval"}),
)
_EMBEDDING: Final = frozenset({"embedding", "embeddings"})
_RERANKING: Final = frozenset({"rerank", "reranking"})
_FILES: Final = _words("mmproj mm md model-draft lora chat-template-file")

#: A SIGTERM during a stream takes until the next ping; without a stream milliseconds.
GRACE_S: Final = 5.0
#: Seconds between pings of a silent stream: how soon a stopping server notices its open streams.
PING_S: Final = 1
#: Trace: since 2026 the sizes of buffers and the steps of a load are logged from here on.
VERBOSITY: Final = 4

#: Without its own ``/v1/responses``: the events of that stream have no ``sequence_number``, ``output_index`` and
#: ``content_index``, without which the helpers of OpenAI's libraries fail; it is translated instead.
SERVES: Final = _words(
    "/v1/chat/completions /chat/completions /v1/chat/completions/input_tokens /v1/completions "
    "/completion /completions /v1/messages /v1/messages/count_tokens "
    "/v1/embeddings /embeddings /embedding /v1/rerank /rerank /v1/reranking /reranking /infill /tokenize "
    "/detokenize /apply-template /v1/audio/transcriptions /v1/models /models /props /slots /metrics "
    "/lora-adapters /health /v1/health"
)


class LlamaCpp:
    """The adapter of llama.cpp. The instance's key goes by environment, so that no process list shows it."""

    name = "llamacpp"

    def checks(self, job: Job) -> tuple[Check, ...]:
        path = model_path(job)
        files = [str(PurePosixPath(path).with_name(part)) for part in part_names(PurePosixPath(path).name)]
        extra = [
            _absolute(job, value)
            for key, value in job.options.items()
            if option_name(key) in _FILES
            for value in _listed(value)
        ]
        program = Check(Need.program, command_of(job)[0])
        return (program, *(Check(Need.file, file) for file in files + extra), Check(Need.model_header, path))

    def judge_file(self, job: Job, path: str, head: bytes, size: int) -> Failure | None:
        if not head.startswith(MAGIC):
            return Failure(
                FailureKind.bad_file, f"cannot load {job.model}: {path} is not a GGUF file{_looks_like(head)}"
            )
        read = read_header(head, size)
        if isinstance(read, BadFile):
            return Failure(FailureKind.bad_file, f"cannot load {job.model}: {path}: {read.reason}")
        return _judge_header(job, path, read) if isinstance(read, GgufHeader) else None

    def launch(self, job: Job) -> Launch:
        if not job.path:
            # Without a model the program would start in router mode and call itself healthy.
            raise ValueError(f"cannot start {job.model}: it has no path; set path to its GGUF file")
        given = {option_name(key) for key in job.options}
        for name in sorted(given & RESERVED.keys()):
            raise ValueError(
                f"cannot pass the option {name!r} to llama.cpp for {job.model}: {RESERVED[name]}; remove it"
            )
        taken = {name for names in _ALIASES if names & given for name in names}
        line = CommandLine(command_of(job), job.flags, SPELLING)
        line.need(("-m", "--model"), model_path(job))
        if "alias" not in taken and "," not in job.model:
            line.need(("--alias", "-a"), job.model)
        line.need("--host", job.host)
        line.need("--port", job.port)
        _add_sizes(line, job, taken)
        _add_manners(line, taken)
        line.add(job.options)
        key = {"LLAMA_API_KEY": job.key} if job.key else {}
        # A ROCm build reads the CUDA variable too; a Vulkan build needs GGML_VK_VISIBLE_DEVICES in the model's env.
        return Launch(line.words(), {**visible_devices(job.devices, job.device_ids), **key, **job.env}, job.cwd)

    def steps(self, job: Job) -> tuple[Step, ...]:
        headers = bearer(job.key)
        ready = Step("ready", Question("GET", job.health or "/health", timeout_s=2.0), _judge_health)
        identity = Step("identity", Question("GET", "/props", headers=headers), _Identity(job, headers), attempts=20)
        return ready, identity, proof_step(_proof(job), job.model, headers)

    def watch(self, job: Job) -> Step | None:
        return Step("health", Question("GET", job.health or "/health", timeout_s=5.0), _judge_health)

    def read(self, line: str) -> LogFact | None:
        return read_line(line)

    def explain(self, job: Job, ended: Ended | None, tail: Sequence[str]) -> Failure:
        return explain_by(CAUSES, job, ended, tail)

    def farewell(self, job: Job) -> Farewell:  # noqa: ARG002 - the protocol asks by job
        return Farewell(GRACE_S)

    def help_argv(self, job: Job) -> tuple[str, ...]:
        """The command that prints all flags, for ``Job.flags``."""
        return (*command_of(job), "--help")

    def dialect(self, job: Job) -> Dialect:
        return Dialect(
            headers=bearer(job.key),
            # It does not notice that the client of a whole answer left, and does not end while one is open.
            stream_only=frozenset({"/v1/chat/completions", "/v1/completions"}),
            ask_usage=True,
            serves=SERVES,
        )


def command_of(job: Job) -> tuple[str, ...]:
    """The program and its fixed words: as configured, else ``llama-server`` on PATH."""
    return job.command or ("llama-server",)


def model_path(job: Job) -> str:
    """The model's file: ``path``, below ``model_dir`` when it is relative and that is configured."""
    return str(PurePosixPath(job.model_dir, job.path)) if job.model_dir else job.path


def _absolute(job: Job, path: str) -> str:
    return str(PurePosixPath(job.cwd, path)) if job.cwd else path


def _listed(value: object) -> list[str]:
    values = value if isinstance(value, list | tuple) else [value]
    return [item for item in values if isinstance(item, str)]


def _looks_like(head: bytes) -> str:
    """What the bytes look like instead, with the remedy; empty when they are nothing known."""
    if head[:4] in (b"GGJT", b"ggjt", b"tjgg", b"lmgg", b"fmgg"):
        return " but of the format before it; convert it"
    if head[:2] == b"PK":
        return " but a PyTorch or zip archive; convert it, or serve its folder with another engine"
    if head[8:9] == b"{":
        return " but safetensors; serve its folder with sglang, vllm or transformers"
    if head.lstrip()[:1] == b"<":
        return " but a web page, probably saved instead of the file; download it again"
    if head.startswith(b"version https://git-lfs"):
        return " but a pointer of Git LFS; fetch the file itself"
    return " (it begins otherwise); correct its path or download it again"


def _judge_header(job: Job, path: str, header: GgufHeader) -> Failure | None:
    number, count = header.part
    named = part_name(PurePosixPath(path).name)
    if number != 1:
        return Failure(
            FailureKind.bad_file, f"cannot load {job.model}: {path} is part {number} of {count}; give the first part"
        )
    if count > 1 and (named is None or named.total != count):
        return Failure(
            FailureKind.bad_file,
            f"cannot load {job.model}: {path} is the first of {count} parts, but its name does not end in "
            f"-00001-of-{count:05}.gguf, by which llama.cpp finds the others; rename the parts",
        )
    if header.architecture == "clip" or header.text("general.type") == "mmproj":
        return Failure(
            FailureKind.unsupported,
            f"cannot load {job.model}: {path} is a vision projector; pass it as mmproj beside its model",
        )
    if header.text("general.type") == "adapter":
        return Failure(
            FailureKind.unsupported,
            f"cannot load {job.model}: {path} is a LoRA adapter; pass it as lora beside its model",
        )
    if not header.tensors:
        return Failure(FailureKind.bad_file, f"cannot load {job.model}: {path} holds a vocabulary but no weights")
    return None


def _add_sizes(line: CommandLine, job: Job, taken: set[str]) -> None:
    """Context, slots and layers are all said, so that the engine has nothing to decide by itself."""
    context = job.context
    if job.parallel is not None and "parallel" not in taken:
        line.need(("-np", "--parallel"), job.parallel)
        # One cache that the slots share: each request may use the whole context. Older builds divide it.
        if "kv-unified" not in taken and not line.like(("-kvu", "--kv-unified")) and context:
            context *= job.parallel
    if context is not None and "ctx-size" not in taken:
        line.need(("-c", "--ctx-size"), context)
    modern = line.knows("-fit") or line.knows("--fit")
    if "gpu-layers" not in taken:
        # Builds before the fitting (late 2025) take a number only.
        line.like(("-ngl", "--gpu-layers"), "all" if modern else 999)
    if "fit" not in taken:
        line.like(("-fit", "--fit"), "off")


def _add_manners(line: CommandLine, taken: set[str]) -> None:
    if "sse-ping-interval" not in taken:
        line.like("--sse-ping-interval", PING_S)
    if "verbosity" not in taken:
        line.like(("-lv", "--verbosity"), VERBOSITY)
    if "offline" not in taken:
        line.like("--offline")
    if "metrics" not in taken:
        line.like("--metrics")


def _proof(job: Job) -> str:
    wanted = {option_name(key) for key, value in job.options.items() if value}
    if wanted & _RERANKING:
        return "rerank"
    return "embeddings" if wanted & _EMBEDDING else "chat"


def _judge_health(answer: Answer) -> Judgement:
    """By the status alone: the body has changed over the years, 200 and 503 have not."""
    if answer.status in (0, 503):
        return WAIT
    if 200 <= answer.status < 300:
        return YES
    return refused(
        FailureKind.wrong_identity,
        f"cannot use what listens there: it answers {answer.status} to the health check: {error_text(answer)}",
    )


class _Identity:
    """Reads ``/props``, or ``/v1/models`` where a build lacks that: the right model, not a router, whole context."""

    def __init__(self, job: Job, headers: tuple[tuple[str, str], ...]) -> None:
        self._job = job
        self._models = Question("GET", "/v1/models", headers=headers)

    def __call__(self, answer: Answer) -> Judgement:
        if answer.status in (404, 405, 501):
            return Judgement(Verdict.wait, instead=self._models)
        if answer.status in (0, 503):
            return WAIT
        if answer.status in (401, 403):
            return refused(FailureKind.key, f"cannot use {self._job.model}: the engine refuses the router's key")
        told = json_of(answer)
        if answer.status != 200 or not isinstance(told, Mapping):
            return self._wrong(f"it answers {answer.status} when asked what it serves")
        if told.get("role") == "router":
            return self._wrong("it is llama-server in router mode, with no model of its own")
        return self._judge_names(told) or self._judge_context(told) or YES

    def _judge_names(self, told: Mapping[str, object]) -> Judgement | None:
        named = {told.get("model_alias"), told.get("model_path"), member(told, "data", 0, "id")}
        aliases = member(told, "data", 0, "aliases")
        named |= set(filter(lambda name: isinstance(name, str), aliases)) if isinstance(aliases, list) else set()
        told_names = {name for name in named if isinstance(name, str)}
        if not told_names or told_names & {self._job.model, self._job.path, model_path(self._job)}:
            return None
        if any(option_name(key) in ("a", "alias") for key in self._job.options):
            return None
        return self._wrong(f"it serves {min(told_names)!r}")

    def _judge_context(self, told: Mapping[str, object]) -> Judgement | None:
        """A context smaller than asked for would cut prompts silently; llama.cpp only warns of it."""
        n_ctx = member(told, "default_generation_settings", "n_ctx")
        if not self._job.context or not isinstance(n_ctx, int) or n_ctx >= self._job.context:
            return None
        if {"c", "ctx-size", "np", "parallel"} & {option_name(key) for key in self._job.options}:
            return None
        return self._wrong(
            f"it serves a context of {n_ctx} tokens instead of {self._job.context}, "
            "which the model was not trained for or the memory does not hold; lower context"
        )

    def _wrong(self, why: str) -> Judgement:
        return refused(FailureKind.wrong_identity, f"cannot use the engine of {self._job.model}: {why}")
