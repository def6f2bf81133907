"""The router's own voice in one answer: what it says while a client waits, and when.

It knows the reply and the face that speaks in it. It refuses to know where the news comes from and how the
exchange goes on.
"""

from collections.abc import Callable
from typing import Final

from llm_router.core.words import ModelName, Notice
from llm_router.host.road.reply import Reply
from llm_router.host.road.road import Limits
from llm_router.wire import notices
from llm_router.wire.answer import Terms
from llm_router.wire.status import Pace
from llm_router.wire.wording import STATUS, Words

_STREAM_LINES: Final = b"content-type: %b\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"


class Speaker:
    """Speaks through ``terms.face``; without a face it is silent. Times are on the loop's clock, in seconds."""

    __slots__ = ("_ask", "_limits", "_pace", "_reply", "_terms", "line", "model", "notice")

    def __init__(self, reply: Reply, terms: Terms, limits: Limits, ask: Callable[[], Notice | None]) -> None:
        self._reply = reply
        self._terms = terms
        self._limits = limits
        self._ask = ask
        self._pace = Pace(every_s=limits.status_s, silence_s=limits.silence_s)
        self.model = ModelName("")
        #: The last news.
        self.notice: Notice | None = None
        #: A status stands that has not been ended: clients show it as running for ever.
        self.line = False

    def news(self) -> str:
        """What there is to tell now."""
        self.notice = self._ask()
        words = self._words
        return words.waiting(self.model) if self.notice is None else words.told(self.notice)

    def reading(self) -> str:
        """The engine is silent for long."""
        return self._words.reading(self.model)

    @property
    def _words(self) -> Words:
        face = self._terms.face
        return STATUS if face is None else face.words

    def open(self, text: str, lines: list[bytes], now: float) -> None:
        """Begin the answer, as a stream with status 200; ``lines`` are more of its head."""
        face = self._terms.face
        assert face is not None
        self._due(text, now)
        self._terms.opened = self.line = True
        self._reply.begin(200, [_STREAM_LINES % face.content_type, *lines], None)
        self._reply.body(face.opening(text))

    def tell(self, now: float) -> None:
        """Tell the news to an opened stream, if it is time."""
        face = self._terms.face
        if face is None or not self._terms.opened:
            return
        text = self.news()
        if self.notice is not None and self._due(text, now):
            self._reply.body(face.news(text))
        else:
            self.breathe(now)

    def breathe(self, now: float) -> None:
        """Give a sign of life, if it was silent for long."""
        if self._terms.face is not None and self._reply.begun and self._pace.silent(now):
            self._reply.body(self._terms.face.keepalive())

    def wrote(self, now: float) -> None:
        """The engine spoke."""
        self._pace.wrote(now)

    def finish_line(self, now: float, *, served: bool = True) -> None:
        """The wait is over: the last status, before the first token or, not ``served``, the error."""
        face = self._terms.face
        if face is None or not self.line:
            return
        self.line = False
        waited = self._terms.waited_s
        noted = served and (face.lasting or waited > self._limits.note_s)
        note = face.words.ready(self.model, waited) if noted else None
        self._pace.wrote(now)
        self._reply.body(face.last(note))

    def _due(self, text: str, now: float) -> bool:
        notice = self.notice
        if notice is None:
            return self._pace.say(None, None, text, now)
        return self._pace.say(notice.stage, notices.key(notice), text, now)
