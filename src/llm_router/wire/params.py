"""What an operator lays down about a model's request fields: forced, given by default, dropped.

It works on the top level of a request, one level into objects (``chat_template_kwargs.enable_thinking``), with
values as raw JSON, so what no rule names keeps its bytes. It refuses to know what the fields mean, but for two
kinds: those that say what is asked for and how it travels are nobody's to rule over, and the size of the context
is never a client's to change.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

import msgspec

from llm_router.wire.content import Fields, open_object

#: Fields that the router itself reads or writes.
PROTECTED: Final = frozenset({"model", "messages", "prompt", "input", "stream", "stream_options"})
#: Under these names engines and their relatives take the size of the context. Dropped from every request.
CONTEXT: Final = frozenset({"num_ctx", "n_ctx", "ctx_size", "context_length", "max_seq_len", "max_model_len"})

#: Names must fit into a header.
_NAME: Final = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)?")


@dataclass(frozen=True, slots=True)
class Change:
    """One field that was changed: ``verb`` is ``drop``, ``default`` or ``force``."""

    verb: str
    name: str


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules for one model; make them with ``of``. A name with a dot means a key inside an object."""

    force: Mapping[str, msgspec.Raw] = field(default_factory=dict)
    default: Mapping[str, msgspec.Raw] = field(default_factory=dict)
    drop: frozenset[str] = CONTEXT
    #: The fields in which ``drop`` may find something.
    _dropped: frozenset[str] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_dropped", frozenset(name.partition(".")[0] for name in self.drop))

    @classmethod
    def of(
        cls,
        force: Mapping[str, object] | None = None,
        default: Mapping[str, object] | None = None,
        drop: Iterable[str] = (),
    ) -> Self:
        """Rules from a configuration's plain values. Raises ``ValueError`` naming what cannot be."""
        force, default, drop = force or {}, default or {}, frozenset(drop)
        for verb, names in (("force", force), ("default", default), ("drop", drop)):
            for name in names:
                _check(verb, name)
        named = [*force, *default, *drop]
        for name in named:
            if named.count(name) > 1 or name.partition(".")[0] in set(named) - {name}:
                raise ValueError(f"cannot apply the rules for {name!r}: more than one is for it; keep one of them")
        return cls(_raw(force), _raw(default), drop | CONTEXT)

    def may_touch(self, fields: Fields) -> bool:
        """Whether a JSON body may have to be changed. Cheap; wrong only in saying yes."""
        return bool(self.force or self.default) or not self._dropped.isdisjoint(fields)

    def apply(self, fields: Fields) -> tuple[Fields, tuple[Change, ...]]:
        """The fields as the engine shall get them, and what was changed. Without a change, the same object.

        A field that a client sends as ``null`` counts as not sent. What cannot be read is left to the engine.
        """
        out = dict(fields)
        changes = [Change("drop", name) for name in sorted(self.drop) if _remove(out, name)]
        changes += [Change("force", name) for name, value in self.force.items() if _set(out, name, value)]
        changes += [Change("default", name) for name, value in self.default.items() if _give(out, name, value)]
        return (out, tuple(changes)) if changes else (fields, ())


def told(changes: Iterable[Change], dropped: Iterable[str] = ()) -> str:
    """The changes as a header's value, e.g. ``drop num_ctx, force temperature``; ``""`` for none.

    ``dropped`` are the names that a translation left out. They come from the client, so only those that fit
    into a header are told, and at most twenty.
    """
    more = [Change("drop", name) for name in dropped if _NAME.fullmatch(name)]
    return ", ".join(f"{change.verb} {change.name}" for change in [*changes, *more][:20])


def _check(verb: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"cannot {verb} {name!r}: a field's name has letters, digits, _ and -, and at most one dot")
    top = name.partition(".")[0]
    if top in PROTECTED:
        raise ValueError(f"cannot {verb} {name!r}: {top} is the router's own to read and write")
    if top in CONTEXT and verb != "drop":
        raise ValueError(f"cannot {verb} {name!r}: a request never changes the context; set `context` of the model")


def _raw(values: Mapping[str, object]) -> dict[str, msgspec.Raw]:
    return {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in values.items()}


def _remove(fields: Fields, name: str) -> bool:
    top, _, key = name.partition(".")
    if not key:
        return fields.pop(top, None) is not None
    inner = _inside(fields, top)
    if inner is None or inner.pop(key, None) is None:
        return False
    _put(fields, top, inner)
    return True


def _give(fields: Fields, name: str, value: msgspec.Raw) -> bool:
    top, _, key = name.partition(".")
    there = fields if not key else _inside(fields, top)
    if there is None or not _absent(there.get(key or top)):
        return False
    return _set(fields, name, value)


def _set(fields: Fields, name: str, value: msgspec.Raw) -> bool:
    top, _, key = name.partition(".")
    if not key:
        changed = not _same(fields.get(top), value)
        fields[top] = value if changed else fields[top]
        return changed
    # Where an object must be and something else is, the rule wins: the engine would refuse it anyway.
    inner = _inside(fields, top) or {}
    if _same(inner.get(key), value):
        return False
    inner[key] = value
    _put(fields, top, inner)
    return True


def _inside(fields: Fields, top: str) -> Fields | None:
    """The object under a key, ``{}`` if there is none, ``None`` if it is something else."""
    raw = fields.get(top)
    if raw is None or _absent(raw):
        return {}
    try:
        return open_object(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _put(fields: Fields, top: str, inner: Fields) -> None:
    fields[top] = msgspec.Raw(msgspec.json.encode(inner))


def _absent(raw: msgspec.Raw | None) -> bool:
    return raw is None or bytes(raw) == b"null"


def _same(old: msgspec.Raw | None, new: msgspec.Raw) -> bool:
    if old is None:
        return False
    if bytes(old) == bytes(new):
        return True
    try:
        return bool(_typed(msgspec.json.decode(old)) == _typed(msgspec.json.decode(new)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def _typed(value: object) -> tuple[bool, object]:
    # For Python 1 and true are equal; for an engine they are not.
    return isinstance(value, bool), value
