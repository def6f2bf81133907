"""One instance's place on this machine: what is known of it from its check to its end.

It is a record and decides nothing. What of it the next router must find again is written as a note, which
this file knows to write and to read.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from llm_router.config import shelf
from llm_router.config.load import Config
from llm_router.core.words import DeviceId, Failure, InstanceId, TicketId
from llm_router.engines.engine import Engine, Job
from llm_router.host.crew.probe import Proof
from llm_router.host.crew.watch import Watch
from llm_router.host.machine.logs import LogTail
from llm_router.host.machine.memory import Ledger
from llm_router.host.service.installation import KeyFile
from llm_router.host.supervisors.supervisor import Handle
from llm_router.wire.dialect import Dialect

_ASLEEP: Final = "asleep"


@dataclass(slots=True)
class Place:
    """One instance on this machine, from its check to its end. Times are the loop's, in seconds."""

    instance: InstanceId
    model: str
    revision: str
    devices: tuple[DeviceId, ...]
    engine: Engine
    job: Job
    dialect: Dialect
    began: float
    proved: float | None = None
    handle: Handle | None = None
    tail: LogTail | None = None
    ledger: Ledger = field(default_factory=Ledger)
    #: Set once the start has either given a handle or failed, so that a stop knows what there is to stop.
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    #: The proof under way (of a start, a sleep or a wake), which a stop ends first.
    proving: asyncio.Task[Proof | Failure] | None = None
    stopping: bool = False
    watch: Watch | None = None
    watching: asyncio.Task[None] | None = None
    #: The keys of an existing installation, whose owner may change them at any time.
    keys: KeyFile | None = None
    #: The bytes passed by each lease, for the watch.
    leases: dict[TicketId, Callable[[], int | None]] = field(default_factory=dict)

    @property
    def asleep(self) -> bool:
        """Whether it was put to sleep, or may have been; noted in its folder, so that the next router knows it."""
        return bool(self.job.directory) and Path(self.job.directory, _ASLEEP).exists()

    def note_asleep(self, asleep: bool) -> None:
        """It will sleep now, or is awake again."""
        mark = Path(self.job.directory, _ASLEEP)
        if asleep:
            mark.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            mark.touch()
        else:
            mark.unlink(missing_ok=True)

    def take_new_key(self) -> None:
        """The keys of an existing installation count as they are now."""
        if self.keys is not None and (key := self.keys.keys().api) != self.job.key:
            self.job = replace(self.job, key=key)
            self.dialect = self.engine.dialect(self.job)
            if self.watch is not None:
                self.watch.job = self.job

    def follow(self, handle: Handle, secrets: Sequence[str]) -> None:
        """It lives: from now on its log is read, without these secrets."""
        self.handle = handle
        self.tail = LogTail(handle.log, secrets=secrets)

    def note(self) -> dict[str, str]:
        """What the next router must know to take it over. It lies in the state folder, which is ours alone."""
        return {
            "model": self.model,
            "revision": self.revision,
            "port": str(self.job.port),
            "devices": ",".join(self.devices),
            "directory": self.job.directory,
            "key": self.job.key or "",
        }


def noted(
    config: Config, handle: Handle, indices: Callable[[tuple[DeviceId, ...]], tuple[int, ...]], now: float
) -> Place | None:
    """The place of a found engine; ``None`` if it is not what the configuration wants, or its GPUs have left."""
    note = handle.note
    model = note.get("model", "")
    if model not in config.models or note.get("revision") != shelf.revision(config, model):
        return None
    devices = tuple(DeviceId(device) for device in note.get("devices", "").split(",") if device)
    try:
        engine, numbers, port = shelf.engine(config, model), indices(devices), int(note.get("port", ""))
    except (LookupError, ValueError):
        return None
    job = shelf.job(
        config,
        model,
        port=port,
        devices=numbers,
        device_ids=devices,
        directory=note.get("directory", ""),
        key=note.get("key") or None,
    )
    place = Place(
        instance=handle.instance,
        model=model,
        revision=note["revision"],
        devices=devices,
        engine=engine,
        job=job,
        dialect=engine.dialect(job),
        began=now,
    )
    place.follow(handle, secrets_of(engine, job))
    place.settled.set()
    return place


def secrets_of(engine: Engine, job: Job) -> tuple[str, ...]:
    """What of a running engine's log nobody may read."""
    try:
        return engine.launch(job).secrets
    except ValueError:
        # It could not be started so any more, but it runs.
        return (job.key,) if job.key else ()


def folder_name(instance: InstanceId) -> str:
    """The instance's id as a folder's name; models may be called anything."""
    return "".join(letter if letter.isalnum() or letter in "-._" else "-" for letter in instance).lstrip(".") or "-"
