"""One value in a YAML file of somebody else, changed in place: every other byte stays as it is.

The text is parsed for the place of the value, and only that is rewritten; afterwards both texts are read again
and compared, so that what comes out means the old text with the new value, or nothing comes out. Pure: no files.
"""

import copy
import io
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

#: Texts that need no quotes in YAML, in block or flow style, and are surely no number, date or word of its own.
_PLAIN: Final = re.compile(r"[A-Za-z/][A-Za-z0-9_./+-]*")
_WORDS: Final = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})

Keys = tuple[str, ...]


class YamlEditError(ValueError):
    """The text cannot be edited; the message begins with the line, counted from 1, where there is one."""


def set_values(text: str, values: Sequence[tuple[Keys, str]]) -> str:
    """The text with these values; the same text if they stand there already. Raises ``YamlEditError``."""
    for keys, value in values:
        text = _set(text, keys, value)
    return text


def read_mapping(text: str) -> dict[str, Any]:
    """The text as plain values; an empty one is empty. Raises ``YamlEditError`` that names the line."""
    try:
        value = YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark is not None else ""
        raise YamlEditError(f"{where}{error.problem or error.context or 'it is no YAML'}") from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise YamlEditError(" ".join(str(error).split()) or "it is no YAML") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise YamlEditError("line 1: it must hold sections (name: value)")
    return value


def _set(text: str, keys: Keys, value: str) -> str:
    before = read_mapping(text)
    wanted = _changed(before, keys, value)
    if before == wanted:
        return text
    for attempt in (_in_place, _reprinted):
        new = attempt(text, keys, value)
        if new is not None and _reads_as(new, wanted):
            return new
    raise YamlEditError(f"{'.'.join(keys)} cannot be set in it without changing something else")


def _changed(before: Mapping[str, Any], keys: Keys, value: str) -> dict[str, Any]:
    wanted: dict[str, Any] = copy.deepcopy(dict(before))
    place = wanted
    for key in keys[:-1]:
        if place.get(key) is None:
            place[key] = {}
        place = place[key]
        if not isinstance(place, dict):
            raise YamlEditError(f"{key} must be a section, to hold {keys[-1]}")
    place[keys[-1]] = value
    return wanted


def _reads_as(text: str, wanted: Mapping[str, Any]) -> bool:
    try:
        return read_mapping(text) == wanted
    except YamlEditError:
        return False


def _in_place(text: str, keys: Keys, value: str) -> str | None:
    """The text with the value's own characters replaced, or a line added; ``None`` where that is not possible."""
    newline = "\r\n" if "\r\n" in text else "\n"
    root = YAML(typ="rt", pure=True).compose(io.StringIO(text, newline=""))
    if root is None:
        return _appended(text, keys, value, newline)
    section: Node = root
    for depth, key in enumerate(keys):
        found = _entry(section, key)
        if found is None:
            if depth == 0:
                return _appended(text, keys, value, newline)
            return _inserted(text, section, keys[depth:], value, newline)
        name, section = found
        if depth == len(keys) - 1:
            return _replaced(text, name, section, value)
    return None


def _entry(node: Node, key: str) -> tuple[Node, Node] | None:
    if not isinstance(node, MappingNode):
        return None
    return next(((name, value) for name, value in node.value if name.value == key), None)


def _replaced(text: str, name: Node, node: Node, value: str) -> str | None:
    if not isinstance(node, ScalarNode) or node.style in ("|", ">") or node.anchor:
        return None
    start, end = node.start_mark.index, node.end_mark.index
    if not text[start:end].strip():
        # Nothing stands there: directly after the key's colon.
        colon = text.index(":", name.end_mark.index) + 1
        return f"{text[:colon]} {_scalar(value)}{text[colon:]}"
    return text[:start] + _scalar(value) + text[end:]


def _inserted(text: str, section: Node, keys: Keys, value: str, newline: str) -> str | None:
    """A new first line in a section that lacks the key, as far in as its other lines."""
    if len(keys) != 1 or not isinstance(section, MappingNode) or section.flow_style or not section.value:
        return None
    first = section.value[0][0].start_mark
    line = f"{keys[0]}: {_scalar(value)}{newline}{' ' * first.column}"
    return text[: first.index] + line + text[first.index :]


def _appended(text: str, keys: Keys, value: str, newline: str) -> str:
    """A section of its own at the end."""
    lines = [f"{'  ' * depth}{key}:" for depth, key in enumerate(keys)]
    gap = newline if text and not text.endswith("\n") else ""
    return text + gap + newline.join(lines) + f" {_scalar(value)}{newline}"


def _reprinted(text: str, keys: Keys, value: str) -> str | None:
    """Written anew by a library that keeps comments and order, for the rare shapes that are left."""
    yaml = YAML(typ="rt", pure=True)
    yaml.preserve_quotes = True
    yaml.width = 4096
    document = yaml.load(text)
    if document is None:
        return None
    place = document
    for key in keys[:-1]:
        if place.get(key) is None:
            place[key] = {}
        place = place[key]
    place[keys[-1]] = value
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()


def _scalar(value: str) -> str:
    plain = _PLAIN.fullmatch(value) is not None and value.lower() not in _WORDS
    return value if plain else json.dumps(value, ensure_ascii=False)
