"""Which supervisor runs the engines here: as configured, or by what this machine and this account allow.

It looks at the machine and builds; what the supervisors do is theirs.
"""

import logging
import os
import pwd
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from llm_router.host.supervisors import packaging
from llm_router.host.supervisors.both import Supervisors
from llm_router.host.supervisors.child import ChildSupervisor, Policy
from llm_router.host.supervisors.manager import Manager, Scope
from llm_router.host.supervisors.preparing import drop_in_folder
from llm_router.host.supervisors.service import ServiceSupervisor
from llm_router.host.supervisors.supervisor import Supervisor, SupervisorError
from llm_router.host.supervisors.systemd import SystemdSupervisor

log = logging.getLogger(__name__)

Word = Literal["auto", "child", "systemd"]

#: systemd runs as this machine's manager where this folder exists (sd_booted(3)).
BOOTED: Final = Path("/run/systemd/system")
_TEMPLATES: Final = (packaging.TEMPLATE_PLACE, Path("/usr/lib/systemd/system", packaging.TEMPLATE_FILE))


def choose(
    word: Word,
    state: Path,
    policy: Policy,
    environment: Mapping[str, str],
    *,
    units: Scope = "system",
    drop_ins: str = "run",
) -> Supervisors:
    """The supervisors for the configured word, the state folder, and whose ``units`` the models may name.

    ``policy`` is for children only: units of systemd outlive a router that dies, and are adopted. Raises
    ``SupervisorError`` when systemd is asked for and cannot be had.
    """
    services = ServiceSupervisor(state, Manager(units), drop_in_folder(units, drop_ins, environment))
    return Supervisors(_owned(word, state, policy, environment), services)


def _owned(word: Word, state: Path, policy: Policy, environment: Mapping[str, str]) -> Supervisor:
    if word == "child" or (word == "auto" and not is_a_unit(environment)):
        return ChildSupervisor(state, policy)
    try:
        return _by_systemd(state, environment)
    except SupervisorError as error:
        if word == "systemd":
            raise
        log.info("%s; the engines are children of the router", error)
        return ChildSupervisor(state, policy)


def is_a_unit(environment: Mapping[str, str]) -> bool:
    """Whether systemd started this very process (systemd.exec(5), ``$SYSTEMD_EXEC_PID``)."""
    return environment.get("SYSTEMD_EXEC_PID") == str(os.getpid())


def _by_systemd(state: Path, environment: Mapping[str, str]) -> Supervisor:
    if os.geteuid() == 0:
        if not BOOTED.is_dir():
            raise SupervisorError("cannot use the supervisor systemd: this machine was not booted by it")
        return SystemdSupervisor(state, Manager("system"))
    owner = next((packaging.account_of(path.read_text()) for path in _TEMPLATES if path.exists()), None)
    if owner is not None and owner in _names_of(os.geteuid()):
        return SystemdSupervisor(state, Manager("system"), "template")
    runtime = environment.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    if Path(runtime, "systemd/private").exists() and Path(runtime, "bus").exists():
        return SystemdSupervisor(state, Manager("user"))
    template = "is not installed ('llm-router install' does it)" if owner is None else f"is for the account {owner!r}"
    raise SupervisorError(
        "cannot use the supervisor systemd: this account has no user manager (type: loginctl enable-linger), and the"
        f" template {packaging.TEMPLATE_FILE} {template}"
    )


def _names_of(uid: int) -> frozenset[str]:
    """What a unit's ``User=`` may say of this account."""
    try:
        return frozenset({str(uid), pwd.getpwuid(uid).pw_name})
    except KeyError:
        return frozenset({str(uid)})
