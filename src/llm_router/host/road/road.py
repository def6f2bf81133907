"""What all exchanges share: limits, the desk, the connections to the instances, one clock for all waits.

It knows who is on the road so that one timer serves all of them. It refuses to know HTTP and scheduling.
"""

import asyncio
import itertools
import secrets
from collections.abc import Callable
from typing import Final, Protocol

from msgspec import Struct

from llm_router.host.desk import Desk
from llm_router.host.road.upstream import Pools
from llm_router.wire.errors import Fault
from llm_router.wire.heads import Headers
from llm_router.wire.join import Joiner, joiner
from llm_router.wire.manners import Manners

_SWEEP_S: Final = 1.0


class Limits(Struct, frozen=True):
    """Limits and habits of the road. Sizes in bytes, times in seconds.

    ``waiting_bytes`` bounds the bodies of all requests that are held at a time. ``head_s`` is the time for a
    head, ``body_s`` the longest pause in a body, ``first_s`` the time for the first byte on a connection,
    ``idle_s`` the rest between two requests. ``commit_s``: a wait shorter than this stays unseen.
    ``again_s`` is the pause before a request that met a dead engine asks again.
    ``grace_s`` is what running answers get at a shutdown. ``origins`` are web origins besides this
    machine's. ``trust_pages``: engines' web pages may act as the router's own.
    """

    max_body: int = 64 * 1024 * 1024
    big_body: int = 128 * 1024
    waiting_bytes: int = 1024 * 1024 * 1024
    max_head: int = 64 * 1024
    max_line: int = 16 * 1024
    max_headers: int = 128
    max_connections: int = 4096
    first_s: float = 60.0
    head_s: float = 20.0
    body_s: float = 60.0
    idle_s: float = 75.0
    commit_s: float = 0.05
    status_s: float = 5.0
    silence_s: float = 8.0
    note_s: float = 3.0
    again_s: float = 0.1
    grace_s: float = 30.0
    origins: tuple[str, ...] = ()
    trust_pages: bool = False


class Visitor(Struct, frozen=True):
    """Who asks, as far as it was found out: a word for the history and the line, and a priority.

    ``models`` are the only ones it may use, ``None``: any. ``status`` is how it wants to be told of a wait, ``""``
    if its key does not say. ``background``: nobody waits for its requests. ``operator``: it may see logs.
    """

    caller: str
    priority: int = 0
    models: tuple[str, ...] | None = None
    status: str = ""
    background: bool = False
    operator: bool = False


class Guard(Protocol):
    """Lets requests in. Called with the head, before the body is read; it must return at once."""

    def __call__(self, path: str, headers: Headers, peer: str) -> Visitor | Fault: ...


class Ticking(Protocol):
    """Something that wants to look at the clock about once a second."""

    def tick(self, now: float) -> None: ...


class Ending(Ticking, Protocol):
    """An exchange that can be told to end."""

    def shut_down(self) -> None: ...


def open_guard(path: str, headers: Headers, peer: str) -> Visitor:  # noqa: ARG001  a guard that asks nothing
    """Lets everybody in. A chat is one caller, if the client says which chat it is; else its address is."""
    for name, value in headers:
        if name in (b"x-router-chat", b"x-openwebui-chat-id") and value:
            return Visitor("chat:" + value.decode("latin-1")[:64])
    return Visitor(peer)


class Road:
    """The shared state of all exchanges of one server."""

    def __init__(
        self,
        desk: Desk,
        limits: Limits | None = None,
        *,
        pools: Pools | None = None,
        guard: Guard = open_guard,
        manners: Manners | None = None,
        join: Callable[[str], Joiner | None] = joiner,
    ) -> None:
        self.desk = desk
        self.limits = limits or Limits()
        self.pools = pools or Pools()
        self.guard = guard
        #: Replaced as a whole when the configuration changes.
        self.manners = manners or Manners()
        self.join = join
        self.held_bytes = 0
        self.exchanges: set[Ending] = set()
        self._fronts: set[Ticking] = set()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count(1)

    def new_id(self) -> str:
        """An id for a request that brought none; unique for this and, very likely, for all routers."""
        return f"{self._prefix}{next(self._numbers):08x}"

    def join_in(self, front: Ticking) -> None:
        """A connection wants the clock until ``leave``."""
        self._fronts.add(front)
        if self._timer is None:
            self._timer = self._loop.call_later(_SWEEP_S, self._sweep)

    def leave(self, front: Ticking) -> None:
        """The connection is gone."""
        self._fronts.discard(front)

    def connections(self) -> int:
        """How many connections from clients there are."""
        return len(self._fronts)

    def _sweep(self) -> None:
        now = self._loop.time()
        for front in tuple(self._fronts):
            front.tick(now)
        self._timer = self._loop.call_later(_SWEEP_S, self._sweep) if self._fronts else None

    def call_later(self, delay_s: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        """Call something once, later."""
        return self._loop.call_later(delay_s, call)

    def end_all(self) -> None:
        """The time for running answers is over."""
        for exchange in tuple(self.exchanges):
            exchange.shut_down()

    async def aclose(self) -> None:
        """Stop the clock and close the connections to the instances."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await self.pools.aclose()
