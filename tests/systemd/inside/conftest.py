"""What the installations on a real systemd are made with."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.installing import shelf


@pytest.fixture(scope="module")
def config() -> Iterator[Path]:
    """The configuration of a shelf with two tiny models."""
    with shelf() as file:
        yield file
