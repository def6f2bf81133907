"""What is on disk of each instance: one folder, in a format with a version.

``launch`` is written by the router before the start, ``run`` and ``exit`` by the guard, ``stop`` by who asks for
the end, ``engine.log`` by the engine. All but the log are written whole or not at all. This file reads and
writes; whether a process that is named here still lives, it does not know.
"""

import re
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from llm_router.core.words import InstanceId
from llm_router.host.supervisors.supervisor import Exit, Handle

VERSION: Final = 1
_TOKEN_LENGTH: Final = 32
_REMOVED: Final = ".removed"


class RecordError(Exception):
    """A record cannot be read; the text names the file and the cause."""


class Birth(msgspec.Struct, frozen=True):
    """A process that can be told from a later one with the same pid: its start in ticks since boot."""

    pid: int
    start: int


class LaunchRecord(msgspec.Struct, frozen=True):
    """What the router wanted. ``started`` is Unix time; ``router`` is who answers for the instance now."""

    version: int
    instance: str
    token: str
    model: str
    policy: str
    started: float
    router: Birth
    note: dict[str, str]


class RunRecord(msgspec.Struct, frozen=True):
    """What lives, as the guard wrote it."""

    version: int
    token: str
    boot: str
    guard: Birth
    main: Birth


class ExitRecord(msgspec.Struct, frozen=True):
    """How it ended."""

    version: int
    code: int | None
    asked: bool
    killed: bool


R = TypeVar("R", LaunchRecord, RunRecord, ExitRecord)


def model_of(instance: InstanceId) -> str:
    """The model in an instance's id, for grouping its logs: ``qwen`` of ``qwen#8``."""
    return instance.rpartition("#")[0] or instance


@dataclass(frozen=True, slots=True)
class Folder:
    """One instance's folder. Its name ends with the token, so that even a broken one can be swept."""

    path: Path

    @property
    def token(self) -> str:
        return self.path.name[-_TOKEN_LENGTH:]

    @property
    def log(self) -> Path:
        return self.path / "engine.log"

    @property
    def ended(self) -> bool:
        return (self.path / "exit").exists()

    @property
    def asked(self) -> bool:
        """Whether somebody asked for the end."""
        return (self.path / "stop").exists()

    def launch(self) -> LaunchRecord | None:
        return self._read("launch", LaunchRecord)

    def run(self) -> RunRecord | None:
        return self._read("run", RunRecord)

    def exit(self) -> Exit | None:
        """How it ended, ``None`` if it has not, or if nobody wrote it down."""
        record = self._read("exit", ExitRecord)
        return None if record is None else Exit(record.code, record.asked, record.killed)

    def handle(self) -> Handle | None:
        """The instance as it was started, ``None`` if it was never told to live. Raises ``RecordError``."""
        launch, run = self.launch(), self.run()
        if launch is None or run is None:
            return None
        return Handle(InstanceId(launch.instance), launch.token, run.main.pid, self.log, launch.note)

    def write_launch(self, record: LaunchRecord) -> None:
        self._write("launch", msgspec.json.encode(record))

    def write_exit(self, end: Exit) -> None:
        self._write("exit", msgspec.json.encode(ExitRecord(VERSION, end.code, end.asked, end.killed)))

    def write_stop(self, grace_s: float) -> None:
        """Say how many seconds the engine gets once the guard is told to end it."""
        self._write("stop", str(grace_s).encode())

    def remove(self) -> None:
        """Forget it at one stroke: a half-removed folder would look like an instance without an exit."""
        removed = self.path.with_name(f"{self.path.name}{_REMOVED}")
        try:
            self.path.rename(removed)
        except FileNotFoundError:
            return  # somebody else does the same
        shutil.rmtree(removed, ignore_errors=True)

    def _read(self, name: str, kind: type[R]) -> R | None:
        path = self.path / name
        try:
            record = msgspec.json.decode(path.read_bytes(), type=kind)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RecordError(f"cannot read {path}: {error}") from error
        if record.version > VERSION:
            raise RecordError(f"cannot read {path}: a newer llm-router wrote it (format {record.version})")
        if not isinstance(record, ExitRecord) and record.token != self.token:
            raise RecordError(f"cannot trust {path}: it belongs to another instance")
        return record

    def _write(self, name: str, content: bytes) -> None:
        new = self.path / f"{name}.new"
        new.write_bytes(content)
        new.chmod(0o600)
        new.replace(self.path / name)


@dataclass(frozen=True, slots=True)
class Shelf:
    """The folders of all instances of one router, below its state folder."""

    state: Path

    def create(self, instance: InstanceId, token: str) -> Folder:
        """A new folder that only this user can enter. Raises ``OSError``."""
        self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._root.mkdir(mode=0o700, exist_ok=True)
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", instance).strip(".-")[:60]
        path = self._root / f"{slug or 'instance'}-{token}"
        path.mkdir(mode=0o700)
        return Folder(path)

    def folder(self, token: str) -> Folder | None:
        return next((folder for folder in self if folder.token == token), None)

    def __iter__(self) -> Iterator[Folder]:
        if self._root.is_dir():
            for path in sorted(self._root.iterdir()):
                if re.fullmatch(r".*-[0-9a-f]{32}", path.name) and path.is_dir():
                    yield Folder(path)

    def prune(self, model: str, keep: int, spare: Collection[str]) -> None:
        """Forget the ended instances of a model, with their logs, but for the last ``keep``.

        ``spare`` are the tokens of those whose exit is still to be read.
        """
        for unfinished in self._root.glob(f"*{_REMOVED}"):
            shutil.rmtree(unfinished, ignore_errors=True)
        ended: list[tuple[float, Folder]] = []
        for folder in self:
            try:
                launch = folder.launch()
            except RecordError:
                continue  # reported by whoever looks for the living; kept for a person to look at
            if launch is not None and launch.model == model and folder.ended and folder.token not in spare:
                ended.append((launch.started, folder))
        ended.sort(key=lambda pair: pair[0], reverse=True)
        for _, folder in ended[keep:]:
            folder.remove()

    @property
    def _root(self) -> Path:
        return self.state / "instances"
