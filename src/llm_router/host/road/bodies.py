"""The bodies of requests: how one is read, and how many bytes of all are held.

It knows the limits for one body and for all together. Bytes count once they are there: to claim them is too cheap. It
refuses to know connections and what a body says.
"""

from typing import Final

from llm_router.host.road.admission import too_large
from llm_router.host.road.bigbody import BigBody, Owner
from llm_router.host.road.incoming import Request
from llm_router.host.road.road import Road
from llm_router.wire.content import NOTHING, Content
from llm_router.wire.errors import Fault

_NO_ROOM: Final = Fault(503, "too_much_waiting", "cannot hold more requests: try again later", retry_after_s=5)


def let_go(road: Road, request: Request) -> None:
    """The request's body is not wanted any more."""
    request.content = NOTHING
    road.held_bytes -= request.held
    request.held = 0


class Intake:
    """The body that one connection is reading, if it is one for an engine. The faults it gives refuse the request."""

    __slots__ = ("_road", "big", "request")

    def __init__(self, road: Road) -> None:
        self._road = road
        #: Whose body it is, ``None`` between two and for the application's.
        self.request: Request | None = None
        #: What receives a large body.
        self.big: BigBody | None = None

    def prepare(self, owner: Owner) -> Fault | None:
        """It is the request's turn: a large body of known length is received into one buffer."""
        request, road = self.request, self._road
        assert request is not None
        length = int(request.fields.get(b"content-length") or 0)
        if length > road.limits.big_body and not request.held:  # else its beginning came behind another request
            if road.held_bytes + length > road.limits.waiting_bytes:
                return _NO_ROOM
            self.big = BigBody(owner, length)
        return None

    def add(self, piece: bytes) -> Fault | None:
        """A piece of the body, from the parser."""
        request, big = self.request, self.big
        assert request is not None
        most = self._road.limits.max_body
        if big is None and request.held + len(piece) > most:
            return too_large(most)
        fault = self.count(len(piece))
        if fault is None:
            (big or request).add(piece)
        return fault

    def count(self, size: int) -> Fault | None:
        """So many more bytes are there."""
        request, road = self.request, self._road
        assert request is not None
        if road.held_bytes + size > road.limits.waiting_bytes:
            return _NO_ROOM
        road.held_bytes += size
        request.held += size
        return None

    def close(self) -> Request | None:
        """The body is whole."""
        request, big = self.request, self.big
        self.request = self.big = None
        if request is not None:
            if big is not None:
                request.content = Content(big.body)
            request.close()
        return request

    def drop(self) -> Request | None:
        """Nothing more of it is read, and nothing of it is wanted."""
        request = self.request
        self.request = self.big = None
        if request is not None:
            let_go(self._road, request)
        return request
