"""Who may do what: keys, loopback, and pages of other sites.

Without keys in the configuration everybody who can reach the router may use it, and people type any key
into their clients; it is ignored. State is changed only with an admin key or, where there are no keys, from
this machine. Keys are compared by hash, in constant time, and never kept, logged or passed on.
"""

import functools
import hmac
import ipaddress
from collections.abc import Iterable
from typing import Final

from msgspec.structs import replace

from llm_router.config.schema import Key
from llm_router.config.values import hashed
from llm_router.host.road.road import Visitor, open_guard
from llm_router.wire.errors import Fault
from llm_router.wire.heads import Headers, value_of

#: Tried keys are not longer than this; hashing something longer would only cost time.
LONGEST: Final = 1024

NO_KEY: Final = Fault(
    401,
    "invalid_api_key",
    "cannot serve the request: it has no key that this router knows; send it as `Authorization: Bearer KEY`",
    kind="authentication_error",
)
NOT_ADMIN: Final = Fault(
    403, "not_permitted", "cannot do this with this key: it is not an admin key", kind="permission_error"
)
NOT_LOCAL: Final = Fault(
    403,
    "not_permitted",
    "cannot change the router's state from another machine without keys; configure `keys` under `server`",
    kind="permission_error",
)
FOREIGN_PAGE: Final = Fault(
    403,
    "foreign_origin",
    "cannot do this for a page of another site; add its origin to `cors_origins` under `server` if it is yours",
    kind="permission_error",
)


def offered(headers: Headers) -> str:
    """The key a request brings, ``""`` if none: a bearer, a basic word for word, or ``x-api-key``."""
    bearer = value_of(headers, b"authorization").decode("latin-1")
    kind, _, value = bearer.partition(" ")
    if value and kind.lower() == "bearer":
        return value.strip()
    return value_of(headers, b"x-api-key").decode("latin-1").strip()


def match(keys: Iterable[Key], text: str) -> Key | None:
    """The configured key that this text is. All are compared, so that time tells nothing."""
    found = None
    digest = hashed(text) if 0 < len(text) <= LONGEST else ""
    for key in keys:
        if hmac.compare_digest(key.key.encode(), digest.encode()):
            found = key
    return found


class Guard:
    """Lets model requests in (see ``host.road.Guard``) and says who may change the router's state."""

    def __init__(self, keys: tuple[Key, ...]) -> None:
        self.keys = keys

    def __call__(self, path: str, headers: Headers, peer: str) -> Visitor | Fault:
        visitor = open_guard(path, headers, peer)
        if not self.keys:
            return replace(visitor, operator=is_loopback(peer))
        key = match(self.keys, offered(headers))
        if key is None:
            return NO_KEY
        return Visitor(
            visitor.caller if visitor.caller != peer else f"{key.name or 'key'}@{peer}",
            models=key.models,
            status=key.status or "",
            background=key.background,
            operator=key.admin,
        )

    def sees(self, headers: Headers) -> tuple[str, ...] | None:
        """The names of the only models that this request may see and use, ``None``: all."""
        key = match(self.keys, offered(headers)) if self.keys else None
        return key.models if key is not None else None

    def reader(self, headers: Headers) -> Fault | None:
        """May this request look at the router?"""
        return None if not self.keys or match(self.keys, offered(headers)) else NO_KEY

    def operator(self, headers: Headers, peer: str) -> Fault | None:
        """May this request change the router's state?"""
        if not self.keys:
            return None if is_loopback(peer) else NOT_LOCAL
        key = match(self.keys, offered(headers))
        if key is None:
            return NO_KEY
        return None if key.admin else NOT_ADMIN


@functools.lru_cache(maxsize=1024)  # asked for every request, and few clients there are
def is_loopback(peer: str) -> bool:
    """Whether the other end is on this machine. A Unix socket has no address: only this machine can reach it."""
    if not peer:
        return True
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return address.is_loopback or (mapped is not None and mapped.is_loopback)
