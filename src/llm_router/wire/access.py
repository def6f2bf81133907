"""Which web pages may speak to the router from a browser (the Fetch standard's CORS protocol).

A page of another origin could make the router load models behind the user's back, so that only origins on
this machine, the router's own and those of the configuration are let in. Programs send no ``Origin``.
"""

import re
from collections.abc import Collection
from typing import Final

from llm_router.wire.heads import Headers, value_of

#: Origins on this machine, whatever their port.
LOOPBACK: Final = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?"
_LOOPBACK: Final = re.compile(LOOPBACK)
_ADDRESS: Final = re.compile(r"\d{1,3}(\.\d{1,3}){3}")
_LOCAL: Final = (".local", ".lan", ".internal", ".home.arpa", ".localhost")
_EXPOSED: Final = (
    "x-request-id, retry-after, x-llm-router-model, x-llm-router-instance, x-llm-router-waited, "
    "x-llm-router-loaded, x-llm-router-overhead, x-llm-router-tokens, x-llm-router-tokens-per-second, "
    "x-llm-router-prompt-tokens, x-llm-router-prompt-tokens-per-second, x-llm-router-changed, x-llm-router-steered, "
    "x-llm-router-keep-alive"
)
EXPOSED: Final = tuple(_EXPOSED.split(", "))


def allowed(origin: str, host: str, origins: Collection[str]) -> bool:
    """Whether a page of ``origin`` may use the router that it reached as ``host``. ``*`` in ``origins``: any."""
    if "*" in origins or origin in origins or _LOOPBACK.fullmatch(origin):
        return True
    return bool(host) and origin.partition("://")[2] == host and _is_near(host)


def _is_near(host: str) -> bool:
    """Whether only this network can have given the name: an address, a bare name, or a domain for local use.

    Any other name may have been pointed at this machine by the page's own server (DNS rebinding).
    """
    name = host.removeprefix("[").partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return "." not in name or name.endswith(_LOCAL) or bool(_ADDRESS.fullmatch(name))


def is_preflight(method: bytes, headers: Headers) -> bool:
    """Whether a browser asks for permission before the request itself."""
    return method == b"OPTIONS" and value_of(headers, b"access-control-request-method") != b""


def preflight(origin: bytes, headers: Headers) -> list[bytes]:
    """The header lines that permit what a browser asks for."""
    wanted = value_of(headers, b"access-control-request-headers") or b"authorization, content-type"
    lines = [*answer(origin)]
    lines.append(b"access-control-allow-methods: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n")
    lines.append(b"access-control-allow-headers: %b\r\naccess-control-max-age: 600\r\n" % wanted)
    if value_of(headers, b"access-control-request-private-network") == b"true":
        lines.append(b"access-control-allow-private-network: true\r\n")
    return lines


def answer(origin: bytes) -> list[bytes]:
    """The header lines that let the page of ``origin`` read an answer."""
    return [
        b"access-control-allow-origin: %b\r\nvary: origin\r\naccess-control-expose-headers: %b\r\n"
        % (origin, _EXPOSED.encode())
    ]
