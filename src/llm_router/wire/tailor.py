"""A client's JSON body on its way in: the router's own lines taken out of it, the model's rules applied.

It knows in which order; what a line looks like and what a rule means is ``history``'s and ``params``' business. A
body in which a cheap search finds nothing to do stays byte for byte as it came.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from llm_router.wire import history, lines
from llm_router.wire.content import Content
from llm_router.wire.manners import ModelManners
from llm_router.wire.params import Change

_messages: Final = msgspec.json.Decoder(list[dict[str, Any]]).decode
_encode: Final = msgspec.json.encode
#: With what a line without marks begins, as UTF-8 or escaped.
_PLAIN: Final = re.compile("🔄|⏳|🕒|📖|✅|⚡|\\\\u(?:d83d|23f3|2705|26a1)".encode(), re.IGNORECASE)
_USER_TWICE: Final = re.compile(rb'"user"')


def tailor(
    content: Content, manners: ModelManners, *, plain_lines: bool = False, model: str | None = None
) -> tuple[Content, tuple[Change, ...]]:
    """The body as it shall be, and what rules changed in it. ``model`` replaces the name in it, if given.

    Without anything to change, the same object. Raises ``BadRequestError`` for what cannot be read.
    """
    body = content.body
    cleans = lines.has_marks(body) or (plain_lines and _PLAIN.search(body) is not None)
    merges = manners.merge and len(_USER_TWICE.findall(body)) > 1
    if not (cleans or merges or model is not None or manners.rules.may_touch(content.fields)):
        return content, ()
    before = content.fields
    fields = history.clean_fields(before, unmarked=plain_lines) if cleans else dict(before)
    if merges and "messages" in fields:
        fields["messages"] = merged(fields["messages"])
    fields, changes = manners.rules.apply(fields)
    if model is not None:
        fields["model"] = msgspec.Raw(_encode(model))
    if not changes and _same(fields, before):
        return content, ()
    return Content(_encode(fields)), changes


def merged(raw: msgspec.Raw) -> msgspec.Raw:
    """Messages in which no user message follows another one: their texts and parts are joined.

    Some chat templates refuse two in a row, and clients send them after an answer that failed. What cannot be
    read is the engine's to complain of.
    """
    try:
        messages = _messages(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return raw
    out: list[dict[str, Any]] = []
    for message in messages:
        last = out[-1] if out else {}
        if message.get("role") == last.get("role") == "user":
            out[-1] = {**last, "content": _joined(last.get("content"), message.get("content"))}
        else:
            out.append(message)
    return raw if len(out) == len(messages) else msgspec.Raw(_encode(out))


def _joined(first: object, second: object) -> object:
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n\n{second}"
    return [*_parts(first), *_parts(second)]


def _parts(content: object) -> list[Any]:
    if isinstance(content, list):
        return content
    return [{"type": "text", "text": content}] if content else []


def _same(fields: Mapping[str, msgspec.Raw], before: Mapping[str, msgspec.Raw]) -> bool:
    return all(fields.get(key) is value for key, value in before.items()) and len(fields) == len(before)
