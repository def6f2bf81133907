"""One model before anybody has started it: what its files are, what it will take, and what would be run.

It reads the heads of files and starts nothing. Whether a machine has the room is decided elsewhere.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from llm_router.config import shelf
from llm_router.config.load import Config
from llm_router.engines.engine import Job
from llm_router.formats.estimate import Estimate, Setting, estimate
from llm_router.formats.recognise import Recognised
from llm_router.formats.serving import refusal
from llm_router.host import scan

#: What stands in place of a secret.
HIDDEN: Final = "***"
_KEY: Final = "0" * 32
#: Stands for a port that is chosen at each start.
_PORT: Final = 65535
_SECRET: Final = re.compile(r"(?i)(^|[-_])(key|token|password|secret)s?($|[-_])")
#: The engines' own words for the type of the cache and for the context, best known first.
_CACHE: Final = ("cache-type-k", "ctk", "kv-cache-dtype", "cache-mode")
_CACHE_VALUES: Final = ("cache-type-v", "ctv")
_CONTEXT: Final = ("ctx-size", "c", "context-length", "max-model-len", "max-seq-len", "cache-size")


@dataclass(frozen=True, slots=True)
class Portrait:
    """All that can be told of a model without starting it.

    ``argv`` is the command (``PORT`` is chosen at the start), ``env`` what is added to its environment and ``unit`` the existing unit that is used
    instead of a process of the router's own; secrets are hidden. ``problem`` says why it could not be started.
    ``about`` and ``estimated`` are ``None`` where its files are not found here.
    """

    model: str
    engine: str
    backend: str
    about: Recognised | None = None
    estimated: Estimate | None = None
    argv: tuple[str, ...] = ()
    env: Mapping[str, str] | None = None
    files: tuple[str, ...] = ()
    unit: str = ""
    problem: str = ""


def portray(config: Config, model: str, gpus: int) -> Portrait:
    """The portrait of a configured model on a machine with so many GPUs; an unknown one is a ``KeyError``."""
    backend, _ = config.backend_of(model)
    engine, unit = shelf.engine(config, model), shelf.service(config, model)
    devices = _devices(config.models[model].gpus, gpus)
    port = config.backend_of(model)[1].port or _PORT
    job = shelf.job(config, model, port=port, devices=devices, directory="/run/llm-router/INSTANCE", key=_KEY)
    about = _recognise(job)
    argv: tuple[str, ...] = ()
    env: Mapping[str, str] = {}
    files: tuple[str, ...] = ()
    try:
        launch = engine.launch(job)
    except ValueError as error:
        problem = str(error)
    else:
        problem = (refusal(engine.name, about.format) or _unservable(about)) if about is not None else ""
        argv, env = hide(launch.argv, launch.secrets), _hide_env(launch.env, job.env, launch.secrets)
        files = tuple(file.path for file in launch.files)
    estimated = None
    if about is not None and about.servable:
        estimated = estimated_for(about, _setting(engine.name, job, len(devices)))
    return Portrait(
        model, engine.name, backend, about, estimated, argv, env, files, unit.unit if unit else "", problem or ""
    )


def estimated_for(about: Recognised, setting: Setting) -> Estimate | None:
    """What it takes; ``None`` for a type of cache that is not known."""
    try:
        return estimate(about, setting)
    except ValueError:
        return None


def hide(words: Sequence[str], secrets: Sequence[str]) -> tuple[str, ...]:
    """The words of a command without its secrets: those that are known, and what follows an option that sounds so."""
    shown: list[str] = []
    for word in words:
        name, equals, _ = word.partition("=")
        if shown and shown[-1].startswith("-") and _SECRET.search(shown[-1]) and not word.startswith("-"):
            shown.append(HIDDEN)
        elif equals and name.startswith("-") and _SECRET.search(name):
            shown.append(f"{name}={HIDDEN}")
        else:
            shown.append(_without(word, secrets))
    return tuple(shown)


def hide_options(options: Mapping[str, object]) -> dict[str, object]:
    """An engine's options without the values of those that sound like secrets."""
    return {name: HIDDEN if _SECRET.search(name) else value for name, value in options.items()}


def _hide_env(env: Mapping[str, str], configured: Mapping[str, str], secrets: Sequence[str]) -> dict[str, str]:
    """What a person has configured may be a secret whatever it is called."""
    return {
        name: HIDDEN if name in configured or _SECRET.search(name) else _without(value, secrets)
        for name, value in env.items()
    }


def _without(text: str, secrets: Sequence[str]) -> str:
    for secret in (_KEY, *secrets):
        text = text.replace(secret, HIDDEN) if secret else text
    return text.replace(str(_PORT), "PORT")


def _recognise(job: Job) -> Recognised | None:
    if not job.path:
        return None
    path = Path(job.model_dir, job.path)
    return scan.recognise_path(path) if path.is_absolute() and path.exists() else None


def _unservable(about: Recognised) -> str:
    return "" if about.servable else about.reason


def _devices(wanted: int | tuple[int | str, ...] | None, gpus: int) -> tuple[int, ...]:
    if wanted is None:
        return tuple(range(gpus))
    if isinstance(wanted, int):
        return tuple(range(min(wanted, gpus)))
    return tuple(gpu if isinstance(gpu, int) else number for number, gpu in enumerate(wanted)) if gpus else ()


def _setting(engine: str, job: Job, devices: int) -> Setting:
    options = {key.strip("-").replace("_", "-"): value for key, value in job.options.items()}
    context = job.context or next(
        (int(str(options[word])) for word in _CONTEXT if str(options.get(word)).isdigit()), None
    )
    keys = next((str(options[word]) for word in _CACHE if word in options), "auto")
    values = next((str(options[word]) for word in _CACHE_VALUES if word in options), "")
    return Setting(engine, context or None, job.parallel or 1, devices, f"{keys},{values}" if values else keys)
