"""What one run of a unit says in systemd's journal, as a file that grows: for units whose output is their own affair.

It runs journalctl, which needs no library and knows every journal's format. The text comes some 0.2 s late while
it is followed, and is whole after ``finish``. It knows nothing of engines.
"""

import asyncio
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

#: journald is given so long to write down what it was told (seconds).
_SYNC_S: Final = 2.0
_PIECE: Final = 64 * 1024


class JournalLog:
    """Copies one run's messages into ``target``, from its first one on, whenever it was begun."""

    def __init__(self, invocation: str, target: Path) -> None:
        self._target = target
        #: What its processes say, and what systemd says of it: that it was stopped, or why it could not be run.
        self._match = (f"_SYSTEMD_INVOCATION_ID={invocation}", "+", f"INVOCATION_ID={invocation}")

    def __repr__(self) -> str:
        return f"<journal of {self._match[0]} into {self._target}>"

    async def follow(self) -> None:
        """Until cancelled. Without the right to read the journal the file stays empty, which is logged."""
        try:
            process = await self._journalctl("--follow", "--lines=all")
        except OSError as error:
            log.warning("cannot follow the journal: %s; %s stays empty", error, self._target)
            return
        # Through a pipe, so that journalctl ends with us, however we end.
        assert process.stdout is not None
        try:
            with self._target.open("wb", buffering=0) as file:
                while piece := await process.stdout.read(_PIECE):
                    file.write(piece)
            log.warning("journalctl ended with %s; %s is not written on", await process.wait(), self._target)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def finish(self) -> None:
        """Add what is still missing, after the run is over."""
        with suppress(OSError, TimeoutError):
            if os.geteuid() == 0:
                async with asyncio.timeout(_SYNC_S):
                    await (await asyncio.create_subprocess_exec("journalctl", "--sync")).wait()
            whole, _ = await (await self._journalctl("--lines=all")).communicate()
            size = self._target.stat().st_size if self._target.exists() else 0
            with self._target.open("ab") as file:
                file.write(whole[size:])

    async def _journalctl(self, *options: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *("journalctl", "--quiet", "--output=cat", "--no-pager", *options, *self._match),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
