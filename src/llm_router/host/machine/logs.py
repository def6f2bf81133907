"""What an engine writes, line by line, as it comes: cleaned of control codes and of secrets, in bounded memory.

This file knows files and lines. What a line means is the engine adapter's to say.
"""

import os
import re
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Final

#: ECMA-48: control sequences (colours, cursor), operating system commands (titles, links), other escapes; then
#: the remaining control characters but the tab.
_CONTROL: Final = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]?|[\x00-\x08\x0a-\x1f\x7f-\x9f]"
)
#: TabbyAPI prints its keys once, at its first start.
_ANNOUNCED: Final = re.compile(r"(Your (?:API|admin) key is)\b.*", re.IGNORECASE)
#: Engines print their settings, and an existing unit's may hold a key that the router was not told.
_SETTING: Final = re.compile(
    r"(\b(?:api|admin)[-_](?:api[-_])?keys?['\"]?\s*[=:]\s*[\[({]?\s*['\"])[^'\"]+|(--(?:admin-)?api-key[ =])\S+",
    re.IGNORECASE,
)
_REDACTED: Final = "[redacted]"
#: At most so much is taken in one go, so that a flood does not stop the caller's loop.
_PIECE: Final = 256 * 1024
#: Of what nobody has read at the end only so much is: the last lines tell why, and the rest may be days of them.
_LAST: Final = 2 * 1024 * 1024


def clean(raw: bytes) -> str:
    """One line without control codes. Bytes that are no UTF-8 become replacement characters."""
    return _CONTROL.sub("", raw.decode("utf-8", errors="replace")).rstrip()


class LogTail:
    """Follows one log file from its beginning. Nothing here waits: ``read_new`` takes what is there.

    ``secrets`` are replaced wherever they stand. ``keep`` lines stay in ``lines``; a line is cut after
    ``max_line`` characters. Blank lines are dropped; a progress bar's redraws (``\\r``) are lines.
    """

    def __init__(self, path: Path, *, secrets: Iterable[str] = (), keep: int = 200, max_line: int = 4000) -> None:
        self._path = path
        #: The longest first: one may be a part of another.
        self._secrets = sorted((secret for secret in secrets if secret), key=len, reverse=True)
        self._max_line = max_line
        self._offset = 0
        self._rest = b""
        self._skipping = False
        #: The last lines, oldest first.
        self.lines: deque[str] = deque(maxlen=keep)

    def __repr__(self) -> str:
        return f"<tail of {self._path} at {self._offset}, {len(self.lines)} lines>"

    def read_new(self) -> list[str]:
        """The lines that were completed since the last call; empty while there is no file.

        At most 256 KiB are read in one call. A file that became shorter is read from its beginning again.
        Raises ``OSError`` when the file may not be read.
        """
        return self._take(self._read())

    def latest(self) -> list[str]:
        """As ``read_new``, but of what nobody has read for long only the last 256 KiB: the rest is passed over."""
        self._leap(_PIECE)
        return self.read_new()

    def finish(self) -> list[str]:
        """What is left, once nobody writes any more, with a last line that has no end; of much the last 2 MiB."""
        self._leap(_LAST)
        found: list[str] = []
        while piece := self._read():
            found += self._take(piece)
        return found + self._take(b"\n")

    def tail(self, count: int) -> tuple[str, ...]:
        """The last ``count`` lines, oldest first."""
        return tuple(self.lines)[-count:] if count > 0 else ()

    def _leap(self, most: int) -> None:
        """Pass over what is more than so many bytes, to the beginning of a line."""
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            return
        if size - self._offset > most:
            self._offset, self._rest, self._skipping = size - most, b"", True

    def _read(self) -> bytes:
        try:
            with self._path.open("rb", buffering=0) as file:
                if os.fstat(file.fileno()).st_size < self._offset:
                    self._offset, self._rest, self._skipping = 0, b"", False
                file.seek(self._offset)
                piece = file.read(_PIECE)
        except FileNotFoundError:
            return b""
        self._offset += len(piece)
        return piece

    def _take(self, piece: bytes) -> list[str]:
        *whole, rest = (self._rest + piece).replace(b"\r", b"\n").split(b"\n")
        found = []
        for raw in whole:
            if self._skipping:
                self._skipping = False
            elif line := self._line(raw):
                found.append(line)
        self._rest = b"" if self._skipping else rest
        if len(self._rest) > self._enough:
            if line := self._line(self._rest):
                found.append(line)
            self._rest, self._skipping = b"", True
        self.lines.extend(found)
        return found

    @property
    def _enough(self) -> int:
        """Bytes of a line that are worth keeping: four for each character, and a secret that begins at the cut."""
        return 4 * (self._max_line + max(map(len, self._secrets), default=0))

    def _line(self, raw: bytes) -> str:
        line = _ANNOUNCED.sub(rf"\1 {_REDACTED}", clean(raw[: self._enough]))
        line = _SETTING.sub(rf"\1\2{_REDACTED}", line)
        for secret in self._secrets:
            line = line.replace(secret, _REDACTED)
        return line if len(line) <= self._max_line else line[: self._max_line] + "…"
