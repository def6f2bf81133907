"""The bench of every test here."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes.children import Bench


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    yield made
    await made.close()
