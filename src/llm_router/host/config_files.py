"""The configuration's files: looked for, read, handed to the pure parser.

This file knows files and folders. It does not know what a configuration means.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

from llm_router.config.load import Config, parse_parts
from llm_router.config.old import Installed
from llm_router.config.problems import ConfigError, Place, Problem
from llm_router.config.search import candidates
from llm_router.host import installations

_LARGEST_SECRET = 64 * 1024


def find(explicit: str | Path | None, env: Mapping[str, str]) -> Path:
    """The file or folder of the configuration (R2). Raises ``ConfigError`` that lists where it was looked for.

    A folder counts when it holds ``config.yml``.
    """
    home = env.get("HOME") or str(Path.home())
    places = candidates(str(explicit) if explicit is not None else None, env, str(Path.cwd()), home)
    for place in places:
        path = Path(place.path)
        if (path / "config.yml").is_file() or path.is_file():
            return path
        if place.asked:
            cause = "the folder holds no config.yml" if path.is_dir() else "there is no such file"
            raise ConfigError([Problem(Place(place.path), f"cannot use this configuration ({place.origin}): {cause}")])
    looked = ", ".join(place.path for place in places)
    raise ConfigError(
        [
            Problem(
                Place("llm-router.yml"),
                f"cannot find a configuration; looked for {looked}",
                "Write one of them, or name yours with --config; `llm-router demo` needs none",
            )
        ]
    )


def files_of(path: Path) -> list[Path]:
    """The files of a configuration: itself, or ``config.yml`` and, where there is one, the ``models.yml`` beside it."""
    first = path / "config.yml" if path.is_dir() else path
    models = first.with_name("models.yml")
    return [first, models] if first.name == "config.yml" and models.is_file() else [first]


def load(path: Path, env: Mapping[str, str], engines: Collection[str] | None = None) -> Config:
    """The configuration in this file, or in this folder's ``config.yml`` and ``models.yml``.

    Raises ``ConfigError``, also for files that cannot be read. Blocks; files are small.
    """
    folder = (path if path.is_dir() else path.parent).absolute()
    return parse_parts(
        read_files(path),
        env,
        lambda name: secret(folder, name),
        engines,
        folder=str(folder),
        installed=installed_here(env),
    )


def read_files(path: Path) -> list[tuple[str, str]]:
    """The names and texts of a configuration's files. Raises ``ConfigError`` for one that cannot be read."""
    return [(str(file), _read(file)) for file in files_of(path)]


def installed_here(env: Mapping[str, str]) -> Installed:
    """Where this machine's engines are, for older layouts."""

    def keys(engine: str) -> Mapping[str, object]:
        found = installations.find(engine, env)
        return found.backend() if found is not None else {}

    return keys


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise _unreadable(file, error.strerror or str(error)) from None
    except UnicodeDecodeError:
        raise _unreadable(file, "it is not UTF-8 text") from None


def _unreadable(file: Path, cause: str) -> ConfigError:
    return ConfigError([Problem(Place(str(file)), f"cannot read the configuration: {cause}")])


def secret(folder: Path, name: str) -> str:
    """The text of a secret's file; relative names are below the configuration's folder."""
    with (folder / Path(name).expanduser()).open(encoding="utf-8") as file:
        text = file.read(_LARGEST_SECRET + 1)
    if len(text) > _LARGEST_SECRET:
        raise ValueError("it is larger than 64 KiB")
    return text
