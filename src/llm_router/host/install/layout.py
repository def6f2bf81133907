"""Where an installation puts things, for the whole machine or for one account. Values only; it touches nothing."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from llm_router.host.supervisors import units

Scope = Literal["system", "user"]

UNIT: Final = "llm-router.service"
ACCOUNT: Final = "llm-router"
#: What may use the GPUs, and read what systemd kept of an engine's words; those that a host lacks are left out.
GROUPS: Final = ("video", "render", "systemd-journal")
#: Engines of a stopped router end with the slice that they are in.
SLICE: Final = units.SLICE


@dataclass(frozen=True, slots=True)
class Layout:
    """The places. ``config`` is a folder; ``programs`` is where virtual environments are made."""

    scope: Scope
    config: Path
    state: Path
    unit: Path
    programs: Path

    @property
    def systemctl(self) -> tuple[str, ...]:
        return ("systemctl", "--no-ask-password") if self.scope == "system" else ("systemctl", "--user")

    @property
    def log(self) -> tuple[str, ...]:
        """The command that shows the last lines that the router wrote."""
        which = ("--unit",) if self.scope == "system" else ("--user-unit",)
        return ("journalctl", "--no-pager", "--output=cat", "--lines=15", *which, UNIT)


def system() -> Layout:
    """For the whole machine, by the file system hierarchy that Debian and Fedora share."""
    return Layout(
        "system",
        Path("/etc/llm-router"),
        Path("/var/lib/llm-router"),
        Path("/etc/systemd/system", UNIT),
        Path("/opt/llm-router"),
    )


def user(home: Path, environment: dict[str, str]) -> Layout:
    """For one account, by the XDG folders (`XDG_CONFIG_HOME` and friends)."""
    config = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    state = Path(environment.get("XDG_STATE_HOME") or home / ".local/state")
    data = Path(environment.get("XDG_DATA_HOME") or home / ".local/share")
    return Layout(
        "user",
        config / "llm-router",
        state / "llm-router",
        config / "systemd/user" / UNIT,
        data / "llm-router",
    )
