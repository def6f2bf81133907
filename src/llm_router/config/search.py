"""Where a configuration may stand, in the order in which it is looked for.

This file knows the places. It does not look whether anything is there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file or folder to try. ``asked``: somebody named it, so its absence is an error and ends the search."""

    path: str
    origin: str
    asked: bool = False


def candidates(explicit: str | None, env: Mapping[str, str], cwd: str, home: str) -> tuple[Candidate, ...]:
    """The places to try, first one first. Relative paths are below ``cwd``."""
    named = (
        (explicit, "--config"),
        (env.get("LLM_ROUTER_CONFIG"), "$LLM_ROUTER_CONFIG"),
        (env.get("ROUTER_CONFIG"), "$ROUTER_CONFIG"),
    )
    for path, origin in named:
        if path:
            return (Candidate(_absolute(path, cwd, home), origin, asked=True),)
    config_home = env.get("XDG_CONFIG_HOME") or f"{home}/.config"
    places = [
        (f"{cwd}/llm-router.yml", "the current folder"),
        (f"{config_home}/llm-router/config.yml", "your configuration folder"),
        ("/etc/llm-router", "the system's configuration folder"),
        ("/opt/llm-router/config.json", "the folder of an older installation"),
    ]
    return tuple(Candidate(str(PurePosixPath(path)), origin) for path, origin in places)


def _absolute(path: str, cwd: str, home: str) -> str:
    if path == "~" or path.startswith("~/"):
        path = home + path[1:]
    return str(PurePosixPath(cwd) / path)
