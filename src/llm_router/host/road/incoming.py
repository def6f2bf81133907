"""A model request as it came in, and the connection that waits for its answer, as the exchange sees it.

It knows what was received. It refuses to know how it was parsed and what becomes of it.
"""

import asyncio
from collections.abc import Mapping
from typing import Protocol

from llm_router.host.road.road import Visitor
from llm_router.wire.content import NOTHING, Content
from llm_router.wire.errors import Fault
from llm_router.wire.heads import Headers
from llm_router.wire.paths import Route


class Client(Protocol):
    """The connection to the client."""

    @property
    def transport(self) -> asyncio.Transport: ...

    def finished(self, keep: bool) -> None:
        """The exchange is over; ``keep``: the connection may carry the next one."""
        ...


class _Never:
    """Stands where uvicorn keeps an event for tasks that wait for a body: nobody waits for this one."""

    def set(self) -> None:
        """Nothing waits."""


_NEVER = _Never()


class Request:
    """One request for an engine. Also what uvicorn's protocol calls a cycle: it reads and sets the first group."""

    __slots__ = (
        "_pieces",
        "content",
        "disconnected",
        "expects",
        "fault",
        "fields",
        "headers",
        "held",
        "ident",
        "keep_alive",
        "message_event",
        "method",
        "more_body",
        "old",
        "origin",
        "path",
        "peer",
        "query",
        "response_complete",
        "route",
        "started",
        "upgrade",
        "visitor",
    )

    def __init__(
        self,
        route: Route,
        method: bytes,
        path: bytes,
        query: bytes,
        headers: Headers,
        fields: Mapping[bytes, bytes] | None = None,
    ) -> None:
        self.response_complete = False
        self.disconnected = False
        self.keep_alive = True
        self.more_body = True
        self.message_event = _NEVER

        self.route = route
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        #: The headers by name, for those that come once.
        self.fields = dict(headers) if fields is None else fields
        self.content = NOTHING
        #: Bytes of the body that count against the road's limit.
        self.held = 0
        #: HTTP/1.0.
        self.old = False
        #: The client waits for ``100 Continue``.
        self.expects = False
        #: Its turn has come: no earlier answer is outstanding on its connection.
        self.started = False
        #: The protocol that the connection is to be switched to, ``b""`` for none.
        self.upgrade = b""
        self.origin = b""
        #: Why it is refused when its turn comes.
        self.fault: Fault | None = None
        self.ident = ""
        self.peer = ""
        self.visitor = Visitor("")
        self._pieces: list[bytes] = []

    def add(self, piece: bytes) -> None:
        """A piece of the body."""
        self._pieces.append(piece)

    def close(self) -> None:
        """The body is whole."""
        self.more_body = False
        pieces = self._pieces
        if pieces:
            self.content = Content(pieces[0] if len(pieces) == 1 else b"".join(pieces))
            self._pieces = []
