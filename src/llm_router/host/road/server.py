"""Makes the server: uvicorn with the fast lane, the application beside it, and an end that is not rude.

It knows how a server is put together and shut down. It refuses to know what the application does.
"""

import contextlib
from collections.abc import Iterator
from socket import socket
from typing import Any, Final

import uvicorn
from starlette.middleware.cors import CORSMiddleware

from llm_router.host.road.front import Front, RoadConfig
from llm_router.host.road.road import Road
from llm_router.wire import access

#: What is left between the end of the running answers and the end of the server, in seconds.
_LAST_S: Final = 2
_BACKLOG: Final = 2048


class Server(uvicorn.Server):
    """uvicorn's server; its running answers get their time, then an error, then the end."""

    def __init__(self, config: RoadConfig, signals: bool) -> None:
        super().__init__(config)
        self._road = config.road
        self._signals = signals

    @property
    def port(self) -> int:
        """The port it listens on (the first, if there are several). Only after ``started``."""
        address = self.servers[0].sockets[0].getsockname()
        return int(address[1])

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if not self._signals:
            yield
            return
        with super().capture_signals():
            yield

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        road = self._road
        timer = road.call_later(0.0 if self.force_exit else road.limits.grace_s, road.end_all)
        try:
            await super().shutdown(sockets)
        finally:
            timer.cancel()
            await road.aclose()


def make_server(
    app: Any, road: Road, *, host: str = "127.0.0.1", port: int = 8002, signals: bool = True, **more: Any
) -> Server:
    """A server for the road and the ASGI application ``app``; run it with ``await server.serve(sockets=None)``.

    ``server.should_exit = True`` ends it: running answers get ``Limits.grace_s`` seconds. ``signals``: SIGINT
    and SIGTERM do the same. ``more`` are uvicorn's own settings (TLS, for example). Raises nothing; a port
    that is in use ends ``serve`` with ``SystemExit``, as uvicorn has it, so give sockets to be told otherwise.
    """
    limits = road.limits
    open_app = CORSMiddleware(
        app,
        allow_origins=list(limits.origins),
        allow_origin_regex=access.LOOPBACK,
        allow_methods=["*"],
        allow_headers=["*"],
        expose_headers=list(access.EXPOSED),
    )
    config = RoadConfig(
        open_app,
        host=host,
        port=port,
        http=Front,
        ws="none",
        loop="auto",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=int(limits.grace_s) + _LAST_S,
        **more,
    )
    config.road = road
    return Server(config, signals)
