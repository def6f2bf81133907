"""What a request carries: its bytes and, where they are JSON, the fields of their object, read at most once.

It knows how a body is opened. It refuses to know what the fields mean.
"""

from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from llm_router.wire.errors import BadRequestError

Body = bytes | bytearray
#: A JSON object's keys with their values as they were sent.
Fields = dict[str, msgspec.Raw]

T = TypeVar("T")

#: Opens a JSON object and nothing in it. Raises ``msgspec.MsgspecError``, ``UnicodeDecodeError``, ``RecursionError``.
open_object: Final = msgspec.json.Decoder(Fields).decode


class Content:
    """A body. All who look at its fields look at the same reading of it, so that they cannot differ in what they saw.

    The fields are views of the body: who lets go of the one lets go of the other.
    """

    __slots__ = ("_fields", "body")

    def __init__(self, body: Body, fields: Fields | None = None) -> None:
        self.body = body
        self._fields = fields

    @property
    def fields(self) -> Fields:
        """The fields; of a key that stands there twice the last. Not to be changed.

        Raises ``BadRequestError`` for what is no JSON object.
        """
        if self._fields is None:
            self._fields = readable(open_object, self.body)
        return self._fields


NOTHING: Final = Content(b"")


def readable(decode: Callable[[Body | msgspec.Raw], T], text: Body | msgspec.Raw, at: str = "") -> T:
    """What ``decode`` makes of a request's body, or of its field ``at``.

    Raises ``BadRequestError`` for what is no JSON, and for what ``decode`` does not take.
    """
    try:
        return decode(text)
    except msgspec.ValidationError as error:
        said = f"{error}"
        if at:
            said, _, inside = said.partition(" - at `$")
            said = f"{said} - at `$.{at}{inside or '`'}"
        raise BadRequestError(f"cannot use the request's body: {said}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequestError(f"cannot read the request's body as JSON: {error}", "invalid_json") from error
    except RecursionError as error:
        raise BadRequestError("cannot read the request's body: it is nested too deeply", "invalid_json") from error
