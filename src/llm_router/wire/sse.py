"""Server-sent events: a stream cut at the ends of events, and one event taken apart or written.

This file knows the line rules of the HTML standard (section 9.2) as engines use them: LF or CRLF. It refuses
to know what the events mean.
"""

import re
from collections.abc import Iterator
from typing import Final

_ENDS: Final = (b"\n\n", b"\n\r\n")
_END: Final = re.compile(rb"\n\r?\n")
_OVERLAP: Final = 2

#: No engine's event is as long as this; what is longer is not held for a look.
EVENT_LIMIT: Final = 16 * 1024 * 1024

CONTENT_TYPE: Final = b"text/event-stream; charset=utf-8"
DONE: Final = b"data: [DONE]\n\n"
KEEP_ALIVE: Final = b": keep-alive\n\n"


class EventTooLongError(Exception):
    """An event is longer than ``EVENT_LIMIT``, or what is put together of events than may be kept."""


class Splitter:
    """Holds back an incomplete event, so that something may be written between what it lets through."""

    __slots__ = ("_held", "_size")

    def __init__(self) -> None:
        self._held: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> bytes:
        """The whole events that are there now, ``b""`` if none is. Raises ``EventTooLongError``."""
        held = self._held
        if not held and data.endswith(_ENDS):
            return data
        # What is held, or comes first, begins a line: a newline there is an empty line of its own.
        before = held[-1][-_OVERLAP:] if held else b"\n"
        if len(before) < _OVERLAP:
            before = (b"\n" + b"".join(held[-_OVERLAP:]))[-_OVERLAP:]
        probe = before + data
        lf, crlf = probe.rfind(b"\n\n"), probe.rfind(b"\n\r\n")
        if lf < 0 and crlf < 0:
            self._hold(data)
            return b""
        cut = max(lf + 2, crlf + 3 if crlf >= 0 else 0) - len(before)
        whole = b"".join((*held, data[:cut])) if held else data[:cut]
        held.clear()
        self._size = 0
        if cut < len(data):
            self._hold(data[cut:])
        return whole

    def rest(self) -> bytes:
        """What is held: an event without its end. It is given up."""
        rest = b"".join(self._held)
        self._held.clear()
        self._size = 0
        return rest

    def _hold(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > EVENT_LIMIT:
            raise EventTooLongError(f"cannot hold an event of more than {EVENT_LIMIT} bytes")
        self._held.append(data)


def is_ping(data: bytes) -> bool:
    """Whether what came in one read says nothing: comments only, as engines send them to keep a line open."""
    return data.startswith(b":") and b"\ndata:" not in data


def events(block: bytes) -> Iterator[bytes]:
    """The events of a block of whole events, each with its end."""
    at = 0
    for match in _END.finditer(block):
        yield block[at : match.end()]
        at = match.end()


def payload(event: bytes) -> bytes | None:
    """The text of an event's ``data`` lines, ``None`` if it has none (a comment)."""
    if event.startswith(b"data: ") and event.count(b"\n") == 2:
        return event[6:].strip(b"\r\n")
    lines = [line[5:].removeprefix(b" ") for line in event.splitlines() if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None


def name(event: bytes) -> bytes:
    """The value of the ``event`` field, ``b""`` if there is none."""
    for line in event.splitlines():
        if line.startswith(b"event:"):
            return line[6:].strip()
    return b""


def data(text: bytes) -> bytes:
    """An event of one ``data`` line."""
    return b"data: %b\n\n" % text


def named(event: bytes, text: bytes) -> bytes:
    """An event with a name and one ``data`` line."""
    return b"event: %b\ndata: %b\n\n" % (event, text)
