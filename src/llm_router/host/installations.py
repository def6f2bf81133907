"""Engines as they are installed on this machine: on PATH, and in the places where people put them.

It looks at names and files only and starts nothing. What it does not find may still be there; what it finds may
still not work: that is found out by ``doctor`` or by the first start.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TABBY: Final = ("/opt/TabbyAPI", "/opt/tabbyAPI", "/opt/tabbyapi", "~/tabbyAPI", "~/TabbyAPI", "/srv/tabbyAPI")
#: Folders of installations; ``~`` is the account's home.
_FOLDERS: Final = {
    "sglang": ("/opt/sglang", "~/sglang", "/srv/sglang"),
    "vllm": ("/opt/vllm", "~/vllm", "/srv/vllm"),
    "transformers": ("/opt/transformers", "~/transformers"),
    "llamacpp": ("/opt/llama.cpp", "~/llama.cpp", "/opt/llamacpp", "/srv/llama.cpp", "/usr/local/llama.cpp"),
    "tabbyapi": _TABBY,
    "tabbyapi-exl2": (*(f"{folder}-exl2" for folder in _TABBY), *_TABBY),
}
#: Below such a folder.
_PROGRAMS: Final = {
    "sglang": "sglang",
    "vllm": "vllm",
    "transformers": "transformers",
    "llamacpp": "llama-server",
}
_ENVIRONMENTS: Final = ("venv", ".venv", "env", "sglang-env", "vllm-env")
_BUILDS: Final = ("build/bin", "bin", ".")
#: For environments that have the package but not the program's script.
_MODULES: Final = {"sglang": "sglang.launch_server", "vllm": "vllm.entrypoints.openai.api_server"}


@dataclass(frozen=True, slots=True)
class Installation:
    """An engine found here. ``command`` is the program with its fixed words, or ``folder`` where it has none."""

    engine: str
    command: tuple[str, ...] = ()
    folder: str = ""

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return self.folder or self.command[0]

    def backend(self) -> dict[str, object]:
        """The keys of a backend in the configuration."""
        return {"dir": self.folder} if self.folder else {"command": self.command}


def find_all(env: Mapping[str, str], root: Path = Path("/")) -> list[Installation]:
    """The engines found, at most one of each kind. ``root`` is what the usual places are below."""
    return [found for engine in _FOLDERS if (found := find(engine, env, root)) is not None]


def find(engine: str, env: Mapping[str, str], root: Path = Path("/")) -> Installation | None:
    """The first installation of this engine: in the usual folders, then on PATH."""
    for folder in _folders(engine, env, root):
        found = _in_folder(engine, folder)
        if found is not None:
            return found
    program = _PROGRAMS.get(engine)
    on_path = shutil.which(program, path=env.get("PATH", os.defpath)) if program else None
    return Installation(engine, (on_path,)) if on_path else None


def _folders(engine: str, env: Mapping[str, str], root: Path) -> Iterator[Path]:
    homes = [Path(env["HOME"])] if env.get("HOME") else []
    for place in _FOLDERS.get(engine, ()):
        if place.startswith("~/"):
            yield from (home / place[2:] for home in homes)
        else:
            yield root / place.lstrip("/")


def _in_folder(engine: str, folder: Path) -> Installation | None:
    if engine in ("tabbyapi", "tabbyapi-exl2"):
        # Main dropped ExLlamaV2 in July 2026; what still has it reads EXL2, and EXL3 files of today not.
        older = _is_file(folder / "backends" / "exllamav2" / "model.py")
        fits = _is_file(folder / "main.py") and older == (engine == "tabbyapi-exl2")
        return Installation(engine, folder=str(folder)) if fits else None
    below = _BUILDS if engine == "llamacpp" else tuple(f"{name}/bin" for name in _ENVIRONMENTS)
    for place in below:
        program = folder / place / _PROGRAMS[engine]
        if _runs(program):
            return Installation(engine, (str(program),))
    for name in _ENVIRONMENTS:
        python = folder / name / "bin" / "python"
        if engine in _MODULES and _runs(python) and _has_package(folder / name, engine):
            return Installation(engine, (str(python), "-m", _MODULES[engine]))
    return None


def _has_package(environment: Path, package: str) -> bool:
    try:
        return any((place / package).is_dir() for place in environment.glob("lib/python3*/site-packages"))
    except OSError:
        return False


def _is_file(path: Path) -> bool:
    """Without an exception for a folder that may not be looked into."""
    try:
        return path.is_file()
    except OSError:
        return False


def _runs(path: Path) -> bool:
    return _is_file(path) and os.access(path, os.X_OK)


def model_folders(env: Mapping[str, str], root: Path = Path("/")) -> list[Path]:
    """Folders in which people keep models, as far as they are there."""
    places = [root / "opt/models", root / "srv/models", root / "models", root / "data/models", root / "mnt/models"]
    if env.get("HOME"):
        places += [Path(env["HOME"]) / "models", Path(env["HOME"]) / "Models"]
    found: list[Path] = []
    for place in places:
        try:
            if place.is_dir() and not any(place.samefile(other) for other in found):
                found.append(place)
        except OSError:
            continue
    return found
