"""The router's own questions to its instances, asked over the connections that requests use too.

It knows how a question becomes bytes and when an answer counts as one. What to ask and what the answer means
is the engine adapter's to say.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from llm_router.engines.engine import Answer, Question
from llm_router.host.road.connection import Sending, Trouble
from llm_router.host.road.upstream import Pools, authority
from llm_router.wire import heads

#: Limit for the answer to one of the router's own questions, in bytes.
_ANSWER_LIMIT: Final = 4 * 1024 * 1024


class Asker:
    """Asks the instances behind these connections. Nothing here raises for what an instance does."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools

    async def ask(self, host: str, port: int, question: Question) -> Answer:
        """The whole answer; status 0: nothing (whole) came back within the question's limit."""
        hearing = _Hearing()
        sending = _sending(host, port, question, hearing)
        self._pools.send(host, port, sending)
        try:
            async with asyncio.timeout(question.timeout_s):
                await hearing.over.wait()
        except TimeoutError:
            return _silence(question)
        finally:
            hearing.leave(sending)
        return hearing.answer

    async def stream(self, host: str, port: int, question: Question) -> AsyncGenerator[Answer, None]:
        """The answer again and again as it grows, the complete one last. Closing it early closes the connection."""
        hearing = _Hearing()
        sending = _sending(host, port, question, hearing)
        self._pools.send(host, port, sending)
        end = asyncio.get_running_loop().time() + question.timeout_s
        try:
            while not hearing.over.is_set():
                try:
                    async with asyncio.timeout_at(end):
                        await hearing.news.wait()
                except TimeoutError:
                    yield _silence(question)
                    return
                hearing.news.clear()
                yield hearing.answer
        finally:
            hearing.leave(sending)


def _sending(host: str, port: int, question: Question, hearing: "_Hearing") -> Sending:
    extra = dict(heads.encoded(tuple(question.headers)))
    if question.body is not None:
        extra.setdefault(b"content-type", b"application/json")
    length = None if question.body is None else len(question.body)
    head = heads.request_head(
        question.method.encode(), question.path.encode(), (), authority(host, port), length, extra=extra
    )
    return Sending(head, question.body or b"", hearing, no_body=question.method == "HEAD")


def _silence(question: Question) -> Answer:
    return Answer(0, body=b"no answer within %.1f s" % question.timeout_s)


class _Hearing:
    """Collects the answer to a question. Once ``over`` is set, ``answer`` is what became of it."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        #: Set with each piece, and at the end; who reads clears it.
        self.news = asyncio.Event()
        self._closed = False
        self._failed: bytes | None = None
        self._status = 0
        self._headers: heads.Headers = ()
        self._body = bytearray()

    @property
    def answer(self) -> Answer:
        """What has come so far."""
        if self._failed is not None:
            return Answer(0, body=self._failed)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in self._headers}
        return Answer(self._status, headers, bytes(self._body), complete=self.over.is_set())

    def answered(self, status: int, headers: heads.Headers, length: int | None) -> None:  # noqa: ARG002
        self._status = status
        self._headers = headers

    def received(self, data: bytes) -> None:
        if len(self._body) + len(data) > _ANSWER_LIMIT:
            self._fail(b"the answer is longer than %d bytes" % _ANSWER_LIMIT)
        else:
            self._body += data
            self.news.set()

    def completed(self) -> None:
        self._closed = True
        self._end()

    def failed(self, trouble: Trouble) -> None:
        self._closed = True
        self._fail(trouble.text.encode())

    def leave(self, sending: Sending) -> None:
        """Nobody listens any more: what is still to come is not wanted."""
        if not self._closed:
            sending.abort()

    def _fail(self, text: bytes) -> None:
        if not self.over.is_set():
            self._failed = text
            self._end()

    def _end(self) -> None:
        self.over.set()
        self.news.set()
