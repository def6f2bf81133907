"""The oldest routers had their models in their own source: a ``MODELS`` mapping and a few constants.

This file reads such a source as data, with the place of each value. It runs nothing: only literals are read.
"""

import ast
import re
from typing import Final

from llm_router.config.problems import ConfigError, Place, Problem
from llm_router.config.tree import Path, Tree

_PLAIN: Final[dict[str, Path]] = {
    "MODELS": ("MODELS",),
    "ROUTER_PORT": ("router_port",),
    "MODEL_LOAD_TIMEOUT": ("model_load_timeout",),
    "TABBY_CONFIG_PATH": ("tabby_config_path",),
    "TABBY_MODEL_DIR": ("tabby_model_dir",),
    "TABBY_TOKENS_PATH": ("tabby_tokens_path",),
}
_BACKENDS: Final = {"SGLANG": "sglang", "TABBY": "tabbyapi", "LLAMACPP": "llamacpp", "VLLM": "vllm"}
_PORT_OF_URL: Final = re.compile(r"https?://[^/:]+:(\d{1,5})/?")


def read(text: str, source: str) -> Tree:
    """The tree of the constants of a router's source. Raises ``ConfigError`` if it is no Python, or has no models."""
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line, column = (error.lineno, error.offset) if isinstance(error, SyntaxError) else (None, None)
        cause = error.msg if isinstance(error, SyntaxError) else "it is malformed"
        place = Place(source, line or 1, column or 1)
        raise ConfigError([Problem(place, f"cannot read the older router's source as Python: {cause}")]) from None
    reader = _Reader(source)
    for node in module.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                if isinstance(target, ast.Name):
                    reader.constant(target, node.value)
    for call in ast.walk(module):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "run":
            reader.run(call)
    if "MODELS" not in reader.root:
        what = "it holds no MODELS = {...} with plain values"
        raise ConfigError(
            [
                Problem(
                    Place(source),
                    f"cannot use this source of an older router: {what}",
                    "Name its configuration instead",
                )
            ]
        )
    return reader.tree


class _Reader:
    """Puts literals and their places into a tree."""

    def __init__(self, source: str) -> None:
        self.root: dict[str, object] = {}
        self.tree = Tree(self.root, {}, {(): Place(source)})
        self._source = source

    def constant(self, name: ast.Name, value: ast.expr) -> None:
        """``NAME = literal`` at the top of the source; anything else is passed over."""
        path = _PLAIN.get(name.id)
        if path is not None:
            self._put(path, name, value)
            return
        prefix, _, what = name.id.rpartition("_")
        if prefix not in _BACKENDS or not isinstance(value, ast.Constant):
            return
        url = _PORT_OF_URL.fullmatch(value.value) if what == "URL" and isinstance(value.value, str) else None
        if url or what == "PORT":
            port = ast.copy_location(ast.Constant(int(url[1])), value) if url else value
            self._put(("backends", _BACKENDS[prefix], "port"), name, port)

    def run(self, call: ast.Call) -> None:
        """``uvicorn.run(app, port=...)``."""
        for word in call.keywords:
            if word.arg == "port" and isinstance(word.value, ast.Constant) and "router_port" not in self.root:
                self._put(("router_port",), word.value, word.value)

    def _put(self, path: Path, key: ast.expr, value: ast.expr) -> None:
        try:
            literal = ast.literal_eval(value)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            return
        section: dict[str, object] = self.root
        for depth, word in enumerate(path[:-1], 1):
            section = section.setdefault(str(word), {})  # type: ignore[assignment]  # made here, a line above
            self.tree.values.setdefault(path[:depth], self._place(key))
        section[str(path[-1])] = self._plain(literal)
        self._note(path, key, value)

    def _plain(self, value: object) -> object:
        """Keys are text and lists are tuples, as in a tree of YAML."""
        if isinstance(value, dict):
            return {str(key): self._plain(item) for key, item in value.items()}
        return tuple(map(self._plain, value)) if isinstance(value, list | tuple) else value

    def _note(self, path: Path, key: ast.expr, value: ast.expr) -> None:
        self.tree.keys[path], self.tree.values[path] = self._place(key), self._place(value)
        if isinstance(value, ast.Dict):
            for word, inner in zip(value.keys, value.values, strict=True):
                if isinstance(word, ast.Constant):
                    self._note((*path, str(word.value)), word, inner)

    def _place(self, node: ast.expr) -> Place:
        return Place(self._source, node.lineno, node.col_offset + 1)
