import asyncio
from pathlib import Path

import pytest

from llm_router.host.watched import changes

QUICK_S = 0.005


class Ear:
    """Counts what it hears."""

    def __init__(self, *files: Path) -> None:
        self.files = files
        self.heard = asyncio.Event()
        self.looks = 0

    def look(self) -> tuple[Path, ...]:
        self.looks += 1
        return self.files

    async def listen(self) -> None:
        async for _ in changes(self.look, QUICK_S):
            self.heard.set()

    async def hears(self) -> bool:
        """Whether it is told of a change within a few looks."""
        until = self.looks + 4
        while self.looks < until:
            await asyncio.sleep(QUICK_S)
        heard = self.heard.is_set()
        self.heard.clear()
        return heard


@pytest.mark.parametrize("deed", ["write", "replace", "remove"])
async def test_each_kind_of_change_is_told_once(tmp_path: Path, deed: str) -> None:
    file, other = tmp_path / "a", tmp_path / "b"
    file.write_text("1")
    ear = Ear(file, tmp_path / "never there")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(ear.listen())
        assert not await ear.hears()
        other.write_text("22")
        if deed == "write":
            file.write_text("22")
        elif deed == "replace":
            other.replace(file)
        else:
            file.unlink()
        assert await ear.hears()
        assert not await ear.hears()
        task.cancel()


async def test_a_file_that_is_still_being_written_is_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "a"
    writes = 0

    def look() -> tuple[Path, ...]:
        nonlocal writes
        if writes < 10:
            writes += 1
            file.write_text("x" * writes)
        return (file,)

    told = changes(look, QUICK_S)
    await asyncio.wait_for(anext(told), 5)
    assert writes == 10
    await told.aclose()
