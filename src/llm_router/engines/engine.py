"""What the router must know of an engine, as values: launch, steps to readiness, log reading, farewell, dialect.

An adapter describes one engine in one file and does nothing itself: the host runs the launch, asks the
questions and hands the answers back. Nothing outside ``engines/`` and the configuration tests an engine's name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, runtime_checkable

from llm_router.core.words import DeviceId, Failure
from llm_router.wire.dialect import Dialect


@dataclass(frozen=True, slots=True)
class Job:
    """One instance to be described: where it will listen, what it will serve, and with which settings.

    ``command`` is the program with its fixed words. ``devices`` are PCI-order indices; empty: the adapter
    sets no device variables. ``flags`` are the options that the installed program knows, ``None`` if it
    was not asked. ``options`` are the engine's own settings under their native names (from ``args`` of the
    backend and the model, the model's winning). ``directory`` is the instance's own, absolute. ``key`` is
    the secret between router and engine; ``asks_for_key``: it is the operator's, and the engine has it already,
    however it got it. ``home`` is the folder of the engine's installation (``dir`` of the
    backend) and ``model_dir`` the folder that a relative ``path`` is below; empty when not configured.
    ``device_ids`` name the same devices as ``devices``, in the same order, for people and failures.
    ``park``: it is started so that it can be put to sleep later.
    """

    model: str
    command: tuple[str, ...]
    port: int
    path: str = ""
    host: str = "127.0.0.1"
    devices: tuple[int, ...] = ()
    context: int | None = None
    parallel: int | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    health: str | None = None
    directory: str = ""
    key: str | None = None
    flags: frozenset[str] | None = None
    home: str = ""
    model_dir: str = ""
    device_ids: tuple[DeviceId, ...] = ()
    park: bool = False
    asks_for_key: bool = False


@dataclass(frozen=True, slots=True)
class FileToWrite:
    """A file that must stand before the start; ``path`` is absolute. ``secret``: mode 0600."""

    path: str
    content: bytes
    secret: bool = False


@dataclass(frozen=True, slots=True)
class Somewhere:
    """A file of an existing installation, which may be in several places.

    ``configured``, or else the router's own environment variable ``variable``, says where it is (the file or its
    folder). If neither does, ``name`` is looked for in the working directory of the unit, then in ``folders``.
    """

    name: str
    configured: str = ""
    variable: str = ""
    folders: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Edit:
    """A YAML file of somebody else in which these values, and nothing else, must stand before the start.

    ``values`` are pairs of the keys from the top down, and the new value.
    """

    file: Somewhere
    values: tuple[tuple[tuple[str, ...], str], ...]


@dataclass(frozen=True, slots=True)
class Launch:
    """All that is needed to start: no shell, ``env`` is added to a cleaned environment.

    ``links`` are symbolic links, absolute (place, target), that must stand too; a target need not exist.
    ``secrets`` are texts that the engine may print and nobody may read in its log.
    ``unit`` names an existing systemd unit that is to be used: then ``argv`` replaces its command, or is empty to
    leave that as it is, and ``edit`` is made first.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    files: tuple[FileToWrite, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    secrets: tuple[str, ...] = ()
    unit: str = ""
    edit: Edit | None = None


class Need(Enum):
    """What a pre-check asks of the machine."""

    file = "file"
    directory = "directory"
    program = "program"
    #: The header of the model's file is read and given to ``Engine.judge_file``.
    model_header = "model_header"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold before anybody is stopped for this start (R14)."""

    need: Need
    path: str


@dataclass(frozen=True, slots=True)
class Question:
    """A request to the instance itself. ``timeout_s`` bounds the whole answer.

    ``stream``: the answer is an event stream that takes its time and tells of progress. While it comes, the
    judge is given what has come so far (``Answer.complete`` false; a ``yes`` or ``no`` then ends the step at
    once), and the whole of it at the end. An asker that only waits for the end is right too, and blind.
    """

    method: str
    path: str
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()
    timeout_s: float = 5.0
    stream: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. ``status`` 0: nothing answered (refused, reset or silent; ``body`` says which).

    ``complete`` is false for the beginning of an event stream that still runs (``Question.stream``).
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    complete: bool = True


class Verdict(Enum):
    """What an answer means for the step that asked."""

    yes = "yes"
    #: Not yet: ask again.
    wait = "wait"
    #: Never: the start has failed.
    no = "no"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict with its reason, and what the answer told of the load's progress, if anything.

    ``instead``, with ``wait``: ask this question from now on in the same step, with the same judge and
    without counting the ask (an older version lacks the path, a model without a chat template completes).
    """

    verdict: Verdict
    failure: Failure | None = None
    phase: str | None = None
    percent: float | None = None
    instead: Question | None = None


class Judge(Protocol):
    """Reads the answer to a step's question. It must not raise on any answer."""

    def __call__(self, answer: Answer) -> Judgement: ...


@dataclass(frozen=True, slots=True)
class Step:
    """One step from a living process to a proved instance: ask until the judge says yes or no.

    Steps are walked in order. ``name`` is for people ("ready", "identity", "first token"). ``attempts`` 0
    means that waiting is normal (polled until the phase's limit), else it fails after so many asks.
    """

    name: str
    question: Question
    judge: Judge
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class LogFact:
    """What one line of the engine's log tells. ``near``: it can answer within moments, so poll fast.

    ``failure``: this line alone shows that the start cannot succeed, even if the process lives on.
    ``port``: the line says on which port it listens. Another one than ``Job.port`` fails the start.
    ``works``: it has just worked on somebody's request; never of a line that a request's mere arrival prints.
    """

    phase: str | None = None
    percent: float | None = None
    near: bool = False
    failure: Failure | None = None
    port: int | None = None
    works: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """How the main process ended: exit code, or minus the signal's number, as subprocess has it."""

    code: int | None


@dataclass(frozen=True, slots=True)
class Farewell:
    """How the engine is stopped: questions asked first (abort calls), SIGTERM to the leader, then after
    ``grace_s`` SIGKILL to everything it started."""

    grace_s: float
    first: tuple[Question, ...] = ()


class Engine(Protocol):
    """A program that serves models, as its adapter describes it. Every method is pure."""

    @property
    def name(self) -> str:
        """The word used in ``backend:``."""
        ...

    def help_argv(self, job: Job) -> tuple[str, ...] | None:
        """The whole command that prints every option, for ``Job.flags``; ``None``: there is nothing to ask."""
        ...

    def checks(self, job: Job) -> tuple[Check, ...]:
        """What must hold before the start, in the order in which people would want to be told."""
        ...

    def judge_file(self, job: Job, path: str, head: bytes, size: int) -> Failure | None:
        """Whether the model's file can be served: its first bytes (at most 16 MiB) and its size in bytes."""
        ...

    def launch(self, job: Job) -> Launch:
        """The command line and files. Raises ``ValueError`` whose text names the setting that is wrong."""
        ...

    def steps(self, job: Job) -> tuple[Step, ...]:
        """From a living process to one that made a token as the right model."""
        ...

    def watch(self, job: Job) -> Step | None:
        """The cheap question while it runs; never one that generates or wakes."""
        ...

    def read(self, line: str) -> LogFact | None:
        """What this line of the log tells (control codes already removed), ``None`` for nothing."""
        ...

    def explain(self, job: Job, ended: Ended | None, tail: Sequence[str]) -> Failure:
        """Why it ended, or hangs (``ended`` ``None``), judged by the last lines of its log."""
        ...

    def farewell(self, job: Job) -> Farewell:
        """How to end it."""
        ...

    def dialect(self, job: Job) -> Dialect:
        """How to speak to it."""
        ...


@dataclass(frozen=True, slots=True)
class Parking:
    """How an engine is put to sleep with its process alive, and woken (R19). Both are walked like a start.

    An instance must be drained before ``sleep``: engines die or queue requests for ever when asked in traffic.
    """

    sleep: tuple[Step, ...]
    wake: tuple[Step, ...]


@runtime_checkable
class Parkable(Protocol):
    """An engine that can free its memory without ending."""

    def parking(self, job: Job) -> Parking | None:
        """How, ``None`` when this job was not started with what parking needs."""
        ...


@runtime_checkable
class Resident(Protocol):
    """An engine that keeps its weights where it computes."""

    def all_on_devices(self, job: Job) -> bool:
        """Whether all weights must lie in the memory of its devices, none elsewhere."""
        ...


def parking_of(engine: Engine, job: Job) -> Parking | None:
    """How this instance is put to sleep and woken; ``None`` when its engine cannot, or it was not started for it."""
    return engine.parking(job) if isinstance(engine, Parkable) else None
