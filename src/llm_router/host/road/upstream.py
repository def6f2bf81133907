"""The connections to all instances: kept between requests, opened when there is none, closed with their instance.

This file knows how long a connection is worth keeping. It refuses to know how answers are framed, what is asked
and whether an instance is well.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from llm_router.host.machine.tasks import Tasks
from llm_router.host.road.connection import Connection, Sending, Trouble

_CONNECT_S: Final = 5.0
#: Engines close idle connections after 5 s and more; one that rested longer than this is not worth a try.
_IDLE_S: Final = 30.0
_IDLE_MAX: Final = 128


class Pools:
    """The connections to all instances. One for the whole router."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._idle: dict[tuple[str, int], list[Connection]] = {}
        self._tasks = Tasks("upstream")

    def send(self, host: str, port: int, sending: Sending) -> None:
        """Send a request, on a kept connection if there is one. The receiver is not called before this returns."""
        now = self._loop.time()
        idle = self._idle.get((host, port))
        while idle:
            connection = idle.pop()
            if now - connection.idle_since < _IDLE_S:
                connection.send(sending)
                return
            connection.abort()
        self._tasks.spawn("connect", self._connect(host, port, sending))

    async def _connect(self, host: str, port: int, sending: Sending) -> None:
        def failed(text: str) -> None:
            if sending.receiver is not None:
                # A request that an engine had before it vanished may be what ended it, so it counts as one that did.
                code = "engine_broke_off" if sending.sent else "engine_unreachable"
                sending.receiver.failed(Trouble(code, text))

        connection = await self._open(host, port, lambda: Connection(self, host, port), failed)
        if not isinstance(connection, Connection):
            return
        if sending.receiver is None:
            self.keep(connection)
        else:
            connection.send(sending)

    def connect(
        self, host: str, port: int, make: Callable[[], asyncio.BaseProtocol], failed: Callable[[str], None]
    ) -> None:
        """Open a connection that is not pooled. ``failed`` gets the reason if it cannot be opened."""
        self._tasks.spawn("connect", self._open(host, port, make, failed))

    async def _open(
        self, host: str, port: int, make: Callable[[], asyncio.BaseProtocol], failed: Callable[[str], None]
    ) -> asyncio.BaseProtocol | None:
        try:
            async with asyncio.timeout(_CONNECT_S):
                _, protocol = await self._loop.create_connection(make, host, port)
        except TimeoutError:
            failed(f"cannot reach the engine at {host}:{port}: no answer within {_CONNECT_S:.0f} s")
        except OSError as error:
            failed(f"cannot reach the engine at {host}:{port}: {error.strerror or error}")
        else:
            return protocol
        return None

    def retry(self, host: str, port: int, sending: Sending) -> None:
        """Send once more on a new connection: the kept one was closed before a byte came back."""
        sending.retried = True
        self._tasks.spawn("connect", self._connect(host, port, sending))

    def keep(self, connection: "Connection") -> None:
        """Take a connection back whose answer is whole."""
        idle = self._idle.setdefault((connection.host, connection.port), [])
        if len(idle) >= _IDLE_MAX:
            connection.abort()
            return
        connection.idle_since = self._loop.time()
        idle.append(connection)

    def forget(self, connection: "Connection") -> None:
        """The idle connection was closed."""
        idle = self._idle.get((connection.host, connection.port), [])
        if connection in idle:
            idle.remove(connection)

    def close(self, host: str, port: int) -> None:
        """The instance leaves: close its idle connections. Running answers end by themselves."""
        for connection in self._idle.pop((host, port), []):
            connection.abort()

    async def aclose(self) -> None:
        """Close all idle connections and stop connecting."""
        for key in list(self._idle):
            self.close(*key)
        await self._tasks.aclose()


def authority(host: str, port: int) -> bytes:
    """The ``Host`` of an address."""
    return (f"[{host}]:{port}" if ":" in host else f"{host}:{port}").encode()
