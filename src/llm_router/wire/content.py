"""What a request carries: its bytes and, where they are JSON, the fields of their object, read at most once.

It knows how a body is opened. It refuses to know what the fields mean.
"""

from typing import Final

import msgspec

from llm_router.wire.errors import BadRequestError

Body = bytes | bytearray
#: A JSON object's keys with their values as they were sent.
Fields = dict[str, msgspec.Raw]

_fields: Final = msgspec.json.Decoder(Fields).decode


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
            self._fields = _read(self.body)
        return self._fields


NOTHING: Final = Content(b"")


def _read(body: Body) -> Fields:
    try:
        return _fields(body)
    except msgspec.ValidationError as error:
        raise BadRequestError(f"cannot use the request's body: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequestError(f"cannot read the request's body as JSON: {error}", "invalid_json") from error
    except RecursionError as error:
        raise BadRequestError("cannot read the request's body: it is nested too deeply", "invalid_json") from error
