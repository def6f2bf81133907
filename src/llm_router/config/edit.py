"""One model more or less in the text of a configuration; every other letter of it stays.

This file knows where an entry stands in YAML, and inserts or cuts lines. Where that is not possible (a section
in one line, JSON) the text is read and written anew by a library that keeps comments. The caller judges the result.
"""

import io
import json
from collections.abc import Mapping
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from llm_router.config.convert import as_yaml, writer

#: Where the entries stand: below ``models``, or, in a ``models.yml``, at the top.
SECTION: Final = "models"


class EditError(ValueError):
    """A text that cannot be edited so. The sentence says why and what to do."""


def add_model(text: str, name: str, entry: Mapping[str, object], *, top: bool = False) -> str:
    """The text with one model more, at the end of the others. ``top``: the text is a ``models.yml``.

    Raises ``EditError`` if there is such a model, or if the text is no YAML.
    """
    top = top and not _has_section(text)
    section = _section(_compose(text), top=top)
    if section is not None and any(key.value == name for key, _ in section.value):
        raise EditError(
            f"cannot add the model {name!r}: there is one of this name; remove it first, or edit it by hand"
        )
    if _is_json(text):
        return _json(text, lambda models: models.__setitem__(name, dict(entry)), top=top)
    if section is None or section.flow_style or not section.value:
        return _anew(text, lambda models: models.__setitem__(name, as_yaml(entry)), top=top)
    indent = section.value[0][0].start_mark.column
    lines = text.splitlines(keepends=True)
    at = _last_line(section) + 1
    if not lines[at - 1].endswith("\n"):
        lines[at - 1] += "\n"
    return "".join([*lines[:at], *_entry_lines(name, entry, indent), *lines[at:]])


def remove_model(text: str, name: str, *, top: bool = False) -> str:
    """The text without this model and the comment right above it. Raises ``EditError`` if it is not there."""
    top = top and not _has_section(text)
    section = _section(_compose(text), top=top)
    entries = section.value if section is not None else []
    number = next((number for number, (key, _) in enumerate(entries) if key.value == name), None)
    if section is None or number is None:
        raise EditError(f"cannot remove the model {name!r}: it does not stand in this file")
    if _is_json(text):
        return _json(text, lambda models: models.pop(name), top=top)
    if section.flow_style:
        return _anew(text, lambda models: models.pop(name), top=top)
    key, value = entries[number]
    lines = text.splitlines(keepends=True)
    start, end = key.start_mark.line, max(key.end_mark.line, _last_line(value)) + 1
    # The comment above the first entry may be about all of them, unless the second has one too.
    own = number > 0 or (len(entries) > 1 and _is_comment(lines[end], key.start_mark.column))
    while own and start > 0 and _is_comment(lines[start - 1], key.start_mark.column):
        start -= 1
    # A section of comments alone would be nothing, which is not the same as an empty one.
    nothing = [" " * key.start_mark.column + "{}\n"] if len(entries) == 1 else []
    return "".join([*lines[:start], *nothing, *lines[end:]])


def _is_comment(line: str, column: int) -> bool:
    """Whether the line is a comment that begins in this column: one further in or out is about something else."""
    return line.startswith(" " * column + "#")


def _entry_lines(name: str, entry: Mapping[str, object], indent: int) -> list[str]:
    stream = io.StringIO()
    writer().dump(CommentedMap({name: as_yaml(entry)}), stream)
    return [" " * indent + line for line in stream.getvalue().splitlines(keepends=True)]


def _compose(text: str) -> Node | None:
    try:
        found: Node | None = YAML(typ="safe", pure=True).compose(text)
    except (YAMLError, ValueError, TypeError, AttributeError, IndexError, KeyError, AssertionError, RecursionError):
        raise EditError(
            "cannot edit the configuration: it cannot be read; `llm-router config check` says where"
        ) from None
    return found


def _section(root: Node | None, *, top: bool) -> MappingNode | None:
    if root is None:
        return None
    if not isinstance(root, MappingNode):
        raise EditError("cannot edit the configuration: it has no sections")
    if top:
        return root
    for key, value in root.value:
        if key.value == SECTION and isinstance(value, MappingNode):
            return value
    return None


def _has_section(text: str) -> bool:
    """Whether a ``models.yml`` has its entries below ``models`` after all."""
    root = _compose(text)
    names: list[object] = [key.value for key, _ in root.value] if isinstance(root, MappingNode) else []
    return names == [SECTION]


def _last_line(node: Node) -> int:
    """The number of the last line that holds something of it: the end mark of a block stands behind its comments."""
    if isinstance(node, MappingNode) and node.value and not node.flow_style:
        key, value = node.value[-1]
        return max(int(key.end_mark.line), _last_line(value))
    if isinstance(node, SequenceNode) and node.value and not node.flow_style:
        return _last_line(node.value[-1])
    if node.start_mark.line != node.end_mark.line and node.end_mark.column == 0:
        # Text of several lines ends where the next line begins.
        return int(node.end_mark.line) - 1
    return int(node.end_mark.line)


def _is_json(text: str) -> bool:
    if not text.lstrip().startswith("{"):
        return False
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _json(text: str, change: Any, *, top: bool) -> str:
    document = json.loads(text)
    change(document if top else document.setdefault(SECTION, {}))
    return json.dumps(document, indent=2, ensure_ascii=False, default=list) + "\n"


def _anew(text: str, change: Any, *, top: bool) -> str:
    document = writer().load(text)
    if document is None:
        document = CommentedMap()
    if not top and document.get(SECTION) is None:
        document[SECTION] = CommentedMap()
    section = document if top else document[SECTION]
    if not section:
        section.fa.set_block_style()
    change(section)
    stream = io.StringIO()
    # A text of comments alone is no document for the library; they stay in front.
    stream.write(text if not document.ca.comment and text.strip() and _compose(text) is None else "")
    writer().dump(document, stream)
    return stream.getvalue()
