"""The few fields of a request that the router looks at, and the few that it changes.

This file knows JSON bodies in the manner of OpenAI. What it does not look at stays byte for byte. It
refuses to judge fields that only the engine needs.
"""

from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import parse_qs

import msgspec

from llm_router.wire.errors import BadRequestError

Body = bytes | bytearray

#: Above this size a body is written anew without looking whether it must be: looking costs more.
_SCAN_LIMIT: Final = 64 * 1024


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Format(msgspec.Struct):
    type: str | None = None


class _Peek(msgspec.Struct):
    """Fields of any model request. Those that only tune an answer are raw, so that the engine judges them."""

    model: str | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    n: msgspec.Raw = msgspec.Raw()
    best_of: msgspec.Raw = msgspec.Raw()
    echo: msgspec.Raw = msgspec.Raw()
    tools: msgspec.Raw = msgspec.Raw()
    messages: msgspec.Raw = msgspec.Raw()
    response_format: msgspec.Raw = msgspec.Raw()
    text: msgspec.Raw = msgspec.Raw()
    audio: msgspec.Raw = msgspec.Raw()
    modalities: msgspec.Raw = msgspec.Raw()
    grammar: msgspec.Raw = msgspec.Raw()
    json_schema: msgspec.Raw = msgspec.Raw()
    guided_json: msgspec.Raw = msgspec.Raw()
    structured_outputs: msgspec.Raw = msgspec.Raw()


class _Message(msgspec.Struct):
    role: str | None = None
    content: object = None


_peek: Final = msgspec.json.Decoder(_Peek).decode
_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_messages: Final = msgspec.json.Decoder(list[_Message]).decode
_format: Final = msgspec.json.Decoder(_Format).decode
_encode: Final = msgspec.json.encode

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


def read_json(body: Body) -> Asked:
    """What a JSON body asks for. Raises ``BadRequestError`` for what is not a JSON object or has wrong types."""
    try:
        peek = _peek(body)
    except msgspec.ValidationError as error:
        raise BadRequestError(f"cannot use the request's body: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequestError(f"cannot read the request's body as JSON: {error}", "invalid_json") from error
    except RecursionError as error:
        raise BadRequestError("cannot read the request's body: it is nested too deeply", "invalid_json") from error
    options = peek.stream_options
    choices = _count(peek.n)
    return Asked(
        model=peek.model or "",
        stream=bool(peek.stream),
        wants_usage=options is not None and bool(options.include_usage),
        choices=choices,
        structured=_structured(peek),
        joinable=choices == 1 and _count(peek.best_of) == 1 and bytes(peek.echo) in (b"", b"null", b"false"),
        task=_looks_like_task(peek, body),
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
    body: Body, changes: Mapping[str, object], drop: Iterable[str] = (), keep: frozenset[str] | None = None
) -> Body:
    """The body as the engine gets it: ``changes`` written, ``drop`` and all but ``keep`` left out, each key once.

    With nothing to change, the bytes are passed as they came if no second ``model`` can hide in them. A
    body whose every key counts once is what makes sure that the engine sees what the router read. Raises
    ``BadRequestError`` for what only a closer look finds.
    """
    drop = frozenset(drop)
    plain = not changes and _plain(body)
    if plain and not drop and keep is None:
        return body
    fields = _open(body)
    plain = plain or (not changes and _is_exact(body, fields))
    dropped = (drop & fields.keys()) | (fields.keys() - keep if keep is not None else frozenset())
    if plain and not dropped:
        return body
    for name in dropped:
        del fields[name]
    out: dict[str, object] = {**fields, **changes}
    return _encode(out)


def add_usage(body: Body) -> dict[str, object]:
    """The change that asks the engine for usage in the stream, keeping the client's other stream options."""
    raw = _open(body).get("stream_options")
    options = msgspec.json.decode(raw) if raw is not None else None
    kept = options if isinstance(options, dict) else {}
    return {"stream_options": {**kept, "include_usage": True}}


def _open(body: Body) -> dict[str, msgspec.Raw]:
    try:
        return _fields(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequestError(f"cannot read the request's body as JSON: {error}", "invalid_json") from error


def _plain(body: Body) -> bool:
    """Whether no second ``model`` can hide in the body, by repetition or by an escaped spelling."""
    return len(body) <= _SCAN_LIMIT and body.count(b'"model"') <= 1 and b"\\u" not in body


def _is_exact(body: Body, fields: Mapping[str, msgspec.Raw]) -> bool:
    """Whether the body is just these fields: their lengths, quotes and punctuation are all of it, so that nothing
    stands there twice or in another spelling. True for large bodies of most clients, which then are not copied."""
    lengths = (len(key.encode()) + memoryview(value).nbytes + 4 for key, value in fields.items())
    return len(body) == 1 + sum(lengths)


def _count(raw: msgspec.Raw) -> int:
    text = bytes(raw)
    return int(text) if text.isdigit() and len(text) < 6 else 1


def _structured(peek: _Peek) -> bool:
    """Whether the answer is for a program or for the ear: a text of ours in it would break it."""
    bound = (peek.grammar, peek.json_schema, peek.guided_json, peek.structured_outputs, peek.audio)
    if any(bytes(raw) not in (b"", b"null") for raw in bound) or b"audio" in bytes(peek.modalities):
        return True
    return _is_form(peek.response_format) or _is_form(_inside(peek.text))


def _inside(text: msgspec.Raw) -> msgspec.Raw:
    """The format in the responses API's ``text``."""
    if bytes(text)[:1] != b"{":
        return msgspec.Raw()
    try:
        return _fields(text).get("format", msgspec.Raw())
    except msgspec.DecodeError:
        return msgspec.Raw()


def _is_form(raw: msgspec.Raw) -> bool:
    if bytes(raw) in (b"", b"null"):
        return False
    try:
        return (_format(raw).type or "text") != "text"
    except msgspec.DecodeError:
        return True


def _looks_like_task(peek: _Peek, body: Body) -> bool:
    """A guess for clients that do not say: one user message that begins like a chat program's own prompt."""
    if peek.stream or bytes(peek.tools) or len(body) > 4 * _SCAN_LIMIT or b"### Task:" not in body:
        return False
    try:
        messages = _messages(peek.messages)
    except msgspec.DecodeError:
        return False
    if len(messages) != 1 or messages[0].role != "user" or not isinstance(messages[0].content, str):
        return False
    first, _, rest = messages[0].content.partition("\n")
    return first.strip() == "### Task:" and rest.startswith(_TASKS)
