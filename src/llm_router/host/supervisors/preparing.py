"""The files around an existing unit: looked at before anything is stopped for a start, then put as they must be.

A drop-in of ours replaces the unit's command; a configuration of the operator's is edited in the values that are
ours to say. Blocking; every refusal is a sentence for people. It speaks to no bus.
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from llm_router.engines.engine import Launch
from llm_router.host.service import installation
from llm_router.host.service.installation import InstallationError
from llm_router.host.supervisors import units
from llm_router.host.supervisors.manager import Scope
from llm_router.host.supervisors.supervisor import SupervisorError

log = logging.getLogger(__name__)

DROP_IN: Final = "50-llm-router.conf"


def drop_in_folder(scope: Scope, place: str, environment: Mapping[str, str]) -> Path:
    """Where drop-ins of the scope belong; ``place`` is ``run`` (until the next boot) or ``etc``."""
    if scope == "system":
        return Path("/run/systemd/system" if place == "run" else "/etc/systemd/system")
    if place == "etc":
        return Path(environment.get("XDG_CONFIG_HOME") or Path.home() / ".config", "systemd/user")
    return Path(environment.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}", "systemd/user")


def check(launch: Launch, drop_ins: Path, folder: str) -> None:
    """Whether ``prepare`` could do its work. ``folder`` is the unit's own. Raises ``SupervisorError``."""
    if launch.argv:
        _check_script(launch)
        _check_rights(launch, drop_ins)
    if launch.edit is not None:
        try:
            installation.check(launch.edit, installation.locate(launch.edit.file, os.environ, folder))
        except InstallationError as error:
            raise SupervisorError(str(error)) from None


def prepare(launch: Launch, drop_ins: Path, folder: str, model: str) -> bool:
    """Put the files as they must be; gives whether systemd must be told. Raises ``SupervisorError``."""
    if launch.edit is not None:
        try:
            path = installation.locate(launch.edit.file, os.environ, folder)
            if installation.apply(launch.edit, path):
                log.info("edited %s for %s", path, model)
        except InstallationError as error:
            raise SupervisorError(str(error)) from None
    place = drop_ins / f"{launch.unit}.d" / DROP_IN
    try:
        return _write(place, units.drop_in(launch.argv, model)) if launch.argv else _remove(place)
    except OSError as error:
        raise SupervisorError(f"cannot write {place}: {error.strerror or error}; change its rights") from None


def _check_script(launch: Launch) -> None:
    script = Path(launch.argv[0])
    if not script.is_file():
        raise SupervisorError(f"cannot use {launch.unit}: there is no script {script}; correct `script`")
    if not os.access(script, os.X_OK):
        raise SupervisorError(
            f"cannot use {launch.unit}: the script {script} may not be executed; type: chmod +x {script}"
        )


def _check_rights(launch: Launch, drop_ins: Path) -> None:
    """The nearest folder that there is must be ours to write."""
    place = drop_ins / f"{launch.unit}.d"
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK):
        raise SupervisorError(
            f"cannot replace the command of {launch.unit}: this account may not write {place}; run the router as root,"
            " or leave `script` out, then the unit's own command is used"
        )


def _write(place: Path, content: bytes) -> bool:
    place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    new = place.with_name(f".{place.name}.new")
    new.write_bytes(content)
    new.chmod(0o644)
    new.replace(place)
    return True


def _remove(place: Path) -> bool:
    """Take back what another model of the same unit needed."""
    try:
        place.unlink()
    except FileNotFoundError:
        return False
    return True
