"""The whole look, in the order in which one thing explains the next."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from llm_router.config.load import Config
from llm_router.host import state
from llm_router.host.doctor import machine, models, running, service
from llm_router.host.doctor.findings import Finding
from llm_router.host.install import layout as places
from llm_router.host.install import reach
from llm_router.host.machine.gpus import Gauge


@dataclass(frozen=True, slots=True)
class Case:
    """What to look at. ``config`` as given, else looked for; ``url`` where the router should answer, else as configured."""

    environment: Mapping[str, str]
    home: Path
    config: Path | None = None
    url: str | None = None
    key: str | None = None


def examine(case: Case) -> Iterator[Finding]:
    """All findings. Takes as long as the slowest program that is asked for its version. Never raises for what it finds."""
    installed = service.find((places.system(), places.user(case.home, dict(case.environment))))
    given = case.config or (installed.layout.config if installed and installed.layout.scope == "system" else None)
    yield from machine.python()
    yield from machine.clock()
    yield from machine.gpus(Gauge())
    config, found = models.configuration(given, case.environment)
    yield from found
    router = running.look(case.url or _url(config), case.key)
    if config is not None:
        folder = _state(config, case, installed)
        yield from service.state_folder(folder, installed)
        yield from machine.disk(folder)
        yield from models.engines(config)
        account = reach.who(installed.account) if installed and installed.account else None
        yield from models.models(config, account)
        yield from models.taken_ports(config, router_answers=router.health is not None)
    yield from models.unused(config, case.environment)
    yield from service.service(installed)
    yield from service.rights(installed, config)
    expected = installed is not None and installed.unit.get("ActiveState") == "active"
    yield from running.router(router, expected=expected)


def _state(config: Config, case: Case, installed: service.Installed | None) -> Path:
    if config.server.state_dir is None and installed is not None and installed.account:
        return installed.layout.state
    return state.place(config.server.state_dir, case.environment, config.folder)


def _url(config: Config | None) -> str:
    return config.server.url if config else "http://127.0.0.1:8002"
