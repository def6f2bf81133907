"""Config -> what the scheduler and the engines are told.

This file knows which words of the configuration change an instance and which only its treatment. It starts
nothing and asks no machine: the devices there are come in.
"""

import json
import posixpath
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Final

from llm_router.config.load import Config
from llm_router.config.problems import nearest
from llm_router.config.schema import Entry
from llm_router.core.words import HOST_DEVICE, DeviceId, Footprint, Model, ModelName, Needs, Settings
from llm_router.engines import registry
from llm_router.engines.engine import Engine, Job
from llm_router.engines.serviced import Service, Serviced, service_name

#: A sleeping engine keeps its CUDA context, its collectives and perhaps its graphs: 1 to 3 GiB, as a rule of thumb.
PARKED: Final = 3 * 2**30

#: What of a model's entry makes another instance of it. Everything else is treatment and changes in place.
_INSTANCE: Final = (
    "path",
    "gpus",
    "context",
    "parallel",
    "args",
    "env",
    "cwd",
    "command",
    "health",
    "service",
    "script",
    "model_name",
    "park",
)
_BACKEND_INSTANCE: Final = (
    "engine",
    "command",
    "dir",
    "model_dir",
    "host",
    "port",
    "args",
    "env",
    "cwd",
    "service",
    "script",
    "key",
)


def settings(config: Config) -> Settings:
    """The scheduler's rules."""
    rules = config.scheduler
    return Settings(
        stall_s=rules.stall,
        drain_timeout_s=rules.drain_timeout,
        quantum_factor=rules.quantum_factor,
        quantum_min_s=rules.quantum_min,
        quantum_max_s=rules.quantum_max,
        linger_s=rules.linger,
        max_wait_s=rules.max_wait,
        cooldown_s=rules.cooldown,
        backoff_s=rules.backoff,
        starts_in_a_row=rules.starts_in_a_row,
        queue_limit=rules.queue_limit,
        margin=rules.margin,
        background_hold_s=rules.background_hold,
        background_pause_s=rules.background_pause,
    )


def models(
    config: Config,
    devices: Sequence[DeviceId],
    load_s: Mapping[str, float] | None = None,
    wake_s: Mapping[str, float] | None = None,
) -> tuple[Model, ...]:
    """The models for the scheduler, in the order of the file.

    ``devices`` are the machine's, in PCI order (only ``HOST_DEVICE`` without a GPU). ``load_s`` are the
    usual seconds of a load by model, from history, and ``wake_s`` those of a wake. A GPU that the machine lacks
    becomes a device that does not exist, so that the scheduler refuses with ``no_room`` and the others work.
    """
    known, woken = load_s or {}, wake_s or {}
    return tuple(
        Model(
            name=ModelName(name),
            revision=revision(config, name),
            needs=_needs(entry, devices, alone=_shares_its_unit(config, name)),
            pin=entry.pin,
            preload=entry.preload,
            default=entry.default,
            idle_s=entry.idle,
            priority=entry.priority,
            concurrency=entry.concurrency,
            on_demand=entry.on_demand,
            parkable=entry.park,
            load_s=known.get(name),
            wake_s=woken.get(name),
        )
        for name, entry in config.models.items()
    )


def _shares_its_unit(config: Config, model: str) -> bool:
    """Whether another model is served by the same unit: they can never live together."""
    mine = service(config, model)
    others = (service(config, other) for other in config.models if other != model)
    return mine is not None and any(other is not None and other.unit == mine.unit for other in others)


def _needs(entry: Entry, devices: Sequence[DeviceId], *, alone: bool) -> Needs:
    footprint = Footprint(entry.memory, parked_bytes(entry)) if entry.memory is not None and not alone else None
    gpus: int | tuple[int | str, ...] | None = entry.gpus
    if isinstance(gpus, tuple):
        return Needs(tuple(_device(gpu, devices) for gpu in gpus), footprint)
    if isinstance(gpus, int) and gpus > 0 and tuple(devices) == (HOST_DEVICE,):
        # The same file serves a machine without a GPU: there the engine runs on the processor.
        return Needs((HOST_DEVICE,), footprint)
    return Needs(gpus, footprint)


def parked_bytes(entry: Entry) -> int:
    """What the model may take on each device while it sleeps, 0 if it never does."""
    if not entry.park:
        return 0
    asleep = PARKED if entry.parked_memory is None else entry.parked_memory
    return asleep if entry.memory is None else min(asleep, entry.memory)


def _device(gpu: int | str, devices: Sequence[DeviceId]) -> DeviceId:
    if isinstance(gpu, int):
        if tuple(devices) == (HOST_DEVICE,):
            return HOST_DEVICE if gpu == 0 else DeviceId(f"GPU {gpu}")
        return devices[gpu] if gpu < len(devices) else DeviceId(f"GPU {gpu}")
    matches = [device for device in devices if device.startswith(gpu)]
    return matches[0] if len(matches) == 1 else DeviceId(gpu)


def revision(config: Config, model: str) -> str:
    """A short hash of all that makes another instance of the model; equal texts give equal hashes anywhere."""
    entry = config.models[model]
    _, backend = config.backend_of(model)
    facts = {
        "model": model,
        "engine": config.engine_of(model),
        "entry": {key: getattr(entry, key) for key in _INSTANCE},
        "backend": {key: getattr(backend, key) for key in _BACKEND_INSTANCE},
        "folder": config.folder,
    }
    text = json.dumps(facts, sort_keys=True, default=str, ensure_ascii=True)
    return sha256(text.encode()).hexdigest()[:16]


def service(config: Config, model: str) -> Service | None:
    """The existing unit that serves the model, ``None`` if the router starts a program of its own."""
    entry = config.models[model]
    _, backend = config.backend_of(model)
    word = entry.service or backend.service
    if not word:
        return None
    words = entry.script or backend.script or ()
    return Service(
        unit=service_name(word),
        script=(_absolute(config, words[0]), *words[1:]) if words else (),
        served=entry.model_name or "",
        config_file=_absolute(config, backend.config_file) if backend.config_file else "",
        tokens_file=_absolute(config, backend.tokens_file) if backend.tokens_file else "",
        home=config.home,
    )


def engine(config: Config, model: str) -> Engine:
    """The adapter that describes the model's instances. Raises ``LookupError`` for an engine that is not known."""
    adapter = registry.find(config.engine_of(model))
    unit = service(config, model)
    return adapter if unit is None else Serviced(adapter, unit)


def job(
    config: Config,
    model: str,
    *,
    port: int,
    devices: Sequence[int] = (),
    device_ids: Sequence[DeviceId] = (),
    directory: str,
    key: str | None = None,
    flags: frozenset[str] | None = None,
) -> Job:
    """One instance to be described by the model's engine. ``directory`` is the instance's own, absolute.

    ``key`` is that of the router's making; a configured one takes its place.
    """
    entry = config.models[model]
    _, backend = config.backend_of(model)
    cwd = entry.cwd or backend.cwd
    return Job(
        model=model,
        command=command(config, model),
        port=port,
        path=_model_path(config, entry.path or "", backend.model_dir),
        host=backend.host,
        devices=tuple(devices),
        context=entry.context,
        parallel=entry.parallel,
        options={**backend.args, **entry.args},
        env={**backend.env, **entry.env},
        cwd=_absolute(config, cwd) if cwd else None,
        health=entry.health,
        directory=directory,
        key=backend.key or key,
        asks_for_key=backend.key is not None,
        flags=flags,
        home=_absolute(config, backend.dir) if backend.dir else "",
        model_dir=_absolute(config, backend.model_dir) if backend.model_dir else "",
        device_ids=tuple(device_ids),
        park=entry.park,
    )


def command(config: Config, model: str) -> tuple[str, ...]:
    """The program and its fixed words, empty if the engine knows by itself.

    A program with a slash in its name is a path: below the backend's ``dir`` if it is the backend's and has
    one, else below the configuration's folder. One without a slash is looked up on PATH by who starts it.
    """
    entry = config.models[model]
    _, backend = config.backend_of(model)
    words = entry.command or backend.command
    if not words:
        return ()
    program = words[0]
    if "/" not in program:
        return words
    if entry.command is None and backend.dir and not program.startswith(("/", "~/", "./", "../")):
        program = f"{_absolute(config, backend.dir)}/{program}"
    return (_absolute(config, program), *words[1:])


def _model_path(config: Config, path: str, model_dir: str | None) -> str:
    """Absolute where it is surely a path; ``owner/name`` may be a repository's name and is left alone."""
    if path.startswith("~/") or (path.startswith(("./", "../")) and model_dir is None):
        return _absolute(config, path)
    return path


def _absolute(config: Config, path: str) -> str:
    if path == "~" or path.startswith("~/"):
        path = config.home + path[1:]
    # "link/.." is taken as text: that is what people mean who write it, and no file is asked here.
    return posixpath.normpath(posixpath.join(config.folder, path))


def suggestions(config: Config, name: str) -> list[str]:
    """At most three known names or aliases that resemble this one, most similar first."""
    known = {alias: model for model, entry in config.models.items() for alias in (model, *entry.aliases)}
    found: list[str] = []
    while known and len(found) < 3:
        near = nearest(name, known)
        if near is None:
            break
        if known[near] not in found:
            found.append(known[near])
        del known[near]
    return found
