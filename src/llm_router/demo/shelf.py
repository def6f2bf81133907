"""The demo's shelf: a few models, each of which says who it is, and the engine that runs them.

This file knows how large the files are, that made ones are kept, and by which command a model is served. It
knows neither configuration nor router.
"""

import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from llm_router.demo.tinymodel import TinyModel, is_model, model_size, write_model

_GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau upsilon "
    "phi chi psi omega"
)
NAMES: Final = tuple(_GREEK.split())
#: Enough that a load takes a visible second, and little enough that one core says 40 tokens a second.
PAD_MB: Final = 400
#: All files together stay below this many megabytes.
TOTAL_MB: Final = 1000
#: So much of the disk stays free, in bytes.
SPARE: Final = 2_000_000_000
SAYS: Final = (
    "I am {name}, a small demo model. I run on a real llama.cpp, "
    "and whatever you ask me, this sentence is all that I can say."
)
#: The server inside the wheel, with one thread: more of them spin and starve whatever else the machine does.
COMMAND: Final = (sys.executable, "-m", "llm_router.demo.llama_server")
#: Read and checked instead of mapped: the load then takes its honest time also when the file is cached.
ARGS: Final[Mapping[str, object]] = {"threads": 1, "load-mode": "none", "check-tensors": True, "cache-ram": 0}
CONTEXT: Final = 4096


@dataclass(frozen=True, slots=True)
class DemoModel:
    """One model of the demo: its file, and what it answers to everything."""

    name: str
    path: Path
    says: str


def has_engine() -> bool:
    """Whether the wheel with the server is installed."""
    return find_spec("xllamacpp") is not None


def prepare(
    folder: Path, count: int, *, pad_mb: int | None = None, told: Callable[[str], None] = lambda _text: None
) -> list[DemoModel]:
    """Make sure that ``folder`` holds ``count`` models, and give them in order. Files made before are kept.

    ``pad_mb`` is the size of each; by default as large as count and disk allow. ``told`` hears of each file
    that is written, which takes about a second for 100 MB. Raises ``ValueError`` for a count that is not
    between 1 and the number of names, ``OSError`` when a file cannot be written.
    """
    if not 1 <= count <= len(NAMES):
        raise ValueError(f"cannot make {count} demo models: 1 to {len(NAMES)} are possible")
    folder.mkdir(parents=True, exist_ok=True)
    wanted = min(PAD_MB, TOTAL_MB // count - 10) if pad_mb is None else pad_mb
    models = [_model(name, wanted) for name in NAMES[:count]]
    missing = [model for model in models if not is_model(_path(folder, model), model)]
    if pad_mb is None and sum(map(model_size, missing)) > shutil.disk_usage(folder).free - SPARE:
        told("the disk is nearly full: the demo models are made without padding and load in no time")
        models = missing = [_model(name, 0) for name in NAMES[:count]]
    for model in missing:
        path = _path(folder, model)
        told(f"writing {path.name} ({model_size(model) / 1e6:.0f} MB)")
        write_model(path, model.name, model.says, model.pad_mb)
    return [DemoModel(model.name, _path(folder, model), model.says) for model in models]


def _model(name: str, pad_mb: int) -> TinyModel:
    return TinyModel(name, SAYS.format(name=name), pad_mb)


def _path(folder: Path, model: TinyModel) -> Path:
    return folder / f"{model.name}.gguf"
