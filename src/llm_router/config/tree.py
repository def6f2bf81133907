"""YAML text -> plain values, each with its place in the text.

This file knows YAML, ``${NAME}`` and where a word stands. It does not know which words a configuration has.
Only YAML 1.2 data is read: no tags, no types beyond text, numbers, true/false and nothing. ``on`` and ``no``
stay text, because engines have options that want exactly these words.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from llm_router.config.problems import ConfigError, Place, Problem

Path = tuple[str | int, ...]

_CORE: Final = "tag:yaml.org,2002:"
_VARIABLE: Final = re.compile(r"\$\$\{|\$\{([^{}]*)\}")
_NAME: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
_INT: Final = re.compile(r"[-+]?[0-9]{1,18}")
_BASED: Final = re.compile(r"0o[0-7]{1,20}|0x[0-9a-fA-F]{1,15}")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?")
_MOST_BYTES: Final = 4 * 1024 * 1024
_MOST_NODES: Final = 100_000
_DEEPEST: Final = 40


@dataclass(slots=True)
class Tree:
    """The values of a text. ``keys`` and ``values`` give the places by path; the root's path is ``()``."""

    root: object = None
    keys: dict[Path, Place] = field(default_factory=dict)
    values: dict[Path, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def place(self, path: Path, *, key: bool = False) -> Place:
        """The place of a value (or of its key), or of the nearest thing around it."""
        if key and path in self.keys:
            return self.keys[path]
        while path and path not in self.values:
            path = path[:-1]
        return self.values[path]


def read(text: str, source: str, env: Mapping[str, str]) -> Tree:
    """The tree of a YAML or JSON text; mistakes that leave a usable tree are in ``problems``.

    ``${NAME}`` is replaced from ``env`` in values; ``${NAME:-else}`` has a fallback and ``$${`` is a literal
    ``${``. Lists become tuples. An empty text gives ``None``. Raises ``ConfigError`` if it is no YAML.
    """
    node = _compose(text, source)
    tree = Tree(values={(): Place(source)})
    if node is not None:
        try:
            tree.root = _Reader(tree, source, env).value(node, ())
        except RecursionError:
            raise ConfigError([_too_deep(Place(source))]) from None
    return tree


def _compose(text: str, source: str) -> Node | None:
    start = Place(source)
    if len(text) > _MOST_BYTES:
        raise ConfigError([Problem(start, "cannot read the configuration: it is larger than 4 MiB")])
    if source.endswith(".json"):
        # JSON allows tabs between its tokens and only there; YAML does not. Columns stay as they are.
        text = text.replace("\t", " ")
    try:
        node: Node | None = YAML(typ="safe", pure=True).compose(text)
    except RecursionError:
        raise ConfigError([_too_deep(start)]) from None
    except YAMLError as error:
        raise ConfigError([_syntax_problem(error, text, source)]) from None
    except (ValueError, TypeError, AttributeError, IndexError, KeyError, AssertionError) as error:
        # The library's own slips on malformed text (found by fuzzing it): for a person they are bad YAML too.
        raise ConfigError([Problem(start, f"cannot read the text as YAML ({type(error).__name__}: {error})")]) from None
    return node


def _too_deep(place: Place) -> Problem:
    return Problem(place, "cannot read the configuration: it is nested too deeply")


def _syntax_problem(error: YAMLError, text: str, source: str) -> Problem:
    if isinstance(error, ReaderError):
        before = text[: error.position] if isinstance(error.position, int) else ""
        place = Place(source, before.count("\n") + 1, len(before) - before.rfind("\n"))
        return Problem(place, "cannot read the text as YAML: it holds a character that YAML does not allow")
    if not isinstance(error, MarkedYAMLError) or error.problem_mark is None:
        return Problem(Place(source), f"cannot read the text as YAML: {' '.join(str(error).split())}")
    mark = error.problem_mark
    cause = error.problem or error.context or "it is malformed"
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    return Problem(
        Place(source, mark.line + 1, mark.column + 1),
        f"cannot read the text as YAML: {cause}",
        _syntax_advice(cause, line),
    )


def _syntax_advice(cause: str, line: str) -> str | None:
    if "\\t" in cause or "\t" in line[: len(line) - len(line.lstrip())]:
        return "Indent with spaces: YAML allows no tabs there"
    if "${" in line:
        return 'Inside {...} and [...] write "${NAME}" in quotes'
    if "another document" in cause:
        return "Remove the line with --- : one file holds one configuration"
    if "mapping values are not allowed" in cause:
        return "Put text that holds a colon in quotes, and check the indentation"
    return None


class _Reader:
    """Walks the nodes of one text once."""

    def __init__(self, tree: Tree, source: str, env: Mapping[str, str]) -> None:
        self._tree = tree
        self._source = source
        self._env = env
        self._open: set[int] = set()
        self._count = 0

    def value(self, node: Node, path: Path) -> object:
        place = self._place(node)
        self._tree.values[path] = place
        self._count += 1
        if self._count > _MOST_NODES:
            raise ConfigError([Problem(place, "cannot read the configuration: its anchors unfold to too many values")])
        if len(path) > _DEEPEST:
            raise ConfigError([_too_deep(place)])
        if isinstance(node, ScalarNode):
            return self._scalar(node, place)
        if id(node) in self._open:
            raise ConfigError([Problem(place, "cannot read the configuration: an anchor contains itself")])
        self._open.add(id(node))
        try:
            return self._branch(node, path, place)
        finally:
            self._open.discard(id(node))

    def _branch(self, node: Node, path: Path, place: Place) -> object:
        if isinstance(node, MappingNode) and node.tag == f"{_CORE}map":
            return self._mapping(node, path)
        if isinstance(node, SequenceNode) and node.tag == f"{_CORE}seq":
            return tuple(self.value(item, (*path, index)) for index, item in enumerate(node.value))
        self._report(place, f"cannot use the YAML tag {str(node.tag)!r}: only plain values are read")
        return None

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, object]:
        found: dict[str, object] = {}
        merged: list[Node] = []
        for key, value in node.value:
            place = self._place(key)
            if not isinstance(key, ScalarNode):
                self._report(place, "cannot use a list or a mapping as a key: a key is text")
            elif key.tag == f"{_CORE}merge":
                merged.append(value)
            else:
                self._entry(self._sound(str(key.value), place), value, path, place, found)
        for value in merged:
            self._merge(value, path, found)
        return found

    def _entry(self, key: str, value: Node, path: Path, place: Place, found: dict[str, object]) -> None:
        if key in found:
            first = self._tree.keys[(*path, key)]
            self._report(place, f"cannot use {key!r} twice in one place: it stands in line {first.line} already")
            return
        self._tree.keys[(*path, key)] = place
        found[key] = self.value(value, (*path, key))

    def _merge(self, node: Node, path: Path, found: dict[str, object]) -> None:
        """``<<: *anchor``: what is written in the mapping itself wins, then the first of the merged ones."""
        place = self._place(node)
        for part in node.value if isinstance(node, SequenceNode) else [node]:
            if not isinstance(part, MappingNode):
                self._report(place, "cannot merge with <<: its value is not a mapping")
                continue
            if id(part) in self._open:
                raise ConfigError([Problem(place, "cannot read the configuration: an anchor contains itself")])
            aside = _Reader(Tree(), self._source, self._env)
            aside._open, aside._count = self._open, self._count
            values = aside.value(part, path)
            self._count = aside._count
            self._tree.problems += aside._tree.problems
            assert isinstance(values, dict)
            for key in values.keys() - found.keys():
                found[key] = values[key]
                self._adopt(aside._tree, (*path, key))

    def _adopt(self, other: Tree, path: Path) -> None:
        size = len(path)
        self._tree.keys.update((p, place) for p, place in other.keys.items() if p[:size] == path)
        self._tree.values.update((p, place) for p, place in other.values.items() if p[:size] == path)

    def _scalar(self, node: ScalarNode, place: Place) -> object:
        tag, text = str(node.tag), self._sound(str(node.value), place)
        if not tag.startswith(_CORE):
            self._report(place, f"cannot use the YAML tag {tag!r}: only plain values are read")
            return text
        expanded = self._expand(text, place)
        if node.style is not None or (expanded == text and tag == f"{_CORE}str"):
            return expanded
        return plain(expanded)

    def _sound(self, text: str, place: Place) -> str:
        """The text with the two halves of a character joined, as JSON writes them; no program takes a NUL."""
        if "\0" in text:
            self._report(place, "cannot use a text that holds a NUL character")
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            self._report(place, "cannot use a text that holds half a character (a lone surrogate)")
            return ""

    def _expand(self, text: str, place: Place) -> str:
        def replace(match: re.Match[str]) -> str:
            if match[1] is None:
                return "${"
            named = _NAME.fullmatch(match[1])
            if named is None:
                self._report(place, f"cannot expand {match[0]!r}: a variable's name has letters, digits and _")
                return ""
            value = self._env.get(named[1])
            if not value and named[2] is not None:
                return named[2]
            if value is None:
                self._report(
                    place,
                    f"cannot expand {match[0]!r}: the environment has no {named[1]}",
                    f"Set it, or write ${{{named[1]}:-fallback}}",
                )
                return ""
            return value

        return _VARIABLE.sub(replace, text)

    def _place(self, node: Node) -> Place:
        return Place(self._source, node.start_mark.line + 1, node.start_mark.column + 1)

    def _report(self, place: Place, text: str, suggestion: str | None = None) -> None:
        self._tree.problems.append(Problem(place, text, suggestion))


def plain(text: str) -> object:
    """The value of an unquoted word: nothing, true or false, a number, else the text itself."""
    match text:
        case "" | "~" | "null" | "Null" | "NULL":
            return None
        case "true" | "True" | "TRUE":
            return True
        case "false" | "False" | "FALSE":
            return False
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        number = float(text)
        return number if math.isfinite(number) else text
    return text
