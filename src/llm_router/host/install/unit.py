"""The text of the router's own unit, for what it will have to do. It writes nothing.

Why each line is there stands in the unit itself, for the one who reads it with ``systemctl cat``.
"""

import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final, Literal

from llm_router.host.install.layout import Layout
from llm_router.host.install.machine import InstallError

Engines = Literal["units", "children"]
"""How engines run: each in a unit of its own, or as children within the router's unit."""

#: Specifiers (%), variables ($), quotes and blanks mean something in a unit; no path of ours needs them.
_PLAIN_PATH: Final = re.compile(r"/[A-Za-z0-9._/@+=,-]*")

_STRICT: Final = """\
# Nothing can be written but the state folder.
ProtectSystem=strict"""
_FULL: Final = """\
# /usr, /boot and /etc are read-only. The rest is not, because {why}.
ProtectSystem=full"""
_NO_RIGHTS: Final = """\
# No right of root at all, also not by inheritance.
CapabilityBoundingSet=
"""
_RIGHTS: Final = """\
# It is root, to start any unit and to replace commands of units; these rights of root it does not need.
CapabilityBoundingSet=~CAP_SYS_MODULE CAP_SYS_BOOT CAP_SYS_RAWIO CAP_SYS_TIME CAP_SYS_ADMIN CAP_NET_ADMIN CAP_SYSLOG
"""
_OOM: Final = """\
# An engine that the kernel ends for want of memory is told by the router; the others, and the router, go on.
OOMPolicy=continue
"""
_NAMESPACES: Final = """\
# No namespaces of its own.
RestrictNamespaces=yes
"""


@dataclass(frozen=True, slots=True)
class Service:
    """What the unit is made for. ``stop_s``: how long the router may take to end, in seconds.

    ``edits``: it has files of somebody else to edit, such as TabbyAPI's ``config.yml``.
    """

    python: Path
    config: Path
    stop_s: int
    account: str = ""
    engines: Engines = "units"
    edits: bool = False


def text(service: Service, layout: Layout) -> str:
    """The unit's text. Raises ``InstallError`` for a path that a unit cannot hold as it is."""
    filled = {
        "PYTHON": _checked(service.python),
        "CONFIG": _checked(service.config),
        "STATE": _checked(layout.state),
        "ACCOUNT": service.account,
        "STOP_S": str(service.stop_s),
        "RIGHTS": _RIGHTS if service.account == "root" else _NO_RIGHTS,
        "OOM": _OOM if service.engines == "children" else "",
        "SYSTEM": _system(service),
        "PRIVATE_TMP": "no" if _needs_tmp(service, layout) else "yes",
        "NAMESPACES": _NAMESPACES if service.engines == "units" else "",
    }
    name = "llm-router.service" if layout.scope == "system" else "llm-router-user.service"
    raw = (files("llm_router.host.install") / "files" / name).read_text(encoding="utf-8")
    return re.sub(r"@([A-Z_]+)@", lambda found: filled[found[1]], raw)


def _needs_tmp(service: Service, layout: Layout) -> bool:
    """Whether the service would not find its own program, configuration or state in a /tmp of its own."""
    needed = (service.python, service.config, layout.state)
    return any(path.is_relative_to(tmp) for path in needed for tmp in ("/tmp", "/var/tmp"))  # noqa: S108 - compared only


def _system(service: Service) -> str:
    if service.account == "root":
        return _FULL.format(why="drop-ins of existing units are written") + "\nReadWritePaths=-/etc/systemd/system"
    if service.engines == "children":
        return _FULL.format(why="engines write beside their own programs and models")
    return _FULL.format(why="files of existing engines are edited") if service.edits else _STRICT


def _checked(path: Path) -> str:
    if not _PLAIN_PATH.fullmatch(str(path)):
        raise InstallError(
            f"cannot write the unit for {str(path)!r}: a path in it must be absolute, of plain letters and without blanks"
        )
    return str(path)
