"""The app wires: the one file that knows everyone. It builds the house, opens the door, and closes it again.

It decides nothing about models and knows no engine. What can go wrong before the door is open ends with a
sentence that names the cause and the remedy.
"""

import asyncio
import gc
import logging
import os
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import platformdirs
import uvloop

from llm_router.config import shelf
from llm_router.config.difference import difference
from llm_router.config.load import Config
from llm_router.config.problems import ConfigError
from llm_router.core.words import InstanceId, ModelName
from llm_router.doors import api, habits, keys
from llm_router.doors.reloaded import Reloaded
from llm_router.doors.views import Running, Views
from llm_router.engines import registry
from llm_router.formats.recognise import Recognised
from llm_router.host import config_files, scan, state, watched
from llm_router.host.conductor import Conductor
from llm_router.host.crew.crew import LocalCrew
from llm_router.host.history import History
from llm_router.host.journal import Journal
from llm_router.host.machine import ports
from llm_router.host.machine.gpus import Gauge
from llm_router.host.machine.tasks import Tasks
from llm_router.host.road import descriptors
from llm_router.host.road.road import Limits, Road, Visitor
from llm_router.host.road.server import make_server
from llm_router.host.road.upstream import Pools
from llm_router.host.state import StateFolder
from llm_router.host.supervisors import choosing
from llm_router.host.supervisors.both import Supervisors
from llm_router.host.supervisors.supervisor import SupervisorError
from llm_router.wire.errors import Fault
from llm_router.wire.heads import Headers

log = logging.getLogger(__name__)

FAILED: Final = 1
#: The exit code of a command that was ended by a second signal, by the shells' custom.
INTERRUPTED: Final = 130

#: So many objects more than before, and the collector looks for garbage among them.
_YOUNG: Final = 20_000

#: What the server gets to close its sockets after a second signal (seconds).
HURRIED_S: Final = 2.0

Opened = Callable[[str], None]
"""Called with the address once the door is open."""


def serve(path: Path | None, *, host: str | None = None, port: int | None = None, log_level: str | None = None) -> int:
    """Run the router until SIGTERM or SIGINT; gives the process's exit code. Raises ``ConfigError``.

    ``path`` is the configuration's file or folder, looked for if ``None`` (R2). ``host``, ``port`` and
    ``log_level`` win over it.
    """
    found = config_files.find(path, os.environ)

    def read() -> Config:
        config = config_files.load(found, os.environ, registry.names())
        given = {"host": host, "port": port, "log_level": log_level}
        changed = {key: value for key, value in given.items() if value is not None}
        return config.with_server(**changed) if changed else config

    config = read()
    _log_to_stderr(config.server.log_level)
    return _run(
        Router(config, read, lambda: config_files.files_of(found)), lambda address: log.info("listening on %s", address)
    )


def demo(*, models: int = 2, port: int = 8002, folder: Path | None = None) -> int:
    """Make the demo's models and run a router in front of them; gives the process's exit code."""
    from llm_router.demo import stage  # noqa: PLC0415 - only the demo needs it

    _log_to_stderr("warning")
    folder = (folder or Path(platformdirs.user_cache_path("llm-router")) / "demo").absolute()
    try:
        found = stage.prepare(folder, models, port, lambda text: print(text, file=sys.stderr))
    except stage.StageError as error:
        print(error, file=sys.stderr)
        return FAILED

    def read() -> Config:
        return config_files.load(found.path, os.environ, registry.names())

    return _run(Router(read(), read), lambda address: print(stage.welcome(found, address), flush=True))


def _log_to_stderr(level: str) -> None:
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr, force=True
    )
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)


def _run(router: "Router", opened: Opened) -> int:
    # One that comes too early is no reason to end: what it asks to be read is read now anyway.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for warning in router.config.warnings:
        log.warning("%s", warning)
    try:
        with state.opened(state.place(router.config.server.state_dir, os.environ, router.config.folder)) as folder:
            return uvloop.run(router.run(folder, opened))
    except (state.StateError, ports.BindError, SupervisorError) as error:
        print(error, file=sys.stderr)
        return FAILED


class Router:
    """A router from its configuration to its end. ``read`` reads it anew, for a reload; ``files`` are where it stands."""

    def __init__(
        self, config: Config, read: Callable[[], Config], files: Callable[[], Iterable[Path]] = lambda: ()
    ) -> None:
        self.config = self._begun = config
        self._read = read
        self._files = files
        self._about: Mapping[str, Recognised] = {}

    async def run(self, folder: StateFolder, opened: Opened) -> int:
        """Open the door, serve until a signal, close. Raises ``BindError``, ``SupervisorError``."""
        self._started = time.time()
        self._connections = descriptors.connections(descriptors.allow_many(), Limits().max_connections)
        bound = ports.bind_all(self.config.server.addresses, self.config.server.port)
        self._tasks = Tasks("the router")
        self._reloading = asyncio.Lock()
        self._gauge = Gauge()
        self._history = _history(folder.path / "history.db")
        self._journal = _journal(folder.path / "journal.jsonl")
        self._pools = Pools()
        keep = self.config.server.engines_on_exit == "keep"
        supervisors = self._supervisors(folder.path, keep=keep)
        self._crew = LocalCrew(
            self.config,
            supervisors,
            self._pools,
            self._gauge,
            self._tasks,
            folder,
            history=self._history,
            services=supervisors.services,
        )
        self._conductor = Conductor(
            self._crew,
            self._tasks,
            journal=self._journal,
            recorded=self._history.record_exchange if self._history else None,
            serial=folder.serial,
        )
        self._crew.tell = self._conductor.tell
        self._guard = keys.Guard(self.config.server.keys)
        self._road = Road(self._conductor, self._limits(), pools=self._pools, guard=self._let_in)
        self._server = make_server(self._application(), self._road, signals=False)
        self._address = _url(*bound[0].getsockname()[:2])
        adopted = await self._crew.adopt()
        await self._put_in_force(self.config)
        for one in adopted:
            self._conductor.adopt(one)
        return await self._serve(bound, opened, keep=keep)

    def _supervisors(self, state: Path, *, keep: bool) -> Supervisors:
        """As configured. Raises ``SupervisorError``."""
        section = self.config.server
        return choosing.choose(
            section.supervisor,
            state,
            "keep" if keep else "die",
            os.environ,
            units=section.units,
            drop_ins=section.drop_ins,
        )

    async def _serve(self, bound: list[socket.socket], opened: Opened, *, keep: bool) -> int:
        asked = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, asked.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._tasks.spawn("reload", self._reload_aside()))
        serving = self._tasks.spawn("serve", self._server.serve(sockets=bound))
        while not self._server.started and not serving.done():
            await asyncio.sleep(0.005)
        # What is there now stays to the end; the collector need not look at it again and again. Nor need it look
        # often: an exchange leaves no cycle behind, so that only mistakes and libraries give it work.
        gc.freeze()
        gc.set_threshold(_YOUNG, 20, 20)
        self._tasks.spawn("watch the configuration", self._watch_files())
        opened(self._address)
        waiting = self._tasks.spawn("wait for a signal", asked.wait())
        await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
        asked.clear()
        return await self._end(serving, self._tasks.spawn("wait for another signal", asked.wait()), keep=keep)

    async def _end(self, serving: asyncio.Task[None], hurry: asyncio.Task[Literal[True]], *, keep: bool) -> int:
        """End in order: the answers, the engines, the books. Another signal ends the patience, not the order."""
        log.info("ending: running answers have %.0f s", self.config.server.shutdown_grace)
        self._server.should_exit = True
        stopping = self._tasks.spawn("stop the engines", self._conductor.shut_down(keep_engines=keep))
        ended = self._tasks.spawn("wait for the end", asyncio.wait({serving, stopping}))
        either: set[asyncio.Future[Any]] = {hurry, ended}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        hurried = not ended.done()
        if hurried:
            self._server.force_exit = True
            self._road.end_all()
            if not keep:
                await self._crew.kill_all()
            # It is impatient now; cancelled in the middle it would leave its sockets open.
            await asyncio.wait({serving}, timeout=HURRIED_S)
        self._conductor.close()
        await self._tasks.aclose()
        await self._crew.aclose()
        for book in (self._journal, self._history):
            if book is not None:
                book.close()
        return INTERRUPTED if hurried else 0

    async def reload(self) -> Reloaded:
        """Put the configuration as it stands now in force. Raises ``ConfigError`` and has then changed nothing."""
        async with self._reloading:
            config = await asyncio.to_thread(self._read)
            for warning in config.warnings:
                log.warning("%s", warning)
            found = difference(self.config, config, self._begun)
            await self._put_in_force(config)
            if "server.log_level" in found.settings:
                logging.getLogger().setLevel(config.server.log_level.upper())
            log.info("reloaded: %s", found)
            return Reloaded(found, config.warnings)

    async def _reload_aside(self) -> None:
        """For those who do not wait for an answer: the log says what came of it."""
        try:
            await self.reload()
        except ConfigError as error:
            log.error("cannot reload, everything stays as it is: %s", error)  # noqa: TRY400 - the text says it all

    async def _watch_files(self) -> None:
        async for _ in watched.changes(lambda: self._files() if self.config.server.watch else ()):
            await self._reload_aside()

    async def _put_in_force(self, config: Config) -> None:
        expected = await self._history.expected() if self._history else {}
        self._about = await asyncio.to_thread(_look_at, config)
        self.config = self._crew.config = config
        self._guard = keys.Guard(config.server.keys)
        self._road.limits = self._limits()
        self._road.manners = habits.manners(config, self._about)
        devices = self._gauge.devices()
        models = shelf.models(
            config,
            [device.id for device in devices],
            _usual(expected, config, "start"),
            _usual(expected, config, "wake"),
        )
        names = {alias: ModelName(name) for name, entry in config.models.items() for alias in (name, *entry.aliases)}
        self._conductor.configure(models, devices, shelf.settings(config), names)

    def _application(self) -> object:
        return api.build(
            api.Door(
                house=self._conductor,
                views=self._views,
                guard=lambda: self._guard,
                origins=lambda: self.config.server.cors_origins,
                reload=self.reload,
            )
        )

    def _views(self) -> Views:
        return Views(
            config=self.config,
            snapshot=self._conductor.snapshot,
            running=self._running,
            gauge=self._gauge,
            address=self._address,
            started=self._started,
            clock=time.time,
            about=self._about,
        )

    def _running(self, instance: str) -> Running | None:
        place = self._crew.places().get(InstanceId(instance))
        return None if place is None else Running(place.job.port, place.handle.pid if place.handle else None)

    def _limits(self) -> Limits:
        section = self.config.server
        return Limits(
            max_body=section.max_body,
            max_connections=self._connections,
            grace_s=section.shutdown_grace,
            origins=tuple(section.cors_origins),
        )

    def _let_in(self, path: str, headers: Headers, peer: str) -> Visitor | Fault:
        """By the keys in force now: a reload may change them."""
        return self._guard(path, headers, peer)


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _usual(expected: Mapping[tuple[str, str, str], float], config: Config, kind: str) -> dict[str, float]:
    """The usual seconds of a start or a wake by model, of its present revision."""
    found = {name: expected.get((name, shelf.revision(config, name), kind)) for name in config.models}
    return {name: seconds for name, seconds in found.items() if seconds}


def _look_at(config: Config) -> dict[str, Recognised]:
    """What the models' files are; a model whose files are not there is left out."""
    jobs = {name: shelf.job(config, name, port=0, directory="") for name in config.models}
    paths = {name: Path(job.model_dir, job.path) for name, job in jobs.items() if job.path}
    return {name: scan.recognise_path(path) for name, path in paths.items() if path.exists()}


def _history(path: Path) -> History | None:
    try:
        return History(path)
    except (sqlite3.Error, OSError) as error:
        log.warning("cannot open the history %s: %s; running without one, so loads have no time estimate", path, error)
        return None


def _journal(path: Path) -> Journal | None:
    try:
        return Journal(path)
    except OSError as error:
        log.warning("cannot open the journal %s: %s; running without one", path, error)
        return None
