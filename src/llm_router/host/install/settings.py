"""The configuration that an installation puts in place: where it comes from, what is added, and whether it will do.

It is tried out before anything is done, with what the service will have: another folder, another home, no
variables of this shell. This file writes nothing.
"""

import io
import os
import pwd
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from llm_router.config import shelf
from llm_router.config.convert import convert
from llm_router.config.load import Config, parse_parts, read_parts
from llm_router.config.old import is_old
from llm_router.config.problems import ConfigError
from llm_router.config.values import hashed
from llm_router.host import config_files
from llm_router.host.install.layout import Layout
from llm_router.host.install.machine import InstallError
from llm_router.host.install.network import ANYWHERE, Network

MAIN: Final = "config.yml"
FILES: Final = (MAIN, "models.yml")
#: What systemd gives a service (systemd.exec(5), "Environment Variables in Spawned Processes").
SERVICE_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Settings:
    """The configuration as it will be. ``files`` are texts by name, empty if the present one is kept.

    ``fresh_keys`` are keys made for it, by name; they are shown once and kept nowhere.
    """

    config: Config
    origin: Path
    files: Mapping[str, str] = field(default_factory=dict)
    fresh_keys: Mapping[str, str] = field(default_factory=dict, repr=False)


def find(given: Path | None, layout: Layout, environment: Mapping[str, str]) -> Path:
    """The configuration to install: as given, the one that is there, or what ``serve`` would use. Raises ``InstallError``."""
    if given is not None:
        return given.absolute()
    if (layout.config / MAIN).is_file():
        return layout.config
    homes = [environment.get("HOME") or str(Path.home())]
    if environment.get("SUDO_USER"):
        # Who typed sudo wrote the configuration at home, not in root's.
        homes.insert(0, _home_of(environment["SUDO_USER"]))
    for home in homes:
        try:
            return config_files.find(None, {**environment, "HOME": home})
        except ConfigError:
            continue
    raise InstallError(
        "cannot install without a configuration: none was found; write one (`llm-router init` helps), "
        "try it with `llm-router config check`, and name it with --config"
    )


def prepare(origin: Path, network: Network, layout: Layout, environment: Mapping[str, str], home: Path) -> Settings:
    """The configuration from ``origin`` with the network's settings, tried out. Raises ``InstallError``, ``ConfigError``.

    ``home`` is the home of the account that will run the router.
    """
    there = layout.config / MAIN
    if origin in (layout.config, there):
        return Settings(_tried(_read(layout.config), layout, home), origin)
    source = config_files.load(origin, environment)
    texts = _texts_of(origin, environment, as_it_is=network.port in (None, source.server.port))
    texts[MAIN], keys = changed(texts[MAIN], network, source)
    config = _tried(texts, layout, home)
    _check_same(source, config, origin, layout)
    if not there.is_file():
        return Settings(config, origin, texts, keys)
    present = _tried(_read(layout.config), layout, home)
    if _meaning(present) != _meaning(config):
        raise InstallError(
            f"cannot put {origin} in place: {there} is there already and says something else; edit that one, "
            "or move it away"
        )
    return Settings(present, origin)


def _meaning(config: Config) -> tuple[object, ...]:
    """What two texts are compared by. Keys are made anew each time, so they do not count."""
    return config.server.model_copy(update={"keys": ()}), config.scheduler, config.backends, config.models


def changed(text: str, network: Network, has: Config) -> tuple[str, dict[str, str]]:
    """The text with what the network needs, its comments kept, and the keys that were made. Raises ``InstallError``."""
    words: dict[str, Any] = {}
    if network.port is not None and network.port != has.server.port:
        words["port"] = network.port
    if network.where == "container" and network.bridge not in has.server.addresses and has.server.host != ANYWHERE:
        words["also_listen"] = [*has.server.also_listen, network.bridge]
    if network.where == "remote" and has.server.loopback:
        words["host"] = ANYWHERE
    keys: dict[str, str] = {}
    if network.where != "host" and not has.server.keys and (has.server.loopback or words):
        keys = {name: f"sk-{secrets.token_urlsafe(32)}" for name in ("open-webui", "admin")}
        words["keys"] = [
            {"name": name, "key": hashed(key), **({"admin": True} if name == "admin" else {})}
            for name, key in keys.items()
        ]
    return (_edited(text, words) if words else text), keys


def _edited(text: str, words: Mapping[str, Any]) -> str:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 10_000
    try:
        document = yaml.load(text)
    except YAMLError as error:
        raise InstallError(f"cannot change the configuration: {error}") from None
    if not isinstance(document, CommentedMap) or not isinstance(document.get("server") or {}, dict):
        raise InstallError("cannot change the configuration: it has no sections; convert it first")
    if document.get("server") is None:
        document.pop("server", None)
        document.insert(0, "server", CommentedMap())
    document["server"].update(words)
    out = io.StringIO()
    yaml.dump(document, out)
    return out.getvalue()


def _texts_of(origin: Path, environment: Mapping[str, str], *, as_it_is: bool) -> dict[str, str]:
    """The texts to be put in place. An older router's are converted if they are no YAML, or have to be changed."""
    parts = config_files.read_files(origin)
    if origin.suffix != ".py" and (as_it_is or not is_old(read_parts(parts, environment)[1])):
        return _read(origin)
    return {MAIN: convert(parts, environment, config_files.installed_here(environment))}


def _read(origin: Path) -> dict[str, str]:
    names = [origin / name for name in FILES] if origin.is_dir() else [origin]
    try:
        texts = [file.read_text(encoding="utf-8-sig") for file in names if file == names[0] or file.exists()]
    except (OSError, UnicodeDecodeError) as error:
        raise InstallError(f"cannot read the configuration {origin}: {error}") from None
    return dict(zip(FILES, texts, strict=False))


def _tried(texts: Mapping[str, str], layout: Layout, home: Path) -> Config:
    """As the service will read it: it has no variable of this shell, and another folder."""

    def secret(name: str) -> str:
        return (layout.config / name).read_text(encoding="utf-8")

    parts = [(str(layout.config / name), text) for name, text in texts.items()]
    environment = {"HOME": str(home), "PATH": SERVICE_PATH}
    installed = config_files.installed_here(environment)
    return parse_parts(parts, environment, secret, folder=str(layout.config), installed=installed)


def _check_same(source: Config, config: Config, origin: Path, layout: Layout) -> None:
    """A copy must mean what the original means: relative paths would lead elsewhere."""
    for name in source.models:
        for before, after in zip(_leads_to(source, name), _leads_to(config, name), strict=True):
            if before != after:
                raise InstallError(
                    f"cannot move {origin} to {layout.config}: the model {name!r} would use {after} instead of {before}; "
                    "write absolute paths"
                )


def _leads_to(config: Config, model: str) -> list[str]:
    """All places and programs that the model's settings mean."""
    job, service = shelf.job(config, model, port=0, directory=""), shelf.service(config, model)
    words: list[object] = [job.command, job.path, job.cwd, job.home, job.model_dir]
    if service is not None:
        words += [service.script, service.config_file, service.tokens_file]
    return [" ".join(word) if isinstance(word, tuple) else str(word) for word in words]


def _home_of(account: str) -> str:
    try:
        return pwd.getpwnam(account).pw_dir
    except KeyError:
        return os.environ.get("HOME", "/")
