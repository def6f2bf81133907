"""Finds and changes the field ``model`` in a ``multipart/form-data`` body (RFC 7578) without copying the files in it.

This file knows boundaries and the head of a part. It refuses to know any other field.
"""

import re
from typing import Final

from llm_router.wire.errors import BadRequestError

_BOUNDARY: Final = re.compile(rb';\s*boundary=(?:"([^"\r\n]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_MODEL: Final = re.compile(
    rb'^content-disposition:\s*form-data\s*;[^\r\n]*\bname=(?:"model"|model(?=[\s;]|$))', re.IGNORECASE | re.MULTILINE
)
_HEAD_LIMIT: Final = 8192
_PARTS_LIMIT: Final = 1000


def find_model(content_type: bytes, body: bytes | bytearray) -> tuple[int, int] | None:
    """Where the value of ``model`` stands in the body: begin and end, ``None`` if the field is not there.

    Raises ``BadRequestError`` when the body is broken or the field is there twice.
    """
    match = _BOUNDARY.search(content_type)
    if match is None:
        raise BadRequestError("cannot read the form: its Content-Type has no boundary")
    mark = b"--" + (match[1] or match[2])
    found: tuple[int, int] | None = None
    at = 0 if body.startswith(mark) else body.find(b"\r\n" + mark) + 2
    if not body.startswith(mark, at):
        raise BadRequestError("cannot read the form: its boundary is not in the body")
    for _ in range(_PARTS_LIMIT):
        at += len(mark)
        if body.startswith(b"--", at):
            return found
        begin = body.find(b"\r\n\r\n", at, at + _HEAD_LIMIT)
        end = body.find(b"\r\n" + mark, begin + 2)
        if begin < 0 or end < 0:
            raise BadRequestError("cannot read the form: a part of it has no end")
        # A part may be empty: then its end is the second half of the blank line.
        value = (min(begin + 4, end), end) if end > begin + 2 else (begin + 4, begin + 4)
        if _MODEL.search(body[at:begin]):
            if found is not None:
                raise BadRequestError("cannot choose a model: the form names more than one")
            found = value
        at = end + 2
    raise BadRequestError(f"cannot read the form: it has more than {_PARTS_LIMIT} parts")


def replace(body: bytes | bytearray, span: tuple[int, int], value: str) -> bytes:
    """The body with another value at ``span``."""
    view = memoryview(body)
    return b"".join((view[: span[0]], value.encode(), view[span[1] :]))
