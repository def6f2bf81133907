"""Where Open WebUI runs, and what follows from it: addresses to listen on, whether a key is needed, what to type in.

Facts: Docker's ``host-gateway`` is the address of its first bridge (docker0); Podman's rootful network has podman0.
Rootless containers reach the host by an address that no interface of the host has, so that one must be told.
"""

import json
from dataclasses import dataclass
from typing import Final, Literal

import psutil

Where = Literal["host", "container", "remote"]

#: The first bridge of each container engine, in the order in which they are looked for.
BRIDGES: Final = ("docker0", "podman0", "cni-podman0", "lxdbr0")
ANYWHERE: Final = "0.0.0.0"  # noqa: S104 - only with keys
#: Headers that tell a chat's turn from its title and tags; Open WebUI fills in what stands in double braces.
HEADERS: Final = {
    "X-Router-Client": "open-webui",
    "X-Router-Task": "{{TASK}}",
    "X-Router-Chat": "{{CHAT_ID}}",
    "X-Router-Message": "{{MESSAGE_ID}}",
}


@dataclass(frozen=True, slots=True)
class Bridge:
    """A bridge of containers, with this host's address on it."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class Network:
    """What is to be said of the network. ``bridge`` is this host's address for containers; no port: as configured."""

    where: Where = "host"
    bridge: str = ""
    port: int | None = None


THIS_HOST: Final = Network()


def bridge() -> Bridge | None:
    """The bridge by which containers reach this host; ``None`` if none is up."""
    found = psutil.net_if_addrs()
    for name in BRIDGES:
        for address in found.get(name, ()):
            if address.family.name == "AF_INET":
                return Bridge(name, address.address)
    return None


def connection(network: Network, port: int, *, host_name: str, key: str | None = None) -> str:
    """What to enter in Open WebUI, to which the router listens at ``port``; with no key any word will do."""
    host = {"host": "127.0.0.1", "container": network.bridge, "remote": host_name}[network.where]
    lines = [
        "In Open WebUI: Admin Panel, Settings, Connections, OpenAI API, +",
        f"  URL      http://{host}:{port}/v1",
        f"  Key      {key or 'any word: this router asks for none'}",
        f"  Headers  {json.dumps(HEADERS)}",
    ]
    if network.where == "container":
        lines.append(
            f"  (http://host.docker.internal:{port}/v1 works too, for a container started with "
            "--add-host=host.docker.internal:host-gateway)"
        )
    return "\n".join(lines)
