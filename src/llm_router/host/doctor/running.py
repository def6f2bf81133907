"""The router that runs, as its own address tells: whether it answers, what failed, and that it is this version."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import httpx2

from llm_router import __version__
from llm_router.host.doctor.findings import Finding, fail, ok, warn

#: ``/health`` comes from memory; who needs longer is not well (seconds).
_LIMIT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Router:
    """What came back. ``health`` ``None``: nobody answers. ``status`` ``None``: it may not be read without a key."""

    url: str
    health: dict[str, Any] | None = None
    status: dict[str, Any] | None = None
    trouble: str = ""


def look(url: str, key: str | None = None) -> Router:
    """Ask the router at the address. Never raises."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with httpx2.Client(base_url=url, timeout=_LIMIT_S, trust_env=False, headers=headers) as client:
            answer = client.get("/health")
            health = answer.json() if answer.status_code == httpx2.codes.OK else None
            if not isinstance(health, dict) or "current_model" not in health:
                return Router(url, trouble="what answers there is no llm-router")
            answer = client.get("/api/status")
            status = answer.json() if answer.status_code == httpx2.codes.OK else None
            return Router(url, health, status if isinstance(status, dict) else None)
    except httpx2.ConnectError:
        return Router(url)
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        return Router(url, trouble=str(error) or type(error).__name__)


def router(found: Router, *, expected: bool) -> Iterator[Finding]:
    """How the router is. ``expected``: its service runs, so that silence is a failure."""
    if found.trouble:
        yield fail("running", f"the router at {found.url} does not answer as it should: {found.trouble}", "see its log")
        return
    if found.health is None:
        text = f"no router answers at {found.url}"
        remedy = "start it: `llm-router serve`, or its service"
        yield fail("running", text, remedy) if expected else ok("running", f"{text}; it is not started")
        return
    loaded = found.health.get("loaded") or ["no model"]
    yield ok("running", f"the router answers at {found.url}, with {', '.join(map(str, loaded))} loaded")
    if found.status is None:
        yield warn("running", "its status cannot be read without a key", "give one with --key or $LLM_ROUTER_API_KEY")
        return
    theirs = found.status.get("router", {}).get("version")
    if theirs != __version__:
        yield warn("running", f"it is version {theirs}, this command is {__version__}", "restart it after an upgrade")
    for failure in found.status.get("failures", ()):
        yield fail(
            "running",
            f"{failure.get('model')} could not be loaded: {failure.get('cause')}",
            f"`llm-router models show {failure.get('model')}` shows the end of its log",
        )
    for device in found.status.get("devices", ()):
        if device.get("dirty"):
            yield fail(
                "running",
                f"memory of {device.get('name') or device.get('id')} did not come back from an engine that ended",
                "see with nvidia-smi who holds it, and end that process",
            )
