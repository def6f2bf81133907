"""The bodies that are held, of all requests together, against the limit for them.

It knows only how many bytes they are. They count once they are there: to claim them is too cheap.
"""

from llm_router.host.road.incoming import Request
from llm_router.host.road.road import Road
from llm_router.wire.content import NOTHING


def has_room(road: Road, size: int) -> bool:
    """Whether so many more bytes can be held."""
    return road.held_bytes + size <= road.limits.waiting_bytes


def hold(road: Road, request: Request, size: int) -> bool:
    """Count so many more bytes of the request's body; ``False``, and nothing counted, if there is no room."""
    if not has_room(road, size):
        return False
    road.held_bytes += size
    request.held += size
    return True


def let_go(road: Road, request: Request) -> None:
    """The request's body is not wanted any more."""
    request.content = NOTHING
    road.held_bytes -= request.held
    request.held = 0
