"""From what was chosen to the list of deeds. Pure but for looking at what this host is; it does nothing.

The order matters twice: deeds are done from the first to the last and undone from the last to the first.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from llm_router.config import shelf
from llm_router.config.load import Config
from llm_router.engines.serviced import Service, service_name
from llm_router.host.install import layout as places
from llm_router.host.install import reach, unit
from llm_router.host.install.deeds import Account, Answering, Deed, Enabled, File, Folder, Running
from llm_router.host.install.layout import Layout
from llm_router.host.install.network import THIS_HOST, Network
from llm_router.host.install.program import Program
from llm_router.host.install.settings import FILES, Settings
from llm_router.host.supervisors import packaging

#: What the router takes beyond the time of the answers to end engines that are slow to end, in seconds.
_ENGINES_END_S: Final = 90
#: polkit's daemon, where Debian and Fedora have it.
_POLKIT: Final = (
    "/usr/lib/polkit-1/polkitd",
    "/usr/libexec/polkitd",
    "/usr/lib/policykit-1/polkitd",
    "/usr/libexec/polkit-1/polkitd",
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What was chosen. ``account`` is empty in a user's own installation."""

    layout: Layout
    settings: Settings
    program: Program
    account: str = ""
    engines: unit.Engines = "units"
    network: Network = THIS_HOST


def engines(config: Config, account: str) -> unit.Engines:
    """How engines will run under the account: a plain one needs polkit to start units."""
    if config.server.supervisor == "child":
        return "children"
    return "units" if account in ("", "root") or has_polkit() else "children"


def has_polkit() -> bool:
    """Whether a plain account can be given the right to start units."""
    return any(Path(place).exists() for place in _POLKIT)


def deeds(plan: Plan) -> list[Deed]:
    """All that makes the installation, in order. Raises ``InstallError``."""
    found: list[Deed] = [*_account(plan), *_programs(plan), *_configuration(plan), *_units(plan)]
    systemctl, server = plan.layout.systemctl, plan.settings.config.server
    found += [
        Enabled(systemctl, places.UNIT),
        Running(systemctl, places.UNIT, places.SLICE),
    ]
    if server.port:
        found.append(Answering(server.url, systemctl, places.UNIT, plan.layout.log))
    return found


def texts(plan: Plan) -> dict[str, str]:
    """The units and the rule as they will be written, by path."""
    return {deed.path: deed.text for deed in deeds(plan) if isinstance(deed, File) and not deed.config}


def notes(plan: Plan) -> list[str]:
    """What a person should know before agreeing."""
    server = plan.settings.config.server
    found = [f"it runs in {plan.program.why}: {plan.program.python}"]
    if plan.layout.config == plan.settings.origin and not plan.settings.files:
        found.append(f"the configuration in {plan.layout.config} stays as it is")
    else:
        found.append(f"the configuration is a copy of {plan.settings.origin}; change the copy from now on")
    if plan.engines == "children" and plan.account not in ("", "root"):
        found.append("engines run as children of the router and end with it: polkit is not installed, or so configured")
    if plan.account and plan.account != "root":
        account = reach.who(plan.account, places.GROUPS)
        found += [f"{reason}; the router could not use it" for reason in reach.first_closed(_used(plan), account)]
        if steered(plan.settings.config) and not has_polkit():
            names = ", ".join(steered(plan.settings.config))
            found.append(f"it may not start {names}, as polkit is not installed; install that first")
        if any(service and service.script for service in _services(plan.settings.config)):
            found.append("a `script` replaces the command of a unit, which only root may do: use --account root")
        hidden = [path for path in _used(plan) if path.startswith(("/tmp/", "/var/tmp/"))]  # noqa: S108 - looked for
        found += [f"{path} would not be seen: the service has a /tmp of its own" for path in hidden]
    found += [str(problem) for problem in plan.settings.config.warnings]
    if plan.network.where == "container" and plan.network.bridge not in server.addresses and server.loopback:
        found.append(
            f"containers cannot reach it: write `also_listen: [{plan.network.bridge}]` and `keys` under `server`"
        )
    if plan.network.where == "remote" and server.loopback:
        found.append("other machines cannot reach it: write `host: 0.0.0.0` and `keys` under `server`")
    if not plan.account:
        found.append("it ends when you log out, unless you type `sudo loginctl enable-linger $USER` once")
    return found


def _services(config: Config) -> list[Service | None]:
    return [shelf.service(config, name) for name in config.models]


def _used(plan: Plan) -> list[str]:
    """The files of models and the programs that the configuration names by path."""
    config = plan.settings.config
    jobs = [shelf.job(config, name, port=0, directory="") for name in config.models]
    paths = [str(Path(job.model_dir, job.path)) for job in jobs if job.path.startswith("/") or job.model_dir]
    return [*paths, *(job.command[0] for job in jobs if job.command and job.command[0].startswith("/"))]


def _account(plan: Plan) -> Iterator[Deed]:
    if plan.account and plan.account != "root":
        yield Account(plan.account, str(plan.layout.state), places.GROUPS)
    yield from _folders(plan.layout.state.parent)
    owner = f"{plan.account}:{plan.account}" if plan.account else ""
    yield Folder(str(plan.layout.state), 0o700, owner, whole=True)


def _programs(plan: Plan) -> Iterator[Deed]:
    if plan.program.packages is not None:
        yield from _folders(plan.layout.programs)
        yield plan.program.packages


def _configuration(plan: Plan) -> Iterator[Deed]:
    """Readable for the router, writable for the administrator alone: it decides which programs are run."""
    mode = 0o640 if plan.account else 0o600
    for name, text in plan.settings.files.items():
        yield File(
            str(plan.layout.config / name), text, mode, f"root:{plan.account}" if plan.account else "", config=True
        )
    if plan.settings.files or not plan.account:
        return
    for path in (plan.layout.config / name for name in FILES):
        if path.is_file():
            # It was there before, perhaps closed to others; whose it is, is not changed.
            yield File(str(path), "", mode, f"{path.stat().st_uid}:{plan.account}", config=True)


def _units(plan: Plan) -> Iterator[Deed]:
    after = (*plan.layout.systemctl, "daemon-reload")
    config, plain = plan.settings.config, plan.account not in ("", "root")
    if plain and plan.engines == "units":
        package = plan.program.package / "host" / "supervisors" / "run_job.py"
        template = packaging.template(plan.account, plan.layout.state, plan.program.python, package)
        yield File(str(packaging.TEMPLATE_PLACE), template, after=after)
    if plain and (plan.engines == "units" or (steered(config) and has_polkit())):
        yield from _folders(packaging.RULE_PLACE.parent)
        yield File(str(packaging.RULE_PLACE), packaging.rule(plan.account, steered(config)))
    service = unit.Service(
        python=plan.program.python,
        config=plan.layout.config,
        stop_s=round(config.server.shutdown_grace) + _ENGINES_END_S,
        account=plan.account,
        engines=plan.engines,
        edits=bool(services(config)),
    )
    yield from _folders(plan.layout.unit.parent)
    yield File(str(plan.layout.unit), unit.text(service, plan.layout), after=after)


def services(config: Config) -> set[str]:
    """The existing units that the configuration uses."""
    named = [*(one.service for one in config.backends.values()), *(one.service for one in config.models.values())]
    return {service for service in named if service}


def steered(config: Config) -> list[str]:
    """The system's units, by whole name, that the router must be allowed to start and stop."""
    return sorted({*map(service_name, services(config))}) if config.server.units == "system" else []


def _folders(path: Path) -> Iterator[Folder]:
    """The folder with those above it, as far as they are missing; one that is there stays as it is."""
    for folder in reversed((path, *path.parents)):
        if not folder.exists():
            yield Folder(str(folder))
