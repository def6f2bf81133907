"""The journal: every event the scheduler was told, in order, as one JSON line each, bounded and rotated.

It knows how lines get into files and never into the way: writing is gathered for a moment, and a full disk
is reported once and costs journal lines, not requests. It knows nothing of what the lines say.
"""

import asyncio
import logging
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

#: Lines are gathered this long (seconds) before they are written, so that a request costs no system call.
GATHER_S: Final = 0.1
FILE_BYTES: Final = 16 * 1024 * 1024
FILES: Final = 4
#: More than this many lines are not held back while the loop is too busy to write.
HELD_LINES: Final = 2_000

log = logging.getLogger(__name__)


class _Rotating(RotatingFileHandler):
    """A rotating file whose errors are the caller's. ``head`` gives the first line of each further file, or nothing."""

    head: Callable[[], str] | None = None

    def doRollover(self) -> None:  # noqa: N802 - logging's own name
        super().doRollover()
        line = self.head() if self.head is not None else ""
        if line and self.stream is not None:
            self.stream.write(line + self.terminator)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        del record
        raise  # noqa: PLE0704 - logging calls this inside its except clause


class Journal:
    """Appends lines to ``path``; older files are ``path.1`` to ``path.3``. Use within one running loop."""

    def __init__(self, path: Path, *, file_bytes: int = FILE_BYTES, files: int = FILES) -> None:
        """Raises ``OSError`` if the file cannot be opened."""
        self._path = path
        self._handler = _Rotating(path, maxBytes=file_bytes, backupCount=files - 1, encoding="utf-8")
        if path.stat().st_size:
            # Each run begins a file of its own, so that it can be lived through again from its beginning.
            self._handler.doRollover()
        path.chmod(0o600)
        self._held: list[Callable[[], str]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._failing = False

    def begin_files_with(self, head: Callable[[], str]) -> None:
        """Write this line first into each file that is begun in mid-run, so that it can be replayed by itself."""
        self._handler.head = head

    def write(self, line: Callable[[], str]) -> None:
        """Add a line. ``line`` is called when it is written, off the road of the request."""
        self._held.append(line)
        if len(self._held) >= HELD_LINES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER_S, self.flush)

    def flush(self) -> None:
        """Write what is held. Never raises for the disk's sake: what cannot be written is dropped and said once."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        held, self._held = self._held, []
        if not held:
            return
        text = "\n".join(line() for line in held)
        try:
            self._handler.emit(logging.makeLogRecord({"msg": "%s", "args": (text,)}))
        except OSError as error:
            if not self._failing:
                log.warning(
                    "cannot write the journal %s: %s; it has a gap from here until there is room again",
                    self._path,
                    error,
                )
            self._failing = True
        else:
            self._failing = False

    def close(self) -> None:
        """Write what is held and close the file."""
        self.flush()
        self._handler.close()
