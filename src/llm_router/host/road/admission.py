"""Who and what is let in, judged by a request's head alone: before its body is read, before anybody waits.

It knows what llhttp lets through and the road does not, which web pages may ask, and whom to ask about keys. It
refuses to know models.
"""

from collections.abc import Mapping
from typing import Final

import httptools

from llm_router.host.road.incoming import Request
from llm_router.host.road.road import Guard, Limits
from llm_router.wire import access, heads, paths
from llm_router.wire.errors import Fault
from llm_router.wire.heads import Headers

#: Addresses that are read already: clients ask for few, again and again.
_KNOWN: Final[dict[bytes, paths.Route]] = {}
_KNOWN_LIMIT: Final = 256


def bad(message: str, code: str = "bad_request", status: int = 400) -> Fault:
    """A fault of the client's."""
    return Fault(status, code, message, "invalid_request_error")


def too_large(limit: int) -> Fault:
    """The body has more than ``limit`` bytes."""
    return bad(f"cannot take the request: its body is larger than {limit} bytes", "body_too_large", 413)


def judge(version: str, hosts: int, url: bytes) -> Fault | None:
    """What every request must be, for an engine or not. ``hosts`` is how many Host headers it has."""
    if version not in ("1.1", "1.0"):
        return bad("cannot read the request: it is not HTTP/1.1", "http_version", 505)
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        return bad("cannot read the request: it must have exactly one Host header")
    if not url.startswith((b"/", b"http://", b"https://")):
        return bad("cannot read the request: its address is neither a path nor a URL")
    return None


def meant_for_engine(method: bytes, url: bytes, headers: Headers, fields: Mapping[bytes, bytes]) -> Request | None:
    """The request, if it is one for an engine or a browser's preflight, which has an empty route; else ``None``."""
    if access.is_preflight(method, headers):
        return Request(paths.Route(b""), method, b"", b"", headers, fields)
    route = _KNOWN.get(url)
    if route is not None:
        return Request(route, method, url, b"", headers, fields)
    address = httptools.parse_url(url)
    route = paths.route(address.path)
    if route is None:
        return None
    if not route.raw and address.path == url and len(_KNOWN) < _KNOWN_LIMIT:
        _KNOWN[url] = route
    return Request(route, method, address.path, address.query or b"", headers, fields)


def admit(request: Request, limits: Limits, guard: Guard) -> Fault | None:
    """Judge the head of a request for an engine; what it tells of itself is written into the request."""
    fields = request.fields
    origin = fields.get(b"origin", b"")
    host = fields.get(b"host", b"").decode("latin-1")
    if origin and not access.allowed(origin.decode("latin-1"), host, limits.origins):
        text = f"cannot serve pages of {origin.decode('latin-1')}: allow them under `server.cors_origins`"
        return bad(text, "origin_not_allowed", 403)
    request.origin = origin
    request.ident = heads.request_id(fields.get(b"x-request-id", b""))
    length = fields.get(b"content-length")
    if length and int(length) > limits.max_body:
        return too_large(limits.max_body)
    if not request.route.path:
        return None
    if request.route.api is not paths.Api.other and request.method != b"POST":
        return bad(f"cannot {request.method.decode()} here: send a POST", "method_not_allowed", 405)
    visitor = guard(request.path.decode("latin-1"), request.headers, request.peer)
    if isinstance(visitor, Fault):
        return visitor
    request.visitor = visitor
    return None
