"""TabbyAPI: EXL3 folders by its main branch, EXL2 folders by an installation of its branch ``exl2-checkpoint``.

This file knows how it is started without a model in a directory of its own, loaded through its API so that the
percent is true, and which of its answers are not what they look like. Facts are of ``main`` of August 2026
(exllamav3 1.6) and of ``exl2-checkpoint``. It does not know how much memory a model needs.
"""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Final

from llm_router.core.words import Failure, FailureKind
from llm_router.engines.causes import Cause, explain_by, line_failure
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
from llm_router.engines.folder import judge_config, model_path
from llm_router.engines.keys import admin_key, secrets_of
from llm_router.engines.marks import CACHE, LOADING, STARTING, WARMING, Mark, read_marks
from llm_router.engines.proof import WAIT, YES, bearer, error_text, json_of, member, refused
from llm_router.engines.serving import proof, python_environment
from llm_router.engines.tabbyapi_files import load_request, settings_of, written_files
from llm_router.engines.tabbyapi_load import judge_load
from llm_router.wire.dialect import Dialect

GRACE_S: Final = 15.0
#: The bound of one load, far above any: what has no progress is found out by the phase's limit.
LOAD_S: Final = 3600.0
#: How often the model may still be missing after its load said "finished": its cache is set up meanwhile.
AFTERWARDS: Final = 240

SERVES: Final = frozenset(
    [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/token/encode",
        "/v1/token/decode",
        "/v1/models",
        "/v1/model",
        "/props",
        "/health",
    ]
)

_OTHER_PORT: Final = Cause(
    r"Port (?P<own>\d+) is currently in use\. Switching to (?P<other>\d+)",
    FailureKind.port_in_use,
    "cannot start {model}: port {own} is in use by another process, and TabbyAPI moved to {other}; stop that process "
    "or choose another port",
)
_TWO_PORTS: Final = Cause(
    r"Ports (?P<own>\d+) and (?P<other>\d+) are in use by different services",
    FailureKind.port_in_use,
    "cannot start {model}: ports {own} and {other} are in use by other processes; stop one or choose another port",
)
_BAD_YAML: Final = Cause(
    r"The YAML config from .* couldn't load",
    FailureKind.bad_argument,
    "cannot start {model}: TabbyAPI cannot read its config.yml and would go on without a model",
)
#: Shown by a line of the log while the process lives on, healthy and useless.
FATAL: Final = (_OTHER_PORT, _TWO_PORTS, _BAD_YAML)
CAUSES: Final[tuple[Cause, ...]] = (
    *FATAL,
    Cause(
        r"quantized with '(?P<what>\w+)' require the exllamav2 backend, which is no longer supported",
        FailureKind.unsupported,
        "cannot load {model}: TabbyAPI's main branch no longer takes {what}; use the backend tabbyapi-exl2, an "
        "installation of its branch exl2-checkpoint",
    ),
    Cause(
        r"required dependencies are not installed",
        FailureKind.missing_program,
        "cannot load {model}: the installation of TabbyAPI lacks ExLlama; install it into {program}",
    ),
    Cause(
        r"Unable to run ExllamaV\d because an unsupported GPU is found|All GPUs must be ampere",
        FailureKind.unsupported,
        "cannot load {model}: ExLlamaV3 needs NVIDIA GPUs of compute capability 8.0 (Ampere) or newer; hide the "
        "others with gpus",
    ),
    Cause(
        r"Insufficient VRAM in split for model and cache",
        FailureKind.out_of_memory,
        "cannot load {model}: its weights and cache do not fit on its devices; lower its context or cache_mode, or give "
        "it more devices",
    ),
    Cause(
        r"Could not find the model path for load",
        FailureKind.missing_file,
        "cannot load {model}: TabbyAPI does not find {path}; correct path or model_dir",
    ),
    Cause(
        r"\d+ validation errors? for (?P<what>\w+)",
        FailureKind.bad_argument,
        "cannot start {model}: TabbyAPI refuses a setting ({what}); correct args of the model or backend",
    ),
    Cause(
        r"FATAL ERROR with generation\. Attempting to recreate the generator",
        FailureKind.crashed,
        "cannot run {model}: TabbyAPI's generator broke",
    ),
)
MARKS: Final[tuple[Mark, ...]] = (
    Mark(r"Uvicorn running on http|Application startup complete", STARTING, near=True),
    Mark(r"Developer documentation: http", STARTING, near=True),
    Mark(r"Model successfully loaded", WARMING, 99.0, near=True),
    Mark(r"Loading with (?:autosplit|tensor parallel|manual GPU split|a manual)", LOADING),
    Mark(r"Loading (?:draft )?model: ", LOADING),
)


class TabbyAPI:
    """The adapter of one branch of TabbyAPI: ``tabbyapi`` or ``tabbyapi-exl2``."""

    def __init__(self, name: str = "tabbyapi") -> None:
        self.name = name

    def help_argv(self, job: Job) -> tuple[str, ...] | None:  # noqa: ARG002 - its settings go by file
        return None

    def checks(self, job: Job) -> tuple[Check, ...]:
        program, *words = _program(job)
        path = model_path(job)
        scripts = (Check(Need.file, word) for word in words if word.startswith("/") and word.endswith(".py"))
        return (
            Check(Need.program, program),
            *scripts,
            Check(Need.directory, path),
            Check(Need.model_header, f"{path}/config.json"),
        )

    def judge_file(self, job: Job, path: str, head: bytes, size: int) -> Failure | None:
        return judge_config(job, self.name, path, head, size)

    def launch(self, job: Job) -> Launch:
        if not PurePosixPath(model_path(job)).is_absolute():
            raise ValueError(
                f"cannot start {job.model}: its path is relative; set model_dir of the backend or a full path"
            )
        if not job.directory:
            raise ValueError(f"cannot start {job.model}: TabbyAPI needs a directory of its own")
        environment = {
            # Else long lines are wrapped at 80 columns, and their texts are not found.
            "TABBY_LOG_CONSOLE_WIDTH": "500",
            **python_environment(job),
        }
        links = tuple((f"{job.directory}/{name}", f"{job.home}/{name}") for name in _FOLDERS) if job.home else ()
        # Its settings are those of its working directory, so that cannot be another one.
        return Launch(_program(job), environment, job.directory, written_files(job), links, secrets_of(job.key))

    def steps(self, job: Job) -> tuple[Step, ...]:
        admin = bearer(_admin(job))
        load = Question(
            "POST",
            "/v1/model/load",
            load_request(job),
            (("Content-Type", "application/json"), *admin),
            LOAD_S,
            stream=True,
        )
        return (
            _recognise(job),
            Step("load", load, judge_load(job, CAUSES), attempts=1),
            _identity(job),
            proof(job, "chat", bearer(job.key), served=model_id(job)),
        )

    def watch(self, job: Job) -> Step | None:
        model = Question("GET", "/v1/model", headers=bearer(job.key))

        def judge(answer: Answer) -> Judgement:
            told = json_of(answer)
            if answer.status == 503 and member(told, "issues"):
                # It stays so for ever, even when the generator has recovered.
                what = member(told, "issues", -1, "description")
                return refused(
                    FailureKind.crashed,
                    f"cannot trust {job.model} any longer: its generator broke ({what}); it must be restarted",
                )
            if answer.status == 200 and member(told, "status") == "healthy":
                # Said also with no model at all.
                return Judgement(Verdict.wait, instead=model)
            return YES if member(told, "id") == model_id(job) else WAIT

        return Step("health", Question("GET", "/health"), judge)

    def read(self, line: str) -> LogFact | None:
        shown = line_failure(FATAL, line)
        if shown:
            cause, found = shown
            sentence = cause.sentence.format(model="TabbyAPI", **found.groupdict())
            return LogFact(failure=Failure(cause.kind, sentence, (line,)))
        return read_marks(MARKS, line)

    def explain(self, job: Job, ended: Ended | None, tail: Sequence[str]) -> Failure:
        return explain_by(CAUSES, job, ended, tail)

    def farewell(self, job: Job) -> Farewell:  # noqa: ARG002 - the protocol asks by job
        # No unload first: it ends running answers so that they look whole.
        return Farewell(GRACE_S)

    def all_on_devices(self, job: Job) -> bool:  # noqa: ARG002 - the protocol asks by job
        return True

    def dialect(self, job: Job) -> Dialect:
        # The lesser of the two keys: with the other one a client could load, unload and download.
        return Dialect(
            model_name=model_id(job), headers=bearer(job.key), ask_usage=True, usage_whole=True, serves=SERVES
        )


_FOLDERS: Final = ("templates", "sampler_overrides")


def model_id(job: Job) -> str:
    """The name it gives its model: the last part of the folder's path, in every answer."""
    return PurePosixPath(model_path(job)).name


def _program(job: Job) -> tuple[str, ...]:
    """Its installer makes ``venv`` beside ``main.py``; ``start.sh`` is not used, as it may upgrade packages."""
    if job.command:
        return job.command
    home = job.home or "/opt/TabbyAPI"
    return (f"{home}/venv/bin/python", f"{home}/main.py")


def _admin(job: Job) -> str | None:
    return admin_key(job.key) if job.key else None


def _recognise(job: Job) -> Step:
    """Who answers there, told without a key. Older versions lack the path; what follows shows them."""

    def judge(answer: Answer) -> Judgement:
        name = member(json_of(answer), "software", "name")
        if answer.status == 404 or (answer.status == 200 and name == "TabbyAPI"):
            return YES
        if answer.status in (0, 502, 503):
            return WAIT
        cause = f"cannot use port {job.port} for {job.model}: what answers there is not TabbyAPI"
        return refused(FailureKind.wrong_identity, cause)

    return Step("server", Question("GET", "/.well-known/serviceinfo", timeout_s=2.0), judge)


def _identity(job: Job) -> Step:
    """The loaded model and its context, which a ``tabby_config.yml`` in the model's folder may have changed."""

    def judge(answer: Answer) -> Judgement:
        # Without a model 503, in older versions 400.
        if answer.status in (0, 400, 503):
            return Judgement(Verdict.wait, phase=CACHE)
        if answer.status in (401, 403):
            return refused(
                FailureKind.key, f"cannot use {job.model}: TabbyAPI refuses the router's key: {error_text(answer)}"
            )
        told = json_of(answer)
        name, context = member(told, "id"), member(told, "parameters", "max_seq_len")
        if name != model_id(job):
            return refused(FailureKind.wrong_identity, f"cannot use {job.model}: TabbyAPI has loaded {name} instead")
        wanted = settings_of(job).request.get("max_seq_len")
        if isinstance(wanted, int) and isinstance(context, int) and 0 < context < wanted:
            return refused(
                FailureKind.bad_argument,
                f"cannot use {job.model}: it was loaded with a context of {context} instead of {wanted} tokens; see "
                f"tabby_config.yml in {model_path(job)}, which wins over everything",
            )
        return YES

    return Step("identity", Question("GET", "/v1/model", headers=bearer(job.key)), judge, AFTERWARDS)
