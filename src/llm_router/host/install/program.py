"""Which Python runs the service, and where it comes from: the environment of this command, or one of its own.

A service under a plain account cannot run what lies in somebody's home, and should not run what somebody else may
change. This file looks at files and asks interpreters for their version.
"""

import hashlib
import json
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final, Literal
from urllib.parse import unquote, urlsplit

from llm_router import __version__
from llm_router.host.install import machine
from llm_router.host.install.deeds import Packages
from llm_router.host.install.layout import Layout
from llm_router.host.install.machine import InstallError

Choice = Literal["auto", "present", "new"]

_NAME: Final = "llm-router"
_OLDEST: Final = (3, 11)


@dataclass(frozen=True, slots=True)
class Program:
    """``python`` runs ``-m llm_router``; ``package`` is the folder of the package there. ``packages``: to be made first."""

    python: Path
    package: Path
    why: str
    packages: Packages | None = None


def choose(choice: Choice, layout: Layout, account: str, source: str | None = None) -> Program:
    """The program for the service of ``account`` (empty: of whoever runs this). Raises ``InstallError``.

    ``source`` is what pip installs into a new environment, by default what this one was installed from.
    """
    here = Program(Path(sys.executable), Path(__file__).parents[2], "the environment that this command runs in")
    plain = account not in ("", "root")
    hindrance = (
        next(hindrances(here.python), None) or next(hindrances(here.package / "__main__.py"), None) if plain else None
    )
    if choice == "present" and hindrance:
        raise InstallError(f"cannot run the service from this environment: {hindrance}; use --venv new")
    if choice == "present" or (choice == "auto" and hindrance is None):
        return here
    return _new(layout, source or installed_from(), plain, hindrance)


def _new(layout: Layout, source: str, plain: bool, why: str | None) -> Program:
    python, version = _python(plain)
    folder = layout.programs / f"{__version__}-{digest()}"
    package = folder / "lib" / f"python{version[0]}.{version[1]}" / "site-packages" / "llm_router"
    packages = Packages(str(folder), str(python), source, tuple(present_versions()))
    reason = "an environment of its own" + (f", because {why}" if why else "")
    return Program(folder / "bin" / "python", package, reason, packages)


def hindrances(path: Path) -> Iterator[str]:
    """Why a plain account should not run this file: it cannot reach it, or others than root may change it."""
    for place in (path, path.resolve()):
        for part in (place, *place.parents):
            try:
                found = part.stat()
            except OSError as error:
                yield f"{part} cannot be looked at: {error.strerror}"
                return
            if not found.st_mode & (stat.S_IXOTH if stat.S_ISDIR(found.st_mode) else stat.S_IROTH):
                yield f"{part} is closed to other accounts"
            elif found.st_uid != 0:
                yield f"{part} belongs to somebody who could change what the service runs"
            elif found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
                yield f"{part} may be changed by everybody"


def installed_from() -> str:
    """What pip can install the same program from: the folder or archive it came from, else its name and version."""
    try:
        told = json.loads(metadata.distribution(_NAME).read_text("direct_url.json") or "{}")
    except (metadata.PackageNotFoundError, ValueError):
        told = {}
    url = urlsplit(str(told.get("url", "")))
    if url.scheme == "file" and Path(unquote(url.path)).exists():
        return unquote(url.path)
    return url.geturl() or f"{_NAME}=={__version__}"


def digest() -> str:
    """Eight letters that stand for this program as it is: a version of which a line was changed is another one."""
    package, found = Path(__file__).parents[2], hashlib.sha256()
    for path in sorted(path for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"):
        found.update(f"{path.relative_to(package)}\0".encode() + path.read_bytes())
    return found.hexdigest()[:8]


def present_versions() -> list[str]:
    """The versions that this environment has, as pip's constraints: what was tried is what is installed."""
    found = {str(one.metadata["Name"]): one.version for one in metadata.distributions() if one.metadata["Name"]}
    return sorted(f"{name}=={version}" for name, version in found.items() if name.lower().replace("_", "-") != _NAME)


def _python(plain: bool) -> tuple[Path, tuple[int, int]]:
    """An interpreter that the service's account can run, with its version."""
    base = Path(getattr(sys, "_base_executable", sys.executable))
    tried = []
    for python in (base, Path("/usr/bin/python3")):
        hindrance = next(hindrances(python), None) if plain else None
        version = None if hindrance else _version(python)
        if version is not None and version >= _OLDEST:
            return python, version
        tried.append(hindrance or f"{python} is not Python {_OLDEST[0]}.{_OLDEST[1]} or newer")
    raise InstallError(f"cannot find a Python for the service: {'; '.join(tried)}; install python3 with python3-venv")


def _version(python: Path) -> tuple[int, int] | None:
    if not os.access(python, os.X_OK):
        return None
    code, said = machine.ask((str(python), "-Ic", "import sys; print(*sys.version_info[:2])"), limit_s=20)
    numbers = said.split()
    return (int(numbers[0]), int(numbers[1])) if code == 0 and len(numbers) == 2 else None
