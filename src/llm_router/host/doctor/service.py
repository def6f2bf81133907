"""The router as a service of systemd: its units, its account, what lets it start engines, and its state folder."""

import os
import pwd
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from llm_router.config.load import Config
from llm_router.host.doctor.findings import Finding, fail, ok, warn
from llm_router.host.install import layout as places
from llm_router.host.install import machine, plan
from llm_router.host.install.layout import Layout
from llm_router.host.supervisors import choosing, packaging

_AGAIN = "`llm-router install` puts it right"
_WANTED = ("ActiveState", "SubState", "UnitFileState", "User", "Result", "NeedDaemonReload")


@dataclass(frozen=True, slots=True)
class Installed:
    """An installed service. ``unit`` is what systemd says of it."""

    layout: Layout
    unit: Mapping[str, str]

    @property
    def account(self) -> str:
        """Its account, empty in a user's own manager."""
        return self.unit.get("User", "") if self.layout.scope == "system" else ""


def find(layouts: tuple[Layout, ...]) -> Installed | None:
    """The first of the places where a unit of the router is installed."""
    for layout in layouts:
        if layout.unit.is_file():
            code, said = machine.ask((*layout.systemctl, "show", f"--property={','.join(_WANTED)}", places.UNIT))
            words = dict(line.split("=", 1) for line in said.splitlines() if "=" in line) if code == 0 else {}
            return Installed(layout, words)
    return None


def service(installed: Installed | None) -> Iterator[Finding]:
    """The router's unit."""
    if not choosing.BOOTED.is_dir():
        yield ok("systemd", "this machine was not booted by systemd: engines are children of the router")
        return
    if installed is None:
        yield ok("systemd", "the router is not installed as a service")
        return
    unit, show = places.UNIT, " ".join(installed.layout.log)
    if not installed.unit:
        yield fail(
            "systemd", f"systemd does not answer about {unit}", "is this account allowed to ask? try `systemctl`"
        )
        return
    active = installed.unit.get("ActiveState", "")
    if active == "active":
        yield ok("systemd", f"{unit} runs")
    elif active == "failed":
        yield fail("systemd", f"{unit} has failed ({installed.unit.get('Result')})", f"see why: {show}")
    else:
        yield warn("systemd", f"{unit} is {active}", f"start it: {' '.join(installed.layout.systemctl)} start {unit}")
    if installed.unit.get("UnitFileState") != "enabled":
        yield warn("systemd", f"{unit} does not start at boot", f"{' '.join(installed.layout.systemctl)} enable {unit}")
    if installed.unit.get("NeedDaemonReload") == "yes":
        remedy = f"{' '.join(installed.layout.systemctl)} daemon-reload"
        yield warn("systemd", f"{unit} was changed since systemd read it", remedy)
    if installed.layout.scope == "user":
        yield from _lingering()


def rights(installed: Installed | None, config: Config | None = None) -> Iterator[Finding]:
    """What a plain account needs to start engines in units of their own, and the units that the configuration names."""
    if installed is None or installed.account in ("", "root"):
        return
    if not machine.account_exists(installed.account):
        yield fail("systemd", f"the account {installed.account} of the service does not exist", _AGAIN)
        return
    named = plan.steered(config) if config is not None else []
    template = packaging.TEMPLATE_PLACE
    if template.is_file():
        text = machine.text_of(str(template)) or ""
        if f"User={installed.account}\n" not in text:
            yield fail("systemd", f"{template} is not for the account {installed.account}", _AGAIN)
        yield _rule(installed.account, ["engines"], named)
        return
    yield warn("systemd", f"{template} is missing: engines are children of the router and end with it", _AGAIN)
    if named:
        yield _rule(installed.account, [], named)


def _rule(account: str, engines: list[str], named: list[str]) -> Finding:
    """Whether the rule lets the account steer these units: the template's, called ``engines``, and the ``named`` ones."""
    rule, all_, again = packaging.RULE_PLACE, _and(engines + named), f"type: {_install(account)}"
    try:
        text = rule.read_text(encoding="utf-8", errors="replace")
    except PermissionError:
        return ok("polkit", f"the account {account} may start {all_}, as far as may be seen; root sees the rule")
    except OSError:
        if not plan.has_polkit():
            return fail(
                "polkit", f"the router may not start {all_}: there is no polkit", f"install polkit, then {again}"
            )
        return fail("polkit", f"{rule} is missing: the router may not start {all_}", again)
    if f'"{account}"' not in text:
        return fail("polkit", f"{rule} is not for the account {account}", again)
    listed = packaging.services_of(text)
    missing = [unit for unit in named if listed is not None and unit not in listed]
    if missing:
        what = "which the configuration uses: the router may not start"
        return fail(
            "polkit", f"{rule} does not name {_and(missing)}, {what} {'them' if len(missing) > 1 else 'it'}", again
        )
    return ok("polkit", f"the account {account} may start {all_}")


def _install(account: str) -> str:
    """The command that writes the rule anew, as root's shell finds it."""
    beside = Path(sys.executable).with_name("llm-router")
    words = f"sudo {beside if beside.is_file() else 'llm-router'} install"
    return words if account == places.ACCOUNT else f"{words} --account {account}"


def _and(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def state_folder(folder: Path, installed: Installed | None) -> Iterator[Finding]:
    """Whether it is there, closed to others, and the router's own."""
    owner = installed.account if installed and installed.account else pwd.getpwuid(os.getuid()).pw_name
    try:
        found = folder.stat()
    except PermissionError:
        yield ok("state", f"{folder} is closed to this account")
        return
    except OSError:
        yield ok("state", f"{folder} is not there yet; the router makes it")
        return
    has = _name_of(found.st_uid)
    if has != owner and os.geteuid() != found.st_uid:
        yield fail("state", f"{folder} belongs to {has}, not to {owner}", f"chown -R {owner}: {folder}")
    elif found.st_mode & 0o077:
        yield warn(
            "state", f"{folder} is open to others: requests' times and engines' logs lie there", f"chmod 700 {folder}"
        )
    else:
        yield ok("state", f"{folder} belongs to {has} alone")


def _lingering() -> Iterator[Finding]:
    name = pwd.getpwuid(os.getuid()).pw_name
    if Path("/var/lib/systemd/linger", name).exists():
        yield ok("systemd", f"the manager of {name} runs from boot on")
    else:
        remedy = f"sudo loginctl enable-linger {name}"
        yield warn("systemd", f"the router ends when {name} logs out, and does not start at boot", remedy)


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
