"""The configuration and what it names: programs with their versions, models' files, ports. It starts no model."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from llm_router.config import shelf
from llm_router.config.load import Config
from llm_router.config.problems import ConfigError
from llm_router.engines.engine import Need
from llm_router.host import config_files, installations
from llm_router.host.crew import prechecks
from llm_router.host.doctor.findings import Finding, fail, ok, warn
from llm_router.host.install import machine, reach
from llm_router.host.machine import ports
from llm_router.host.machine.programs import find_program

#: A compiled program prints its version at once; what does not is no program to ask (seconds).
_VERSION_LIMIT_S: Final = 10.0
_VERSION: Final = re.compile(r"version:?\s+v?(\S+)", re.IGNORECASE)
_ELF: Final = b"\x7fELF"


def configuration(path: Path | None, environment: Mapping[str, str]) -> tuple[Config | None, list[Finding]]:
    """The configuration, if it can be used, and every mistake and warning in it."""
    remedy = "`llm-router config check` tells the same; `llm-router init` writes a new one"
    try:
        place = config_files.find(path, environment)
        config = config_files.load(place, environment)
    except ConfigError as error:
        problems = [
            fail("configuration", f"{problem.place}: {problem.text}", problem.suggestion or remedy)
            for problem in error.problems
        ]
        return None, problems
    found = [ok("configuration", f"{place}: {len(config.models)} model{'' if len(config.models) == 1 else 's'}")]
    found += [
        warn("configuration", f"{problem.place}: {problem.text}", problem.suggestion or "change it, or know it")
        for problem in config.warnings
    ]
    return config, found


def engines(config: Config) -> Iterator[Finding]:
    """Each program that is used, once, with its version."""
    seen = set()
    for name in config.models:
        if shelf.service(config, name) is not None:
            continue
        job = shelf.job(config, name, port=0, directory="/")
        for check in shelf.engine(config, name).checks(job):
            if check.need is Need.program and check.path not in seen:
                seen.add(check.path)
                yield _program(config.engine_of(name), check.path, job.cwd)


def unused(config: Config | None, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Engines that are installed here and serve no model of the configuration."""
    used = {config.engine_of(name) for name in config.models} if config else set[str]()
    for found in installations.find_all(environment):
        if found.engine not in used:
            program = find_program(found.command[0]) if found.command else None
            version = _version(program) if program else None
            about = f"{found.engine}: {found.place}" + (f", version {version}" if version else "")
            yield ok("engine", f"{about} (not used by the configuration)")


def models(config: Config, account: reach.Who | None) -> Iterator[Finding]:
    """Whether each model's files are there, fit their engine, and may be read by the account of the service."""
    for name in config.models:
        job = shelf.job(config, name, port=0, directory="/")
        failure = prechecks.unmet(shelf.engine(config, name), job)
        path = Path(job.model_dir, job.path) if job.path else None
        if failure is not None:
            yield fail("model", f"{name}: {failure.cause}", f"correct models.{name} in the configuration, or the files")
        elif path is not None and account is not None and (closed := reach.closed(path, account)):
            yield fail("model", f"{name}: {closed}", f"let it in: setfacl -m u:{account.name}:rX, or move the model")
        else:
            yield ok("model", f"{name} ({config.engine_of(name)})")


def taken_ports(config: Config, *, router_answers: bool) -> Iterator[Finding]:
    """Ports that somebody else has."""
    server = config.server
    holder = ports.held_by(server.port) if server.port else None
    if holder and not router_answers:
        yield fail(
            "port",
            f"port {server.port} of the router is taken by {holder}, which does not answer as a router does",
            "stop it, or choose another `port` under `server`",
        )
    elif not holder:
        yield ok("port", f"port {server.port} is free for the router" if server.port else "the system chooses a port")
    for name, backend in config.backends.items():
        taken = ports.held_by(backend.port) if backend.port and not router_answers else None
        if taken:
            yield warn(
                "port",
                f"port {backend.port} of the backend {name!r} is taken by {taken}",
                "stop it before a model of this backend is asked for, or leave `port` out: then a free one is chosen",
            )


def _program(engine: str, word: str, cwd: str | None) -> Finding:
    program = find_program(word, cwd)
    if program is None:
        return fail(
            "engine", f"{engine}: there is no program {word}", "install it, or correct `command` of the backend"
        )
    version = _version(program)
    return ok("engine", f"{engine}: {program}" + (f", version {version}" if version else ""))


def _version(program: Path) -> str | None:
    """A Python program's version stands beside it; a compiled one is asked; a script is left alone."""
    library = program.parent.parent / "lib"
    for folder in sorted(library.glob(f"python3*/site-packages/{program.name.replace('-', '_')}-*.dist-info")):
        return folder.name.removesuffix(".dist-info").rpartition("-")[2]
    try:
        with program.open("rb") as file:
            compiled = file.read(4) == _ELF
    except OSError:
        return None
    if not compiled or program.name.startswith("python"):
        return None
    _, said = machine.ask((str(program), "--version"), _VERSION_LIMIT_S)
    found = _VERSION.search(said)
    return found[1] if found else None
