"""The few fields of a request that the router looks at, and the few that it changes.

This file knows JSON bodies in the manner of OpenAI. What it does not look at stays byte for byte. It
refuses to judge fields that only the engine needs.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeVar
from urllib.parse import parse_qs

import msgspec

from llm_router.wire.content import Body, Content, Fields, open_object, readable
from llm_router.wire.errors import BadRequestError

#: Above this size a body is written anew without looking whether it must be: looking costs more.
_SCAN_LIMIT: Final = 64 * 1024


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Format(msgspec.Struct):
    type: str | None = None


class _Message(msgspec.Struct):
    role: str | None = None
    content: object = None


T = TypeVar("T")

_text: Final = msgspec.json.Decoder(str | None).decode
_flag: Final = msgspec.json.Decoder(bool | None).decode
_options: Final = msgspec.json.Decoder(_StreamOptions | None).decode
_messages: Final = msgspec.json.Decoder(list[_Message]).decode
_format: Final = msgspec.json.Decoder(_Format).decode
_encode: Final = msgspec.json.encode

#: Fields that make an answer one for a program or for the ear, if they say anything.
_BOUND: Final = frozenset({"grammar", "json_schema", "guided_json", "structured_outputs", "audio"})
_SHAPING: Final = _BOUND | {"modalities", "response_format", "text"}
_NOTHING: Final = (b"", b"null")

#: How the second line of Open WebUI's own prompts for titles, follow-ups and tags begins (its config.py).
_TASKS: Final = ("Generate a concise", "Predict 3-5 useful", "Suggest 3-5 relevant", "Generate 1-3 broad")
#: The values of ``X-Router-Task`` that nobody waits for (Open WebUI's constants.py).
BACKGROUND_TASKS: Final = frozenset(
    {
        "title_generation",
        "follow_up_generation",
        "tags_generation",
        "emoji_generation",
        "autocomplete_generation",
        "memory_review",
    }
)


class Asked(msgspec.Struct, frozen=True, gc=False):
    """What a request asks for, as far as the router cares. ``model`` ``""``: none was named.

    ``wants_usage``: the stream is to carry usage. ``choices`` is ``n``. ``structured``: the answer is for
    a program. ``joinable``: its stream can be put together to the whole answer. ``task``: it looks like a
    background request of a chat program.
    """

    model: str = ""
    stream: bool = False
    wants_usage: bool = False
    choices: int = 1
    structured: bool = False
    joinable: bool = False
    task: bool = False
    json: bool = False


def read_json(content: Content) -> Asked:
    """What a JSON body asks for. Raises ``BadRequestError`` for what is not a JSON object or has wrong types."""
    fields = content.fields
    streams = bool(_value(fields, "stream", _flag))
    wishes = _value(fields, "stream_options", _options)
    choices = _count(fields, "n")
    return Asked(
        model=_value(fields, "model", _text) or "",
        stream=streams,
        wants_usage=wishes is not None and bool(wishes.include_usage),
        choices=choices,
        structured=not _SHAPING.isdisjoint(fields) and _is_structured(fields),
        joinable=choices == 1 and _count(fields, "best_of") == 1 and _bytes(fields, "echo") in (b"", b"null", b"false"),
        task=not streams and _looks_like_task(fields, content.body),
        json=True,
    )


def model_of_query(query: bytes) -> str:
    """``model`` in a query string, ``""`` if it is not there. Raises ``BadRequestError`` when it is there twice."""
    if b"model" not in query:
        return ""
    values = parse_qs(query.decode("latin-1"), max_num_fields=100).get("model", [])
    if len(values) > 1:
        raise BadRequestError("cannot choose a model: the query names more than one")
    return values[0] if values else ""


def rewrite(
    content: Content, changes: Mapping[str, object], drop: Iterable[str] = (), keep: frozenset[str] | None = None
) -> Body:
    """The body as the engine gets it: ``changes`` written, ``drop`` and all but ``keep`` left out, each key once.

    With nothing to change, the bytes are passed as they came if no second ``model`` can hide in them. A
    body whose every key counts once is what makes sure that the engine sees what the router read. Raises
    ``BadRequestError`` for what is no JSON object.
    """
    body, fields = content.body, content.fields
    dropped = fields.keys() & drop if drop else set()
    if keep is not None:
        dropped |= fields.keys() - keep
    if not changes and not dropped and (_plain(body) or _is_exact(body, fields)):
        return body
    out: dict[str, object] = {**fields, **changes}
    for name in dropped - changes.keys():
        del out[name]
    return _encode(out)


def add_usage(content: Content) -> dict[str, object]:
    """The change that asks the engine for usage in the stream, keeping the client's other stream options."""
    raw = content.fields.get("stream_options")
    options = msgspec.json.decode(raw) if raw is not None else None
    kept = options if isinstance(options, dict) else {}
    return {"stream_options": {**kept, "include_usage": True}}


def _plain(body: Body) -> bool:
    """Whether no second ``model`` can hide in the body, by repetition or by an escaped spelling."""
    return len(body) <= _SCAN_LIMIT and body.count(b'"model"') <= 1 and b"\\u" not in body


def _is_exact(body: Body, fields: Mapping[str, msgspec.Raw]) -> bool:
    """Whether the body is just these fields: their lengths, quotes and punctuation are all of it, so that nothing
    stands there twice or in another spelling. True for large bodies of most clients, which then are not copied."""
    lengths = (len(key.encode()) + memoryview(value).nbytes + 4 for key, value in fields.items())
    return len(body) == 1 + sum(lengths)


def _value(fields: Fields, name: str, decode: Callable[[Body | msgspec.Raw], T]) -> T | None:
    """The value of a field that the router needs. Raises ``BadRequestError`` if it is of another type."""
    raw = fields.get(name)
    return None if raw is None else readable(decode, raw, name)


def _bytes(fields: Fields, name: str) -> bytes:
    raw = fields.get(name)
    return b"" if raw is None else bytes(raw)


def _count(fields: Fields, name: str) -> int:
    text = _bytes(fields, name)
    return int(text) if text.isdigit() and len(text) < 6 else 1


def _is_structured(fields: Fields) -> bool:
    """Whether the answer is for a program or for the ear: a text of ours in it would break it."""
    if any(_bytes(fields, name) not in _NOTHING for name in _BOUND) or b"audio" in _bytes(fields, "modalities"):
        return True
    return _is_form(_bytes(fields, "response_format")) or _is_form(_inside(_bytes(fields, "text")))


def _inside(text: bytes) -> bytes:
    """The format in the responses API's ``text``."""
    if text[:1] != b"{":
        return b""
    try:
        return _bytes(open_object(text), "format")
    except msgspec.DecodeError:
        return b""


def _is_form(raw: bytes) -> bool:
    if raw in _NOTHING:
        return False
    try:
        return (_format(raw).type or "text") != "text"
    except msgspec.DecodeError:
        return True


def _looks_like_task(fields: Fields, body: Body) -> bool:
    """A guess for clients that do not say: one user message that begins like a chat program's own prompt."""
    if len(body) > 4 * _SCAN_LIMIT or b"### Task:" not in body or "tools" in fields:
        return False
    try:
        messages = _messages(fields.get("messages", b""))
    except msgspec.DecodeError:
        return False
    if len(messages) != 1 or messages[0].role != "user" or not isinstance(messages[0].content, str):
        return False
    first, _, rest = messages[0].content.partition("\n")
    return first.strip() == "### Task:" and rest.startswith(_TASKS)
