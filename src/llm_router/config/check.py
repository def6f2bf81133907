"""What must hold between the sections of a configuration: references, names, sense.

This file sees a document whose values are right one by one. It reads nothing and changes nothing.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Final

from llm_router.config.problems import Place, Problem, did_you_mean
from llm_router.config.schema import Backend, Document, Entry, Scheduler, Server
from llm_router.config.tree import Path, Tree
from llm_router.engines import registry
from llm_router.engines.command import Command
from llm_router.engines.engine import Parkable
from llm_router.engines.serviced import EDITED, is_service, service_name
from llm_router.wire.params import Rules

#: The engine of models that bring their own command; it needs no entry under ``backends``.
COMMAND: Final = Command.name
_NAME_LENGTH: Final = 200


def backend_name(entry: Entry, backends: Collection[str]) -> str | None:
    """What a model's ``backend`` says or, left out, means."""
    if entry.backend is not None:
        return entry.backend
    if entry.command is not None:
        return COMMAND
    return next(iter(backends)) if len(backends) == 1 else None


def crosscheck(tree: Tree, document: Document, engines: Collection[str]) -> Iterator[Problem]:
    yield from check_server(document.server, tree.place(("server", "host")))
    yield from _check_scheduler(tree, document.scheduler)
    for name, backend in document.backends.items():
        yield from _check_backend(tree, name, backend, document.server, engines)
    for name, entry in document.models.items():
        yield from _check_model(tree, name, entry, document, engines)
    yield from _check_names(tree, document.models)
    yield from _check_default(tree, document.models)


def check_server(server: Server, host: Place) -> Iterator[Problem]:
    """Whether the address may be listened on (R50); ``host`` is where it stands."""
    if not server.loopback and not server.keys and not (server.allow_remote and server.insecure):
        yield Problem(
            host,
            f"cannot listen on {server.open_addresses[0]} without keys: everybody who reaches it could use and steer the router",
            "Add `keys`, or say both `allow_remote: true` and `insecure: true`",
        )


def warn_server(server: Server, host: Place) -> Iterator[Problem]:
    """What is allowed and should be known; ``host`` is where the address stands."""
    if not server.loopback and not server.keys:
        yield Problem(
            host,
            "the router listens beyond this machine without keys",
            "Add `keys` (an older file is converted first), or listen on 127.0.0.1 only",
        )


def _check_scheduler(tree: Tree, scheduler: Scheduler) -> Iterator[Problem]:
    if scheduler.quantum_min > scheduler.quantum_max:
        path = ("scheduler", "quantum_min")
        if path not in tree.values:
            path = ("scheduler", "quantum_max")
        yield Problem(tree.place(path), "cannot use scheduler.quantum_min: it is longer than scheduler.quantum_max")


def _check_backend(
    tree: Tree, name: str, backend: Backend, server: Server, engines: Collection[str]
) -> Iterator[Problem]:
    engine = backend.engine or name
    if (registry.canonical(engine) or engine) not in engines:
        path: Path = ("backends", name, "engine") if backend.engine else ("backends", name)
        suggestion = did_you_mean(engine, engines)
        if not backend.engine:
            suggestion = f"{suggestion or ''} A backend with a name of its own needs `engine: ...`".strip()
        yield Problem(
            tree.place(path, key=not backend.engine), f"cannot use {engine!r}: there is no such engine", suggestion
        )
    if backend.port is not None and backend.port == server.port:
        yield Problem(
            tree.place(("backends", name, "port")), f"cannot use port {backend.port} twice: the router listens on it"
        )


def _check_key(tree: Tree, name: str, entry: Entry, backend: Backend, backend_word: str) -> Iterator[Problem]:
    """A key of the operator's own: only where the engine has it from somebody else, and never in a command's words."""
    if backend.key is None:
        return
    place = tree.place(("backends", backend_word, "key"))
    if not (entry.service or backend.service) and registry.canonical(backend.engine or backend_word) != COMMAND:
        yield Problem(
            place,
            f"cannot use this key for the model {name!r}: the router starts its engine, and makes the engine's keys itself",
            "Leave `key` out",
        )
    if any("{key}" in word for word in entry.command or backend.command or ()):
        yield Problem(
            place,
            f"cannot put this key into the command of the model {name!r}: everybody on the machine could read it there",
            'Pass it by `env`, such as env: {API_KEY: "{key}"}',
        )


def _check_model(
    tree: Tree, name: str, entry: Entry, document: Document, engines: Collection[str]
) -> Iterator[Problem]:
    here: Path = ("models", name)
    if not name or name != name.strip() or len(name) > _NAME_LENGTH or not name.isprintable():
        yield Problem(
            tree.place(here, key=True), f"cannot use {name!r} as a model's name: write 1-200 printable characters"
        )
    for index, alias in enumerate(entry.aliases):
        if not alias or alias != alias.strip() or not alias.isprintable():
            yield Problem(
                tree.place((*here, "aliases", index)), f"cannot use {alias!r} as an alias: write printable characters"
            )
    yield from _check_request(tree, name, entry)
    backend = backend_name(entry, document.backends)
    known = {*document.backends, *engines, *(word for word, name in registry.SPELLINGS.items() if name in engines)}
    if backend is None:
        yield Problem(
            tree.place(here, key=True),
            f"cannot serve the model {name!r}: it names no `backend`",
            did_you_mean("", {*document.backends, *engines}),
        )
    elif backend not in known:
        yield Problem(
            tree.place((*here, "backend")),
            f"cannot serve the model {name!r}: there is no backend {backend!r}",
            did_you_mean(backend, known),
        )
    else:
        yield from _check_what_runs(tree, name, entry, backend, document)


def _check_request(tree: Tree, name: str, entry: Entry) -> Iterator[Problem]:
    rules = entry.request
    try:
        Rules.of(rules.force, rules.default, rules.drop)
    except ValueError as error:
        yield Problem(tree.place(("models", name, "request"), key=True), f"{error}")


def _check_what_runs(tree: Tree, name: str, entry: Entry, backend_word: str, document: Document) -> Iterator[Problem]:
    backend = document.backends.get(backend_word) or Backend()
    place = tree.place(("models", name), key=True)
    if entry.service or backend.service:
        yield from _check_service(tree, name, entry, backend, registry.canonical(backend.engine or backend_word) or "")
    elif entry.script or backend.script:
        yield Problem(
            place, f"cannot serve the model {name!r}: it has a `script` but no `service`", "Write the unit that runs it"
        )
    elif registry.canonical(backend.engine or backend_word) == COMMAND:
        if entry.command is None and backend.command is None:
            yield Problem(
                place,
                f"cannot serve the model {name!r}: it lacks `command`",
                'Write the program, such as command: [./serve.sh, "{port}"]',
            )
    elif entry.path is None and entry.command is None and not entry.args:
        yield Problem(place, f"cannot serve the model {name!r}: it lacks `path`", "Write the model's file or folder")
    yield from _check_key(tree, name, entry, backend, backend_word)
    if entry.park and not _can_park(entry, backend, registry.canonical(backend.engine or backend_word) or ""):
        yield Problem(
            tree.place(("models", name, "park")),
            f"cannot park the model {name!r}: its engine cannot sleep while its process lives",
            "Leave `park` out; SGLang and vLLM, started by the router itself, can sleep",
        )
    if entry.parallel and entry.concurrency and entry.concurrency < entry.parallel:
        yield Problem(
            tree.place(("models", name, "concurrency")),
            f"cannot use concurrency {entry.concurrency}: fewer requests than the {entry.parallel} that `parallel` prepares for",
        )


def _can_park(entry: Entry, backend: Backend, engine: str) -> bool:
    """By its own command line: the flags of an existing unit are not ours."""
    ours = not (entry.service or backend.service)
    return ours and engine in registry.names() and isinstance(registry.find(engine), Parkable)


def _check_service(tree: Tree, name: str, entry: Entry, backend: Backend, engine: str) -> Iterator[Problem]:
    """What an existing unit needs: a name, a port that is known, and for TabbyAPI the model's folder."""
    word = entry.service or backend.service or ""
    path: Path = ("models", name, "service") if entry.service else ("models", name)
    place = tree.place(path, key=not entry.service)
    if not is_service(word):
        yield Problem(
            place, f"cannot use {word!r} as a service", "Write it as `systemctl` shows it, such as sglang.service"
        )
    if backend.port is None:
        yield Problem(
            place,
            f"cannot serve the model {name!r} by {word}: the port of its backend is not known",
            "Write `port` at the backend, as the unit has it",
        )
    if engine in EDITED and not (entry.path or entry.model_name):
        yield Problem(
            place, f"cannot serve the model {name!r}: it lacks `path`", "Write its folder below TabbyAPI's model_dir"
        )


def _undistinguished(tree: Tree, document: Document) -> Iterator[Problem]:
    """Models of one unit differ by their scripts, or for TabbyAPI by their folders."""
    seen: dict[tuple[str, object], str] = {}
    for name, entry in document.models.items():
        word = backend_name(entry, document.backends) or ""
        backend = document.backends.get(word) or Backend()
        service = entry.service or backend.service
        if not service:
            continue
        edited = registry.canonical(backend.engine or word) in EDITED
        what = (entry.model_name or entry.path) if edited else (entry.script or backend.script)
        first = seen.setdefault((service_name(service), what), name)
        if first != name:
            yield Problem(
                tree.place(("models", name), key=True),
                f"{first!r} and {name!r} are both what {service} runs: they cannot be told apart",
                "Give each a `script`, or make one an alias of the other",
            )


def _check_names(tree: Tree, models: Mapping[str, Entry]) -> Iterator[Problem]:
    owners = {name: name for name in models}
    for name, entry in models.items():
        for index, alias in enumerate(entry.aliases):
            owner = owners.setdefault(alias, name)
            first = entry.aliases.index(alias) == index
            if owner != name or alias == name or not first:
                place = tree.place(("models", name, "aliases", index))
                what = "is a model's name" if alias in models else f"is an alias of {owner!r}"
                yield Problem(place, f"cannot use the alias {alias!r} for {name!r}: it {what} already")


def _check_default(tree: Tree, models: Mapping[str, Entry]) -> Iterator[Problem]:
    defaults = [name for name, entry in models.items() if entry.default]
    for name in defaults[1:]:
        place = tree.place(("models", name, "default"))
        yield Problem(place, f"cannot use two default models: {defaults[0]!r} is the default already")


def warnings(tree: Tree, document: Document, plain_keys: int) -> Iterator[Problem]:
    if plain_keys:
        yield Problem(
            tree.place(("server", "keys")),
            "a key stands in the configuration as it is: who can read the file can use it",
            "Replace it by what `llm-router keys hash` prints, or by file:PATH",
        )
    yield from warn_server(document.server, tree.place(("server", "host")))
    yield from _undistinguished(tree, document)
    if not document.models:
        yield Problem(tree.place(()), "no models are configured: every request will be answered with 404")
    for name, entry in document.models.items():
        if entry.pin and entry.idle is not None:
            yield Problem(
                tree.place(("models", name, "idle")), f"{name!r} is pinned: it is unloaded when idle all the same"
            )
