"""The connections to all instances: kept between requests, opened when there is none, closed with their instance.

This file knows how long a connection is worth keeping, and asks the router's own questions. It refuses to
know how answers are framed and whether an instance is well.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from llm_router.engines.engine import Answer, Question
from llm_router.host.connection import Connection, Sending, Trouble
from llm_router.host.tasks import Tasks
from llm_router.wire import heads

#: Limit for the answer to one of the router's own questions, in bytes.
_ANSWER_LIMIT: Final = 4 * 1024 * 1024
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
                sending.receiver.failed(Trouble("engine_unreachable", text))

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

    async def ask(self, host: str, port: int, question: Question) -> Answer:
        """Ask the instance a question of the router's own. Never raises; status 0: nothing (whole) came back."""
        asking = _Asking(self._loop.create_future())
        extra = list(question.headers)
        if question.body is not None and not any(name.lower() == "content-type" for name, _ in extra):
            extra.append(("content-type", "application/json"))
        length = None if question.body is None else len(question.body)
        head = heads.request_head(
            question.method.encode(), question.path.encode(), (), authority(host, port), length, extra=extra
        )
        sending = Sending(head, question.body or b"", asking, no_body=question.method == "HEAD")
        self.send(host, port, sending)
        try:
            async with asyncio.timeout(question.timeout_s):
                return await asking.future
        except TimeoutError:
            return Answer(0, body=b"no answer within %.1f s" % question.timeout_s)
        finally:
            if not asking.over:
                sending.abort()


class _Asking:
    """Collects the answer to a question."""

    def __init__(self, future: "asyncio.Future[Answer]") -> None:
        self.future = future
        self.over = False
        self._status = 0
        self._headers: heads.Headers = ()
        self._body = bytearray()

    def answered(self, status: int, headers: heads.Headers, length: int | None) -> None:  # noqa: ARG002
        self._status = status
        self._headers = headers

    def received(self, data: bytes) -> None:
        if len(self._body) + len(data) > _ANSWER_LIMIT:
            self._set(Answer(0, body=b"the answer is longer than %d bytes" % _ANSWER_LIMIT))
        else:
            self._body += data

    def completed(self) -> None:
        self.over = True
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in self._headers}
        self._set(Answer(self._status, headers, bytes(self._body)))

    def failed(self, trouble: Trouble) -> None:
        self.over = True
        self._set(Answer(0, body=trouble.text.encode()))

    def _set(self, answer: Answer) -> None:
        if not self.future.done():
            self.future.set_result(answer)


def authority(host: str, port: int) -> bytes:
    """The ``Host`` of an address."""
    return (f"[{host}]:{port}" if ":" in host else f"{host}:{port}").encode()
