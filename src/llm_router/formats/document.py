"""Reads small JSON documents that somebody else wrote, without trusting their types.

Every getter answers "absent" for a value of the wrong type or an absurd size, so the readers of
configurations need no checks of their own. It knows no field names.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from llm_router.formats.reading import BadFile

#: A real ``config.json`` has some kilobytes, the largest index file some megabytes.
MAX_DOCUMENT: Final = 32 * 1024 * 1024
MAX_NUMBER: Final = 1 << 48


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON object."""

    fields: dict[str, object] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        """Whether the field is there and not ``null``."""
        return self.fields.get(name) is not None

    def whole(self, *names: str) -> int | None:
        """The first of these fields that is a whole number from 0 to 2**48."""
        return next((value for value in map(self._whole, names) if value is not None), None)

    def _whole(self, name: str) -> int | None:
        value = self.fields.get(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_NUMBER else None

    def number(self, name: str) -> float | None:
        """The field, if it is a number from 0 to 2**48."""
        value = self.fields.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_NUMBER:
            return None
        return float(value)

    def flag(self, name: str) -> bool | None:
        value = self.fields.get(name)
        return value if isinstance(value, bool) else None

    def text(self, *names: str) -> str:
        """The first of these fields that is a text; else empty."""
        return next((value for value in map(self.fields.get, names) if isinstance(value, str)), "")

    def texts(self, name: str) -> list[str]:
        """The texts of a list; anything else in it is left out."""
        value = self.fields.get(name)
        return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []

    def inner(self, name: str) -> "Document":
        """The object in the field; an empty one if there is none."""
        value = self.fields.get(name)
        return Document(value) if isinstance(value, dict) else Document()

    def inners(self) -> Iterator["Document"]:
        """All fields that are objects."""
        return (Document(value) for value in self.fields.values() if isinstance(value, dict))


def read_document(data: bytes, name: str) -> Document | BadFile:
    """Parse a JSON object. ``name`` is the file's, for the reason."""
    if len(data) > MAX_DOCUMENT:
        return BadFile(f"cannot read {name}: it has more than {MAX_DOCUMENT} bytes")
    try:
        # The configurations of some Mamba models hold a bare ``Infinity``, which only this parser takes.
        value = json.loads(data)
    except RecursionError:
        return BadFile(f"cannot read {name}: it is nested too deeply")
    except ValueError as error:
        return BadFile(f"cannot read {name}: it is not JSON ({error})")
    return Document(value) if isinstance(value, dict) else BadFile(f"cannot read {name}: it is not a JSON object")
