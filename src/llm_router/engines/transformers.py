"""Hugging Face ``transformers serve``: for what no other engine takes, slowly.

This file knows the pinned form of the server (one model, loaded before the port opens), its strict request
bodies and its streams without ``[DONE]``. Facts are of transformers 5.23 (``src/transformers/cli``), tolerant
back to 4.57. It uses no on-demand loading: that blocks the server's own health check.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from llm_router.core.words import Failure, FailureKind
from llm_router.engines.causes import Cause, explain_by
from llm_router.engines.engine import Answer, Check, Ended, Farewell, Job, Judgement, Launch, LogFact, Step, Verdict
from llm_router.engines.folder import folder_checks, judge_config, model_path
from llm_router.engines.marks import LOADING, WARMING, Mark, read_marks
from llm_router.engines.proof import error_text, json_of, member, refused
from llm_router.engines.render import CommandLine, Spelling
from llm_router.engines.serving import health_step, own_options, proof, python_environment
from llm_router.wire.dialect import Dialect

SPELLING: Final = Spelling(negatable=frozenset({"continuous-batching", "compile", "trust-remote-code", "enable-cors"}))
RESERVED: Final[Mapping[str, str]] = {
    "host": "host of the backend",
    "port": "port of the backend",
    "force-model": "path",
    "model-timeout": "idle of the model",
    "non-blocking": "nothing; it is for tests",
}
GRACE_S: Final = 10.0

#: Each further field of a request is a 422. Of OpenAI's forms only what older releases of its package know too: the
#: server takes its list from there.
_ALL: Final = frozenset(
    [
        "frequency_penalty",
        "generation_config",
        "logit_bias",
        "max_tokens",
        "model",
        "n",
        "presence_penalty",
        "seed",
        "stop",
        "stream",
        "stream_options",
        "temperature",
        "top_p",
        "user",
    ]
)
_CHAT: Final = frozenset(
    [
        "audio",
        "chat_template_kwargs",
        "function_call",
        "functions",
        "logprobs",
        "max_completion_tokens",
        "messages",
        "metadata",
        "modalities",
        "parallel_tool_calls",
        "prediction",
        "reasoning_effort",
        "response_format",
        "service_tier",
        "store",
        "tool_choice",
        "tools",
        "top_logprobs",
        "web_search_options",
    ]
)
_TEXT: Final = frozenset(["best_of", "echo", "logprobs", "prompt", "suffix"])
_RESPONSES: Final = frozenset(
    [
        "generation_config",
        "include",
        "input",
        "instructions",
        "max_output_tokens",
        "metadata",
        "model",
        "parallel_tool_calls",
        "previous_response_id",
        "reasoning",
        "service_tier",
        "store",
        "stream",
        "temperature",
        "text",
        "tool_choice",
        "tools",
        "top_p",
        "truncation",
        "user",
    ]
)
ACCEPTS: Final[Mapping[str, frozenset[str]]] = {
    "/v1/chat/completions": _ALL | _CHAT,
    "/v1/completions": _ALL | _TEXT,
    "/v1/responses": _RESPONSES,
}
SERVES: Final = frozenset(
    ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/audio/transcriptions", "/v1/systemone", "/health"]
)

CAUSES: Final[tuple[Cause, ...]] = (
    Cause(
        r"Missing dependencies for serving|Install with `pip install transformers\[serving\]`",
        FailureKind.missing_program,
        "cannot start {model}: transformers is installed without its server; install transformers[serving] into {program}",
    ),
    Cause(
        r"requires the latest version of [`']?(?P<what>bitsandbytes|autoawq|gptqmodel|compressed-tensors|optimum|kernels)"
        r"|(?:Using|Loading an?) .*?requires? .*?`(?P<other>[\w-]+)`",
        FailureKind.missing_program,
        "cannot load {model}: its quantisation needs a package that {program} lacks: {what}{other}",
    ),
    Cause(
        r"Some modules are dispatched on the CPU or the disk",
        FailureKind.out_of_memory,
        "cannot load {model}: it does not fit on its devices, and its quantisation cannot live in main memory",
    ),
)
MARKS: Final[tuple[Mark, ...]] = (
    Mark(r"Uvicorn running on http|Application startup complete|Started server process", WARMING, 98.0, near=True),
    Mark(r"Loading (?:weights|checkpoint shards):\s+(?P<percent>\d{1,3})%", LOADING, 5.0, 95.0),
)


class Transformers:
    """The adapter of ``transformers serve``. It has no keys: it listens on loopback only."""

    name = "transformers"

    def help_argv(self, job: Job) -> tuple[str, ...] | None:
        return (*_program(job), "--help")

    def checks(self, job: Job) -> tuple[Check, ...]:
        return folder_checks(job, _program(job)[0])

    def judge_file(self, job: Job, path: str, head: bytes, size: int) -> Failure | None:
        return judge_config(job, self.name, path, head, size)

    def launch(self, job: Job) -> Launch:
        if not job.path:
            # Without a model it would load whatever a request names.
            raise ValueError(f"cannot start {job.model}: it has no path; set path to the model's folder")
        if "@" in model_path(job):
            raise ValueError(
                f"cannot serve {job.path} by transformers: it takes what follows @ for a revision; rename it"
            )
        if job.context is not None:
            raise ValueError(
                f"cannot pass context for {job.model}: transformers serve has no setting for it; leave it out"
            )
        options = own_options(job, RESERVED)
        line = CommandLine(_program(job), job.flags, SPELLING)
        if job.flags is not None and "--force-model" in job.flags:
            line.need("--force-model", model_path(job))
        else:
            line = CommandLine((*_program(job), model_path(job)), job.flags, SPELLING)
        line.need("--host", job.host)
        line.need("--port", job.port)
        if "device" not in options:
            line.like("--device", "auto")
        if job.parallel is not None and job.parallel > 1 and "continuous-batching" not in options:
            # Else requests run one after another; how many at once cannot be limited.
            line.need("--continuous-batching")
        line.add(options)
        return Launch(line.words(), python_environment(job), job.cwd)

    def steps(self, job: Job) -> tuple[Step, ...]:
        # The model list shows the hub's cache on disk, not what is loaded: the first token is the identity.
        return health_step(job.health or "/health"), _first_token(job)

    def watch(self, job: Job) -> Step | None:
        return health_step(job.health or "/health", timeout_s=5.0)

    def read(self, line: str) -> LogFact | None:
        return read_marks(MARKS, line)

    def explain(self, job: Job, ended: Ended | None, tail: Sequence[str]) -> Failure:
        return explain_by(CAUSES, job, ended, tail)

    def farewell(self, job: Job) -> Farewell:  # noqa: ARG002 - the protocol asks by job
        return Farewell(GRACE_S)

    def dialect(self, job: Job) -> Dialect:
        # Usage comes always; asking for it is allowed and ignored.
        return Dialect(model_name=model_path(job), accepts=ACCEPTS, says_done=False, serves=SERVES)


def _program(job: Job) -> tuple[str, ...]:
    if not job.command:
        return ("transformers", "serve")
    bare = len(job.command) == 1 and job.command[0].rpartition("/")[2] == "transformers"
    return (*job.command, "serve") if bare else job.command


def _first_token(job: Job) -> Step:
    path = model_path(job)
    # The name it wants is what it was started with, not the name that clients use.
    usual = proof(job, "chat", served=path)

    def judge(answer: Answer) -> Judgement:
        if answer.status == 400 and "pinned to" in error_text(answer):
            return refused(
                FailureKind.wrong_identity, f"cannot use port {job.port} for {job.model}: {error_text(answer)}"
            )
        judged = usual.judge(answer)
        if judged.verdict is not Verdict.yes:
            return judged
        name = member(json_of(answer), "model")
        if isinstance(name, str) and name.rpartition("@")[0] != path and name != path:
            cause = f"cannot use port {job.port} for {job.model}: another server answers there, as {name}"
            return refused(FailureKind.wrong_identity, cause)
        return judged

    return replace(usual, judge=judge)
