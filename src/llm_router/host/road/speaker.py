"""The router's own voice in one answer: what it says while a client waits, and when.

It knows the reply and the face that speaks in it. It refuses to know where the news comes from and how the
exchange goes on.
"""

from typing import Final

from llm_router.core.words import ModelName, Notice
from llm_router.host.road.reply import Reply
from llm_router.host.road.road import Limits
from llm_router.wire import notices
from llm_router.wire.answer import Terms
from llm_router.wire.status import Face, Pace

_STREAM_LINES: Final = b"content-type: %b\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"


class Speaker:
    """Speaks through ``face``. Times are on the loop's clock, in seconds."""

    __slots__ = ("_face", "_limits", "_model", "_pace", "_reply", "_terms", "line", "notice")

    def __init__(self, reply: Reply, terms: Terms, face: Face, limits: Limits, model: ModelName) -> None:
        self._reply = reply
        self._terms = terms
        self._face = face
        self._limits = limits
        self._model = model
        self._pace = Pace(every_s=limits.status_s, silence_s=limits.silence_s)
        #: The last news.
        self.notice: Notice | None = None
        #: A status stands that has not been ended: clients show it as running for ever.
        self.line = False

    def news(self, notice: Notice | None) -> str:
        """What there is to tell now; ``None``: nothing is known yet."""
        self.notice = notice
        words = self._face.words
        return words.waiting(self._model) if notice is None else words.told(notice)

    def reading(self) -> str:
        """The engine is silent for long."""
        return self._face.words.reading(self._model)

    def open(self, text: str, lines: list[bytes], now: float) -> None:
        """Begin the answer, as a stream with status 200; ``lines`` are more of its head."""
        face = self._face
        self._due(text, now)
        self._terms.opened = self.line = True
        self._reply.begin(200, [_STREAM_LINES % face.content_type, *lines], None)
        self._reply.body(face.opening(text))

    def tell(self, notice: Notice | None, now: float) -> None:
        """Tell the news to an opened stream, if it is time."""
        if not self._terms.opened:
            return
        text = self.news(notice)
        if notice is not None and self._due(text, now):
            self._reply.body(self._face.news(text))
        else:
            self.breathe(now)

    def breathe(self, now: float) -> None:
        """Give a sign of life, if it was silent for long."""
        if self._reply.begun and self._pace.silent(now):
            self._reply.body(self._face.keepalive())

    def wrote(self, now: float) -> None:
        """The engine spoke."""
        self._pace.wrote(now)

    def finish_line(self, now: float, *, served: bool = True) -> None:
        """The wait is over: the last status, before the first token or, not ``served``, the error."""
        if not self.line:
            return
        self.line = False
        face, waited = self._face, self._terms.waited_s
        noted = served and (face.lasting or waited > self._limits.note_s)
        note = face.words.ready(self._model, waited) if noted else None
        self._pace.wrote(now)
        self._reply.body(face.last(note))

    def _due(self, text: str, now: float) -> bool:
        notice = self.notice
        if notice is None:
            return self._pace.say(None, None, text, now)
        return self._pace.say(notice.stage, notices.key(notice), text, now)
