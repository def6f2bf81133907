"""Files that are watched for changes, by looking at them from time to time.

A look costs a system call a file, works on every file system and over every kind of editor (most of them replace
the file). It knows nothing of what stands in them.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from pathlib import Path
from typing import Final

#: Seconds between two looks. A change counts once nothing has changed between two looks.
EVERY_S: Final = 1.0

_Marks = tuple[tuple[int, int, int] | None, ...]


async def changes(files: Callable[[], Iterable[Path]], every_s: float = EVERY_S) -> AsyncGenerator[None]:
    """One item for each time that files have changed, come or gone, and then stayed as they are for a moment.

    ``files`` is asked at each look, so it may change too.
    """
    told = last = _look(files())
    while True:
        await asyncio.sleep(every_s)
        now = _look(files())
        if now == last and now != told:
            told = now
            yield
        last = now


def _look(files: Iterable[Path]) -> _Marks:
    return tuple(map(_mark, files))


def _mark(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
