"""Takes the router's own lines out of the history that a client sends back (R30), and touches nothing else.

It knows where texts stand in the requests of the four APIs: messages, input, prompt and system, as a string or
as parts. What a line looks like is ``lines``' business. A value in which nothing is found comes back as the same
bytes, an untouched message inside a touched list too.

Marked lines are taken out of every role's texts: clients also quote answers in prompts of their own (for
titles and tags). Unmarked ones could be a person's own words, so they are taken out of the assistant's only.
"""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from llm_router.wire.content import open_object
from llm_router.wire.lines import has_marks, without, without_unmarked

#: Fields of a request that hold history.
FIELDS: Final = ("messages", "input", "prompt", "system", "instructions")
#: Where text stands in a message or a part, and what is only there for reasoning: that goes when it gets empty.
_TEXTS: Final = frozenset({"content", "text"})
_THOUGHTS: Final = frozenset({"reasoning_content", "reasoning", "thinking"})
_DEEPEST: Final = 6

_Cleaner = Callable[[str], str]


def clean_fields(fields: Mapping[str, msgspec.Raw], *, unmarked: bool = False) -> dict[str, msgspec.Raw]:
    """The top-level fields of a request with clean history; untouched values are the same objects."""
    return {key: clean(raw, unmarked=unmarked) if key in FIELDS else raw for key, raw in fields.items()}


def clean(value: msgspec.Raw, *, unmarked: bool = False) -> msgspec.Raw:
    """A JSON value (a list of messages, or a text) without the router's lines.

    ``unmarked``: the lines were sent as plain text, so the assistant's texts are also searched by grammar. JSON
    that cannot be read comes back as it is: to complain of it is not this file's business.
    """
    marked = has_marks(bytes(value))
    if not (marked or unmarked):
        return value
    try:
        return _clean(value, without, unmarked, _DEEPEST)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return value


def _clean(raw: msgspec.Raw, cleaner: _Cleaner, unmarked: bool, levels: int) -> msgspec.Raw:
    first = bytes(raw)[:1]
    if first == b'"':
        return _clean_text(raw, cleaner)
    if first == b"[" and levels:
        return _clean_list(raw, cleaner, unmarked, levels - 1)
    if first == b"{" and levels:
        return _clean_object(raw, cleaner, unmarked, levels - 1)
    return raw


def _clean_text(raw: msgspec.Raw, cleaner: _Cleaner) -> msgspec.Raw:
    text = msgspec.json.decode(raw, type=str)
    cleaned = cleaner(text)
    return raw if cleaned == text else msgspec.Raw(msgspec.json.encode(cleaned))


def _clean_list(raw: msgspec.Raw, cleaner: _Cleaner, unmarked: bool, levels: int) -> msgspec.Raw:
    parts = msgspec.json.decode(raw, type=list[msgspec.Raw])
    cleaned = [_clean(part, cleaner, unmarked, levels) for part in parts]
    if all(new is old for new, old in zip(cleaned, parts, strict=True)):
        return raw
    return msgspec.Raw(msgspec.json.encode(cleaned))


def _clean_object(raw: msgspec.Raw, cleaner: _Cleaner, unmarked: bool, levels: int) -> msgspec.Raw:
    fields = open_object(raw)
    if unmarked and bytes(fields.get("role", msgspec.Raw(b""))) == b'"assistant"':
        cleaner = without_unmarked
    changed: dict[str, msgspec.Raw] = {}
    for key in fields.keys() & (_TEXTS | _THOUGHTS):
        new = _clean(fields[key], cleaner, unmarked, levels)
        if new is not fields[key]:
            changed[key] = new
    if not changed:
        return raw
    gone = {key for key, new in changed.items() if key in _THOUGHTS and bytes(new) == b'""' and "type" not in fields}
    return msgspec.Raw(
        msgspec.json.encode({key: changed.get(key, old) for key, old in fields.items() if key not in gone})
    )
