"""Texts -> ``Config``, or every mistake in them with its place.

This file knows how the sections refer to each other. It reads no files: secrets come through ``read_file``,
and the caller brings the texts. Warnings are for people; they change nothing.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic import ValidationError

from llm_router.config import old, old_python
from llm_router.config import tree as yaml
from llm_router.config.check import backend_name, check_server, crosscheck, warn_server, warnings
from llm_router.config.explain import translate
from llm_router.config.problems import ConfigError, Place, Problem
from llm_router.config.schema import Backend, Document, Entry, Scheduler, Server
from llm_router.config.tree import Tree
from llm_router.config.values import Reading
from llm_router.engines import registry


@dataclass(frozen=True, slots=True)
class Config:
    """A configuration without mistakes. ``folder`` is what its relative paths are below, ``home`` is ``~``."""

    server: Server
    scheduler: Scheduler
    backends: Mapping[str, Backend]
    models: Mapping[str, Entry]
    folder: str = ""
    home: str = ""
    warnings: tuple[Problem, ...] = ()

    def backend_of(self, model: str) -> tuple[str, Backend]:
        """The name and settings of the backend that serves the model; an unknown model is a ``KeyError``."""
        entry = self.models[model]
        name = backend_name(entry, self.backends)
        assert name is not None
        return name, self.backends.get(name) or Backend(engine=name)

    def engine_of(self, model: str) -> str:
        """The name of the engine that serves the model, however the file spells it."""
        name, backend = self.backend_of(model)
        word = backend.engine or name
        return registry.canonical(word) or word

    def load_timeout(self, model: str) -> float:
        """Seconds that the model may load."""
        _, backend = self.backend_of(model)
        return self.models[model].load_timeout or backend.load_timeout or self.server.load_timeout

    def grace(self, model: str) -> float | None:
        """Seconds that its engine may take to end when asked; ``None``: the engine's own usual time."""
        return self.backend_of(model)[1].grace

    def with_server(self, **words: object) -> "Config":
        """The same with other words for ``server``, as a command line gives them. Raises ``ConfigError``."""
        here = Tree(values={(): Place("command line")})
        try:
            server = Server.model_validate({**self.server.model_dump(), **words}, context=Reading(_no_file))
        except ValidationError as error:
            raise ConfigError([translate(here, detail) for detail in error.errors(include_url=False)]) from None
        problems = list(check_server(server, here.place(())))
        if problems:
            raise ConfigError(problems)
        more = tuple(warn_server(server, here.place(()))) if server.loopback != self.server.loopback else ()
        return replace(self, server=server, warnings=(*self.warnings, *more))

    def resolve(self, name: str) -> str | None:
        """The model of this name or alias; ``""`` gives the default model. ``None`` if there is none."""
        for model, entry in self.models.items():
            if name in (model, *entry.aliases) or (name == "" and entry.default):
                return model
        return None


def _no_file(path: str) -> str:
    raise ValueError(f"no file is read here: {path}")


def parse(
    text: str,
    name: str,
    env: Mapping[str, str],
    read_file: Callable[[str], str],
    engines: Collection[str] | None = None,
    *,
    folder: str = "",
    installed: old.Installed = old.nothing_installed,
) -> Config:
    """The configuration in one text. Raises ``ConfigError``, and nothing else, for whatever is wrong.

    ``name`` is how messages call the text; ``engines`` are the names of the engines there are, by default
    those of the registry. ``read_file`` gives the text of a secret's file; it may raise ``OSError`` or
    ``ValueError``. ``folder`` is what relative paths are below. ``installed`` tells where engines are, for older
    layouts (``old.py``), which did not say it.
    """
    return parse_parts([(name, text)], env, read_file, engines, folder=folder, installed=installed)


def parse_parts(
    parts: Sequence[tuple[str, str]],
    env: Mapping[str, str],
    read_file: Callable[[str], str],
    engines: Collection[str] | None = None,
    *,
    folder: str = "",
    installed: old.Installed = old.nothing_installed,
) -> Config:
    """The configuration in one text, or in two: the second (``models.yml``) then holds only models."""
    tree, root = read_parts(parts, env)
    found = old.convert(tree, root, env, installed) if old.is_old(root) else None
    if found is not None:
        tree, root = found.tree, found.root
    _fill_empty_sections(root)
    reading = Reading(read_file)
    document = _validate(tree, root, reading)
    problems = [*tree.problems, *crosscheck(tree, document, engines or registry.names())]
    if problems:
        raise ConfigError(problems)
    return Config(
        document.server,
        document.scheduler,
        document.backends,
        document.models,
        folder,
        env.get("HOME", ""),
        (*(found.warnings if found else ()), *warnings(tree, document, reading.plain_keys)),
    )


def read_parts(parts: Sequence[tuple[str, str]], env: Mapping[str, str]) -> tuple[Tree, dict[str, object]]:
    """The document in one text or in two, as it is written. Raises ``ConfigError`` for what is no document."""
    (name, text), *others = parts
    tree = old_python.read(text, name) if name.endswith(".py") else yaml.read(text, name, env)
    if tree.root is None and not others:
        raise ConfigError([_empty(name)])
    root = _mapping(tree, tree.root)
    for other_name, other_text in others:
        _add_models(tree, root, yaml.read(other_text, other_name, env))
    return tree, root


def _empty(name: str) -> Problem:
    return Problem(
        Place(name),
        "cannot use an empty configuration: it needs at least a model",
        "For example: models: {my-model: {backend: llamacpp, path: /models/my-model.gguf}}",
    )


def _mapping(tree: Tree, root: object) -> dict[str, object]:
    if root is None:
        return {}
    if not isinstance(root, dict):
        raise ConfigError(
            [
                *tree.problems,
                Problem(tree.place(()), "cannot use the configuration: it must be sections (server, backends, models)"),
            ]
        )
    # A place for shared pieces that anchors refer to, as Docker Compose has it.
    return {key: value for key, value in root.items() if not key.startswith("x-")}


def _add_models(tree: Tree, root: dict[str, object], more: Tree) -> None:
    """Add the models of a ``models.yml``: its entries stand at the top, or below the one key ``models``."""
    tree.problems += more.problems
    found, depth = _mapping(more, more.root), 0
    if set(found) == {"models"} and (found["models"] is None or _all_sections(found["models"])):
        found, depth = dict(found["models"] or {}), 1  # type: ignore[call-overload]  # _all_sections knows it
    models = root.setdefault("models", {})
    if models is None:
        models = root["models"] = {}
    if not isinstance(models, dict):
        return
    for name, value in found.items():
        if name in models:
            place = more.place((*("models",) * depth, name), key=True)
            first = tree.place(("models", name), key=True)
            tree.problems.append(Problem(place, f"cannot use the model {name!r} twice: it stands in {first} already"))
            continue
        models[name] = value
        for theirs, ours in ((more.keys, tree.keys), (more.values, tree.values)):
            ours.update(
                {("models", *path[depth:]): at for path, at in theirs.items() if path[depth : depth + 1] == (name,)}
            )
    tree.values.setdefault(("models",), more.place(()))


def _all_sections(value: object) -> bool:
    return isinstance(value, dict) and all(item is None or isinstance(item, dict) for item in value.values())


def _fill_empty_sections(root: dict[str, object]) -> None:
    """A section with nothing below it is an empty one, not a mistake."""
    for name in ("server", "scheduler", "backends", "models"):
        if name in root and root[name] is None:
            root[name] = {}
    for name in ("backends", "models"):
        section = root.get(name)
        if isinstance(section, dict):
            section.update({key: {} for key, value in section.items() if value is None})


def _validate(tree: Tree, root: dict[str, object], context: Reading) -> Document:
    try:
        return Document.model_validate(root, context=context)
    except ValidationError as error:
        problems = [translate(tree, detail) for detail in error.errors(include_url=False)]
        raise ConfigError([*tree.problems, *problems]) from None
