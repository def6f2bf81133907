"""A request as its engine gets it: a head that is written anew, and a body.

It knows what the router adds and by which name the engine knows its model. It refuses to know when it is sent and what
comes back.
"""

from llm_router.host.desk import Lease
from llm_router.host.road.connection import Receiver, Sending
from llm_router.host.road.hearing import Asking, Hearing
from llm_router.host.road.incoming import Request
from llm_router.host.road.upstream import authority
from llm_router.wire import heads, order
from llm_router.wire.order import Order


def sending(request: Request, asking: Asking, lease: Lease, ident: str, receiver: Receiver) -> Sending:
    """What is sent to the engine of ``lease``; ``receiver`` gets the answer."""
    body = asking.body
    length = len(body) if body or request.method in (b"POST", b"PUT", b"PATCH") else None
    head = _head(request, asking.order, asking.path, lease, ident, length)
    return Sending(head, body, receiver, no_body=request.method == b"HEAD")


def switch(request: Request, hearing: Hearing, lease: Lease, ident: str) -> bytes:
    """The head that asks the engine for another protocol."""
    return _head(request, hearing.order, hearing.path, lease, ident, None)


def _head(request: Request, found: Order, path: bytes, lease: Lease, ident: str, length: int | None) -> bytes:
    extra = {**heads.encoded(lease.dialect.headers), b"x-request-id": ident.encode()}
    if found.asked.json:
        extra[b"content-type"] = b"application/json"
    return heads.request_head(
        request.method,
        order.target_for(found, path, lease.dialect, lease.model),
        request.headers,
        authority(lease.host, lease.port),
        length,
        extra=extra,
        upgrade=request.upgrade,
    )
