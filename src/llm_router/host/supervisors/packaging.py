"""The files that an installer puts in place for a router under a plain account: the template unit, the polkit rule.

It fills in names and paths, after looking at them: both files are read by root. It writes nothing anywhere.
"""

import json
import re
import sys
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Final

from llm_router.engines.serviced import is_service, service_name
from llm_router.host.supervisors import units

TEMPLATE_FILE: Final = f"{units.TEMPLATE}.service"
RULE_FILE: Final = "50-llm-router.rules"
#: Where they belong on a host.
TEMPLATE_PLACE: Final = Path("/etc/systemd/system", TEMPLATE_FILE)
RULE_PLACE: Final = Path("/etc/polkit-1/rules.d", RULE_FILE)

_ACCOUNT: Final = re.compile(r"[a-z_][a-z0-9_-]{0,31}\$?")
_PLAIN_PATH: Final = re.compile(r"/[A-Za-z0-9._/@+=,-]*")


def jobs_folder(state: Path) -> Path:
    """Where the template finds what to run, for a router with this state folder."""
    return state / "jobs"


def template(account: str, state: Path, python: Path = Path(sys.executable), runner: Path | None = None) -> str:
    """The template unit for an account, with the state folder of its router. Raises ``ValueError``.

    ``runner`` is the file ``run_job.py`` of the installation that ``python`` belongs to, by default this one's.
    """
    runner = runner or Path(str(files("llm_router.host.supervisors") / "run_job.py"))
    filled = {"PYTHON": python, "RUNNER": runner, "JOBS": jobs_folder(state)}
    for path in filled.values():
        if not _PLAIN_PATH.fullmatch(str(path)):
            raise ValueError(
                f"cannot write the unit for {path}: the path must be absolute, of plain letters and without blanks"
            )
    return _filled(TEMPLATE_FILE, ACCOUNT=_checked(account), **{name: str(path) for name, path in filled.items()})


def account_of(template: str) -> str:
    """Whose engines the instances of an installed template are: its ``User=``, root if it names nobody."""
    named: list[str] = re.findall(r"^User=(.*)$", template, re.MULTILINE)
    # The last word counts, and an empty one takes back those before it (systemd.syntax(7)).
    return (named[-1].strip() if named else "") or "root"


def rule(account: str, services: Iterable[str] = ()) -> str:
    """The polkit rule that lets the account start its engines and these services. Raises ``ValueError``."""
    given = list(services)
    for service in given:
        if not is_service(service):
            raise ValueError(f"cannot write the rule for {service!r}: it is no name of a service")
    names = json.dumps([service_name(service) for service in given])
    return _filled(RULE_FILE, ACCOUNT=_checked(account), SERVICES=names)


def services_of(rule: str) -> frozenset[str] | None:
    """The services that an installed rule lets be steered, by their whole names; ``None`` if it does not list them."""
    listed = re.search(r"^\s*var services = (\[.*\]);\s*$", rule, re.MULTILINE)
    try:
        names = json.loads(listed[1]) if listed else None
    except ValueError:
        return None
    return None if names is None else frozenset(map(str, names))


def _checked(account: str) -> str:
    if not _ACCOUNT.fullmatch(account) or account == "root":
        raise ValueError(f"cannot write the rule for {account!r}: it must be the name of a plain account")
    return account


def _filled(name: str, **values: str) -> str:
    text = (files("llm_router.host.supervisors") / "files" / name).read_text()
    return re.sub(r"@([A-Z]+)@", lambda found: values[found[1]], text)
