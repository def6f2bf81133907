"""Older layouts -> the native one, with a note on each thing that changed (R3). Loading and converting share it.

Three are in use: a JSON file with ``model_path``; ``config.yml`` beside ``models.yml`` with units and scripts; the
``MODELS`` mapping. This file knows their words and the defaults of their routers. It judges no value: the native
document is judged like any other, and its values keep their places in the old text.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Final

from llm_router.config.problems import ConfigError, Problem, did_you_mean
from llm_router.config.schema import HINTS, Backend, Entry
from llm_router.config.tree import Path, Tree
from llm_router.engines import registry

#: Gives, for an engine's name, the keys of a backend (``command`` or ``dir``) that lead to its installation here.
Installed = Callable[[str], Mapping[str, object]]

#: Words that only older layouts have.
_TABBY_KEYS: Final = frozenset({"tabby_config_path", "tabby_model_dir", "tabby_tokens_path"})
_TOP: Final = _TABBY_KEYS | {"router_port", "model_load_timeout", "title", "version", "log_level", "MODELS"}
_BACKEND: Final = frozenset({"health_endpoint"})
_MODEL: Final = frozenset({"model_path"})
#: Words of both.
_SHARED_TOP: Final = frozenset({"backends", "models"})
_SHARED_BACKEND: Final = frozenset({"host", "port", "service"})
_SHARED_MODEL: Final = frozenset({"backend", "script", "service", "model_name"})

ROUTER_PORT: Final = 8002
PORTS: Final = {"sglang": 30000, "tabbyapi": 5000, "llamacpp": 8085, "vllm": 8000}
#: Where the oldest router, whose models are mere scripts, had every engine.
SCRIPTS_PORT: Final = 8001
SHORT_S, LONG_S = 180, 300
#: What the JSON layout's router wrote into TabbyAPI's ``config.yml`` at each switch. Without it a model comes with
#: its own context, which may take more memory than it ever did.
TABBY_ARGS: Final = {"max_seq_len": 32768, "cache_size": 32768, "chunk_size": 4096}
TABBY_CONFIG, TABBY_MODELS = "/opt/TabbyAPI/config.yml", "/opt/models"
_TABBY: Final = frozenset({"tabbyapi", "tabbyapi-exl2"})
_LEVELS: Final = {"warn": "warning", "critical": "error", "fatal": "error", "trace": "debug"}


@dataclass(frozen=True, slots=True)
class Note:
    """What became different, at this key of the native document; the empty path is the whole."""

    path: Path
    text: str


@dataclass(slots=True)
class Converted:
    """A native document with the places of the old one. ``warnings`` are for each start, ``notes`` for reading."""

    tree: Tree
    root: dict[str, object]
    layout: str
    notes: list[Note] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


def nothing_installed(engine: str) -> Mapping[str, object]:
    """For where no machine may be asked: the engines' own defaults are used."""
    del engine
    return {}


def is_old(root: Mapping[str, object]) -> bool:
    """Whether any word of it belongs to an older layout."""
    return bool(_marks(root, _TOP, _BACKEND, _MODEL))


def convert(
    tree: Tree, root: Mapping[str, object], env: Mapping[str, str], installed: Installed = nothing_installed
) -> Converted:
    """The native form of an old document. Raises ``ConfigError`` for a mixture of old and native words."""
    _refuse_mixture(tree, root)
    return _Conversion(tree, root, env, installed).done()


def _marks(
    root: Mapping[str, object], top: frozenset[str], backend: frozenset[str], model: frozenset[str]
) -> list[Path]:
    """The paths of these words, in the order of the document."""
    found: list[Path] = [(key,) for key in root if key in top]
    for section, words in (("backends", backend), ("models", model), ("MODELS", model)):
        for name, entry in _section(root.get(section)).items():
            found += [(section, name, key) for key in _section(entry) if key in words]
    return found


def _section(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _refuse_mixture(tree: Tree, root: Mapping[str, object]) -> None:
    native = _marks(
        root,
        frozenset({"server", "scheduler"}),
        frozenset(Backend.model_fields) - _SHARED_BACKEND,
        frozenset(Entry.model_fields) - _SHARED_MODEL,
    )
    if not native:
        return
    told = []
    for path in _marks(root, _TOP, _BACKEND, _MODEL):
        word = str(path[-1])
        text = (
            f"cannot use {word!r} beside {str(native[0][-1])!r} ({tree.place(native[0], key=True)}): the one belongs to an "
            "older layout, the other to the present one, and a file has one of them"
        )
        told.append(Problem(tree.place(path, key=True), text, HINTS.get(word, "Leave it out")))
    raise ConfigError([*tree.problems, *told])


class _Conversion:
    """One document on its way."""

    def __init__(self, tree: Tree, root: Mapping[str, object], env: Mapping[str, str], installed: Installed) -> None:
        self._old, self._root, self._env, self._installed = tree, root, env, installed
        self._new = Tree({}, {}, {(): tree.place(())}, tree.problems)
        self._native: dict[str, object] = {}
        self._where = "MODELS" if "MODELS" in root else "models"
        self._models = _section(root.get(self._where))
        self._only_scripts = bool(self._models) and all(isinstance(entry, str) for entry in self._models.values())
        self._layout = self._find_layout()
        self._result = Converted(self._new, self._native, self._layout)

    def done(self) -> Converted:
        self._server()
        self._put(("backends",), {}, ("backends",))
        for name in self._backend_names():
            self._backend(name)
        self._put(("models",), {}, (self._where,))
        for name, entry in self._models.items():
            self._model(name, entry)
        for section, source in (("backends", "backends"), ("models", self._where)):
            raw = self._root.get(source)
            if raw is not None and not isinstance(raw, dict):
                # It is no section: the schema says so, at its place.
                self._put((section,), raw, (source,))
        self._unused((), self._root, _TOP | _SHARED_TOP)
        self._new.root = self._native
        self._result.warnings.insert(
            0,
            Problem(
                self._old.place(()),
                f"this is {self._layout}, and is read as it was meant then",
                "`llm-router config convert` writes it in the present layout",
            ),
        )
        return self._result

    def _find_layout(self) -> str:
        if self._where == "MODELS":
            return "the older layout with a MODELS mapping"
        entries = [_section(entry) for entry in self._models.values()]
        if any({"script", "service", "model_name"} & entry.keys() for entry in entries):
            return "the older layout with services and scripts"
        return "the older JSON layout"

    # -- the router itself

    def _server(self) -> None:
        self._put(("server",), {}, ())
        self._put(("server", "host"), "0.0.0.0", ())  # noqa: S104 - as it was
        self._put(("server", "allow_remote"), True, ())
        self._put(("server", "insecure"), True, ())
        self._note(
            ("server", "host"),
            "The older router listened on every address and asked for no key, so this one does too. Whoever reaches it "
            "can use the models; loading, unloading and reloading need this machine or a key. To close it: host: "
            "127.0.0.1, or `keys` (llm-router keys new); then remove allow_remote and insecure.",
        )
        self._put(("server", "port"), self._root.get("router_port", ROUTER_PORT), ("router_port",))
        usual = LONG_S if self._layout.endswith("JSON layout") or self._only_scripts else SHORT_S
        self._put(("server", "load_timeout"), self._root.get("model_load_timeout", usual), ("model_load_timeout",))
        for old, new in (("router_port", "port"), ("model_load_timeout", "load_timeout")):
            said = f"Was `{old}`." if old in self._root else f"The older router's own `{old}`."
            self._note(("server", new), said)
        level = self._root.get("log_level")
        if isinstance(level, str):
            word = level.strip().lower()
            self._put(("server", "log_level"), _LEVELS.get(word, word), ("log_level",))
        for words, why in (
            (("title", "version"), "nothing depends on them"),
            (("health_endpoint",), "a model is ready when it has answered with a token"),
        ):
            here = [path[-1] for path in _marks(self._root, frozenset(words), frozenset(words), frozenset())]
            if here:
                self._note((), f"Left out: {', '.join(map(str, dict.fromkeys(here)))} ({why}).")

    # -- engines

    def _backend_names(self) -> list[str]:
        used = [_backend_word(entry) for entry in self._models.values()]
        given = [_native_name(name) for name in _section(self._root.get("backends"))]
        return list(dict.fromkeys([*given, *(name for name in used if registry.canonical(name))]))

    def _backend(self, name: str) -> None:
        old_name = next((word for word in _section(self._root.get("backends")) if _native_name(word) == name), name)
        source: Path = ("backends", old_name)
        raw = _section(self._root.get("backends")).get(old_name)
        entry = _section(raw)
        here: Path = ("backends", name)
        self._put(here, {}, source)
        if raw is not None and not isinstance(raw, dict):
            self._put(here, raw, source)
            return
        if self._needs_old_branch(name):
            self._put((*here, "engine"), "tabbyapi-exl2", source)
            self._note(
                (*here, "engine"),
                "EXL2 models need TabbyAPI's branch exl2-checkpoint; its main branch no longer reads them.",
            )
        host = entry.get("host")
        if host not in (None, "localhost", "127.0.0.1", "0.0.0.0", "::"):  # noqa: S104 - recognised, not listened on
            self._put((*here, "host"), host, (*source, "host"))
        port = entry.get("port", SCRIPTS_PORT if self._only_scripts else PORTS.get(name))
        if port is not None:
            self._put((*here, "port"), port, (*source, "port"))
        if name in _TABBY:
            self._tabby(here)
        elif self._is_owned(name):
            self._install(here, name)
        self._unused(source, entry, _BACKEND | _SHARED_BACKEND)

    def _needs_old_branch(self, name: str) -> bool:
        return name == "tabbyapi" and any(
            _backend_word(entry) == name and "exl2" in f"{key} {_tabby_folder(entry)}".lower()
            for key, entry in self._models.items()
        )

    def _is_owned(self, backend: str) -> bool:
        return any(
            _backend_word(entry) == backend and "model_path" in _section(entry) for entry in self._models.values()
        )

    def _install(self, here: Path, engine: str) -> None:
        keys = self._installed(engine)
        for key, value in keys.items():
            self._put((*here, key), value, ())
        if keys:
            self._note((*here, next(iter(keys))), "Found on this machine.")

    def _tabby(self, here: Path) -> None:
        """Its folders: from the file, else the environment, else where the JSON layout's router had them."""
        owned = self._is_owned(str(here[1]))
        config = self._setting("tabby_config_path", TABBY_CONFIG if owned else None)
        models = self._setting("tabby_model_dir", TABBY_MODELS if owned else None)
        if models is not None:
            self._put((*here, "model_dir"), models, ("tabby_model_dir",))
        if not owned:
            tokens = self._setting("tabby_tokens_path", None)
            for word, key, value in (
                ("tabby_config_path", "config_file", config),
                ("tabby_tokens_path", "tokens_file", tokens),
            ):
                if value is not None:
                    self._put((*here, key), value, (word,))
            return
        if config is not None:
            self._put((*here, "dir"), str(PurePosixPath(config).parent), ("tabby_config_path",))
            self._note(
                (*here, "dir"), "TabbyAPI's own config.yml and keys are no longer touched: each start gets its own."
            )
        self._put((*here, "args"), dict(TABBY_ARGS), ())
        self._note((*here, "args"), "What the older router wrote into TabbyAPI's config.yml at each switch.")

    def _setting(self, word: str, otherwise: str | None) -> str | None:
        """The key of the file wins over the environment, as it did."""
        given = self._root.get(word, self._env.get(word.upper()) or otherwise)
        return given if isinstance(given, str) else otherwise

    # -- models

    def _model(self, name: str, entry: object) -> None:
        source, here = (self._where, name), ("models", name)
        if isinstance(entry, str):
            # A script and nothing else: SGLang, by the one unit there was.
            self._put(here, {"backend": "sglang", "service": "sglang.service", "script": entry}, source)
            return
        if not isinstance(entry, dict):
            self._put(here, entry, source)
            return
        self._put(here, {}, source)
        backend = _backend_word(entry)
        if backend:
            self._put((*here, "backend"), backend, (*source, "backend"))
        if "model_path" in entry:
            self._put((*here, "path"), entry["model_path"], (*source, "model_path"))
        else:
            self._unit(name, entry, backend)
        self._unused(source, entry, _MODEL | _SHARED_MODEL)

    def _unit(self, name: str, entry: Mapping[str, Any], backend: str) -> None:
        """A model of one of the operator's units. A unit not named is the backend's, else the one it always was."""
        source, here = (self._where, name), ("models", name)
        of_backend = _section(_section(self._root.get("backends")).get(backend)).get("service")
        service = entry.get("service") or of_backend or (f"{backend}.service" if backend in PORTS else None)
        if service is not None:
            self._put((*here, "service"), service, (*source, "service"))
        for word in ("script", "model_name"):
            if entry.get(word) is not None:
                self._put((*here, word), entry[word], (*source, word))

    # -- writing it down

    def _put(self, path: Path, value: object, source: Path) -> None:
        """Set a value of the native document; ``source`` is where it came from."""
        section: Any = self._native
        for key in path[:-1]:
            section = section[key]
        section[path[-1]] = value
        self._new.keys[path] = self._old.place(source, key=True)
        self._new.values[path] = self._old.place(source)

    def _note(self, path: Path, text: str) -> None:
        self._result.notes.append(Note(path, text))

    def _unused(self, path: Path, entry: Mapping[str, object], known: frozenset[str]) -> None:
        """Words that the older router did not know either are passed over like then, and told."""
        for word in entry:
            if word not in known:
                self._result.warnings.append(
                    Problem(
                        self._old.place((*path, word), key=True),
                        f"{word!r} is not used: the older layout has no such key",
                        did_you_mean(word, known),
                    )
                )


def _native_name(word: str) -> str:
    return registry.canonical(word) or word


def _backend_word(entry: object) -> str:
    """The model's backend under its present name; empty if it names none."""
    if isinstance(entry, str):
        return "sglang"
    word = _section(entry).get("backend")
    return _native_name(word) if isinstance(word, str) else ""


def _tabby_folder(entry: object) -> str:
    section = _section(entry)
    return f"{section.get('model_path') or ''} {section.get('model_name') or ''}"
