"""What every test can use: a shelf of tiny real models, made once for all workers."""

import fcntl
from collections.abc import Callable
from pathlib import Path

import pytest

from support.router import QUICK_MB, make_model

Shelf = Callable[..., Path]


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    """Gives the file of a tiny model by name (and padding in MB); made once, whichever worker asks first."""
    base = tmp_path_factory.getbasetemp()
    # With several workers each has a folder of its own below a common one.
    folder = (base.parent if base.name.startswith("popen-") else base) / "shelf"
    folder.mkdir(exist_ok=True)

    def model(name: str, pad_mb: int = QUICK_MB) -> Path:
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return make_model(folder, name, pad_mb)

    return model
