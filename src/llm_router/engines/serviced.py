"""An engine that an existing systemd unit runs: what changes for its adapter when the operator's unit is used.

The command line is the unit's or the operator's script, so nothing is known of its flags, and the model is chosen
by that script or, for TabbyAPI, by ``model_name`` in its ``config.yml``. Questions, log and dialect stay those of
the engine. This file touches no unit and no file.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Final

from msgspec import structs

from llm_router.core.words import Failure, FailureKind
from llm_router.engines.engine import (
    Answer,
    Check,
    Edit,
    Ended,
    Engine,
    Farewell,
    Job,
    Judge,
    Judgement,
    Launch,
    LogFact,
    Need,
    Somewhere,
    Step,
    Verdict,
)
from llm_router.engines.folder import model_path
from llm_router.engines.proof import YES
from llm_router.wire.dialect import Dialect

#: Engines whose model is chosen by a file instead of the command line.
EDITED: Final = frozenset({"tabbyapi", "tabbyapi-exl2"})
#: Engines that answer requests for any name, so that the name in a script of the operator does not matter.
_TAKE_ANY_NAME: Final = frozenset({"sglang", "llamacpp"})
#: Where TabbyAPI is usually installed; ``~`` is the router's account.
_TABBY_FOLDERS: Final = ("~/tabbyAPI", "/opt/tabbyAPI", "/opt/TabbyAPI", "/etc/tabbyapi")
_NAME: Final = re.compile(r"[A-Za-z0-9:_.\\-][A-Za-z0-9:_.\\@-]{0,246}\.service")


@dataclass(frozen=True, slots=True)
class Service:
    """An operator's unit as it serves one model. ``script`` empty: its own command is used.

    ``served`` is the engine's own name for the model, empty if it is the router's. ``home`` is what ``~`` means.
    """

    unit: str
    script: tuple[str, ...] = ()
    served: str = ""
    config_file: str = ""
    tokens_file: str = ""
    home: str = ""


def service_name(word: str) -> str:
    """The unit's whole name; the ending may be left out."""
    return word if word.endswith(".service") else f"{word}.service"


def is_service(word: str) -> bool:
    """Whether this can be the name of a service: a template without an instance cannot be started."""
    name = service_name(word)
    return _NAME.fullmatch(name) is not None and "@." not in name


class Serviced:
    """The adapter of an engine in an operator's unit. Implements ``Engine``."""

    def __init__(self, engine: Engine, service: Service) -> None:
        self._engine = engine
        self.service = service

    @property
    def name(self) -> str:
        return self._engine.name

    def help_argv(self, job: Job) -> tuple[str, ...] | None:  # noqa: ARG002 - the command line is not ours
        return None

    def checks(self, job: Job) -> tuple[Check, ...]:
        """The unit, its script and its files are looked at by who starts it, where they are."""
        if self.name in EDITED and job.model_dir:
            return (Check(Need.directory, model_path(self._as_served(job))),)
        return ()

    def judge_file(self, job: Job, path: str, head: bytes, size: int) -> Failure | None:
        return self._engine.judge_file(job, path, head, size)

    def launch(self, job: Job) -> Launch:
        secrets = (job.key,) if job.key else ()
        return Launch(self.service.script, secrets=secrets, unit=self.service.unit, edit=self._edit(job))

    def steps(self, job: Job) -> tuple[Step, ...]:
        """Those of the engine without a load by request: the unit loads its model before it answers."""
        steps = (step for step in self._engine.steps(self._as_served(job)) if step.name != "load")
        return tuple(
            replace(step, judge=self._lenient(job, step.judge)) if step.name == "identity" else step for step in steps
        )

    def identity(self, job: Job) -> Step | None:
        """The question whose strict answer tells whether a unit that runs already serves this model."""
        return next((step for step in self._engine.steps(self._as_served(job)) if step.name == "identity"), None)

    def watch(self, job: Job) -> Step | None:
        return self._engine.watch(self._as_served(job))

    def read(self, line: str) -> LogFact | None:
        return self._engine.read(line)

    def explain(self, job: Job, ended: Ended | None, tail: Sequence[str]) -> Failure:
        return self._engine.explain(job, ended, tail)

    def farewell(self, job: Job) -> Farewell:
        return self._engine.farewell(job)

    def dialect(self, job: Job) -> Dialect:
        return self._engine.dialect(self._as_served(job))

    def keys(self, job: Job) -> Somewhere | None:
        """The file with the keys of the installation, which the operator may change at any time."""
        if self.name not in EDITED:
            return None
        beside = str(PurePosixPath(self.service.config_file).parent) if self.service.config_file else job.home
        return Somewhere("api_tokens.yml", self.service.tokens_file or beside, "TABBY_TOKENS_PATH", self._folders())

    def _edit(self, job: Job) -> Edit | None:
        if self.name not in EDITED:
            return None
        values = [(("model", "model_name"), self.service.served or job.path)]
        if job.model_dir:
            values.append((("model", "model_dir"), job.model_dir))
        file = Somewhere("config.yml", self.service.config_file or job.home, "TABBY_CONFIG_PATH", self._folders())
        return Edit(file, tuple(values))

    def _folders(self) -> tuple[str, ...]:
        home = self.service.home
        return tuple(folder.replace("~", home, 1) for folder in _TABBY_FOLDERS if home or not folder.startswith("~"))

    def _as_served(self, job: Job) -> Job:
        """The job under the engine's own name for the model."""
        if not self.service.served:
            return job
        if self.name in EDITED:
            return replace(job, path=self.service.served)
        return replace(job, model=self.service.served)

    def _lenient(self, job: Job, judge: Judge) -> Judge:
        """What has just been started from the model's own script is that model, whatever it calls it."""
        unit = self.service.unit
        any_name = bool(self.service.script) and not self.service.served and self.name in _TAKE_ANY_NAME

        def judge_identity(answer: Answer) -> Judgement:
            judged = judge(answer)
            failure = judged.failure
            if judged.verdict is not Verdict.no or failure is None:
                return judged
            if failure.kind is FailureKind.key:
                where = "asks for another key" if job.key else "asks for a key"
                cause = f"{failure.cause} ({unit} {where}: write it as `key` at its backend)"
                return replace(judged, failure=structs.replace(failure, cause=cause))
            if failure.kind is not FailureKind.wrong_identity:
                return judged
            if any_name and answer.status == 200:
                return YES
            cause = f"{failure.cause} (by {unit}; if that is {job.model}, write its name as `model_name` at the model)"
            return replace(judged, failure=structs.replace(failure, cause=cause))

        return judge_identity
