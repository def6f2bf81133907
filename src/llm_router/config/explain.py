"""Sentences for what the schema found: pydantic's errors with their place, in plain words, with a suggestion.

This file knows pydantic's kinds of errors. It does not know what the sections mean.
"""

from collections.abc import Iterable
from typing import Final

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from llm_router.config.problems import Problem, did_you_mean, nearest
from llm_router.config.schema import HINTS, Backend, Client, Document, Entry, Key, RequestRules, Scheduler, Server
from llm_router.config.tree import Path, Tree

_WANTED: Final = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text (put it in quotes)",
    "tuple_type": "a list",
    "dict_type": "a section of its own, with keys",
    "model_type": "a section of its own, with keys",
    "model_attributes_type": "a section of its own, with keys",
}


def translate(tree: Tree, detail: ErrorDetails) -> Problem:
    """A sentence of ours for what pydantic found."""
    path: Path = tuple(part for part in detail["loc"] if part != "[key]")
    where, kind = dotted(path), detail["type"]
    if kind == "extra_forbidden":
        return _unknown_key(tree, path)
    if kind == "missing":
        return Problem(tree.place(path[:-1], key=True), f"cannot use {dotted(path[:-1])}: it lacks {str(path[-1])!r}")
    if kind in _WANTED:
        shown = _shown(detail["input"])
        return Problem(tree.place(path), f"cannot use {shown} as {where}: it must be {_WANTED[kind]}")
    if kind == "literal_error":
        return _not_a_choice(tree, path, detail)
    if kind == "value_error":
        cause = str(detail["ctx"]["error"])
    else:
        cause = detail["msg"].replace("Input should be", "it must be")
    return Problem(tree.place(path), f"cannot use this value of {where}: {cause}")


def _not_a_choice(tree: Tree, path: Path, detail: ErrorDetails) -> Problem:
    expected = detail.get("ctx", {}).get("expected", "")
    text = f"cannot use {_shown(detail['input'])} as {dotted(path)}: it must be {expected}"
    near = nearest(str(detail["input"]), [word.strip("'") for word in expected.replace(" or ", ", ").split(", ")])
    return Problem(tree.place(path), text, f"Did you mean {near!r}?" if near else None)


def _unknown_key(tree: Tree, path: Path) -> Problem:
    word = str(path[-1])
    known = _known_keys(path[:-1])
    suggestion = HINTS.get(word.lower().replace("-", "_"))
    if suggestion is None or nearest(word, known) == word.replace("-", "_"):
        suggestion = did_you_mean(word, known)
    inside = dotted(path[:-1]) or "the configuration"
    return Problem(tree.place(path, key=True), f"cannot use {word!r}: {inside} has no such key", suggestion)


def _known_keys(path: Path) -> Iterable[str]:
    section: type[BaseModel]
    match path:
        case ("server",):
            section = Server
        case ("server", "keys", _):
            section = Key
        case ("server", "clients", _):
            section = Client
        case ("scheduler",):
            section = Scheduler
        case ("backends", _):
            section = Backend
        case ("models", _):
            section = Entry
        case ("models", _, "request"):
            section = RequestRules
        case _:
            section = Document
    return section.model_fields


def dotted(path: Path) -> str:
    """A path as people write it: ``models.qwen.gpus``, ``server.keys[2]``; items count from 1."""
    text = ""
    for part in path:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, tuple):
        return "a list"
    if value is None:
        return "an empty value"
    text = repr(value) if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
