"""An older configuration written anew in the present layout, with a comment on each thing that changed.

This file knows how YAML with comments is written. What changes is ``old``'s business.
"""

import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from llm_router.config import old
from llm_router.config.load import read_parts
from llm_router.config.problems import ConfigError, Problem
from llm_router.config.tree import Path, plain

_WIDTH: Final = 100


class _AsWritten(Mapping[str, str]):
    """An environment in which ``${NAME}`` stands for itself, so that no secret is written into the new file."""

    def __getitem__(self, name: str) -> str:
        return f"${{{name}}}"

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def convert(
    parts: Sequence[tuple[str, str]], env: Mapping[str, str], installed: old.Installed = old.nothing_installed
) -> str:
    """The native YAML of an older configuration (its files' names and texts).

    Raises ``ConfigError`` if it cannot be read, mixes layouts, or is in the present layout already.
    """
    tree, root = read_parts(parts, _AsWritten())
    if not old.is_old(root):
        here = tree.place(())
        raise ConfigError(
            [*tree.problems, Problem(here, "cannot convert this file: it is in the present layout already")]
        )
    found = old.convert(tree, root, env, installed)
    if tree.problems:
        raise ConfigError(tree.problems)
    names = " and ".join(name for name, _ in parts)
    return write(found.root, found.notes, [f"Written by `llm-router config convert` from {names},", f"{found.layout}."])


def write(root: Mapping[str, object], notes: Sequence[old.Note], head: Sequence[str]) -> str:
    """A document as YAML, each note above the key that it is about, those about the whole in the head."""
    document = _map({key: value for key, value in root.items() if value not in ({}, None)})
    lines = [*head, *(line for note in notes if not note.path for line in textwrap.wrap(note.text, _WIDTH))]
    comments: dict[Path, list[str]] = {}
    for note in notes:
        path = note.path
        if path:
            comments.setdefault(path, []).extend(textwrap.wrap(note.text, _WIDTH - 2 * len(path)))
    for path, texts in comments.items():
        _comment(document, path, texts)
    stream = io.StringIO()
    writer().dump(document, stream)
    return "".join(f"# {line}\n" for line in lines) + ("\n" if lines else "") + stream.getvalue()


def writer() -> YAML:
    """YAML as this project writes it; what a person has written keeps its quotes and comments."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096  # Paths and commands stay on one line.
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def _map(section: Mapping[str, object]) -> CommentedMap:
    return CommentedMap({key: as_yaml(value) for key, value in section.items()})


def as_yaml(value: object) -> Any:
    """A plain value in the form in which it is written: sections as blocks, lists in one line, texts as texts."""
    if isinstance(value, Mapping):
        return _map(value)
    if isinstance(value, list | tuple):
        words = CommentedSeq([as_yaml(item) for item in value])
        words.fa.set_flow_style()
        return words
    if isinstance(value, str) and plain(value) != value:
        # Texts that would be read as something else; the library's idea of them is not quite the reader's.
        return DoubleQuotedScalarString(value)
    return value


def _comment(document: CommentedMap, path: Path, lines: Sequence[str]) -> None:
    section: Any = document
    for key in path[:-1]:
        section = section.get(key) if isinstance(section, CommentedMap) else None
    if isinstance(section, CommentedMap) and path[-1] in section:
        section.yaml_set_comment_before_after_key(path[-1], before="\n".join(lines), indent=2 * (len(path) - 1))
