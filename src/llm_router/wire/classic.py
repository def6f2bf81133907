"""The router's lines inside an answer's own text, for clients that show nothing else: the classic way, and as thinking.

It knows where a line stands in a chunk of chat completions and completions. What the lines say is ``lines``'
business, and how they are taken out of a history again ``history``'s.
"""

from llm_router.wire import lines, sse
from llm_router.wire.errors import Fault
from llm_router.wire.paths import Api
from llm_router.wire.status import ChunkFace
from llm_router.wire.wording import ClassicWords, Words


class LinesFace:
    """Each status is a line of text in ``delta.content`` or ``text``; ``thinking``: in ``delta.reasoning_content``.

    ``marked``: the lines stand between invisible marks. The answer's speed follows a chat's text as its footer; in
    other answers it would be taken for a part of them, and comes as a status event that is not shown.
    """

    lasting = True
    content_type = sse.CONTENT_TYPE

    def __init__(
        self, api: Api, ident: str, model: str, created: int, words: ClassicWords, *, marked: bool, thinking: bool
    ) -> None:
        self._chat = api is Api.chat
        self._model = model
        self._chunks = ChunkFace(api, ident, model, created)
        self._marked = marked
        self._thinking = thinking
        self.words: Words = words
        self.footer = self._chat and not thinking

    def opening(self, text: str) -> bytes:
        first = lines.switching(self._model)
        # A load that is under way when the first word is said began with a switch too.
        return (self.news(first) if lines.is_loading(text) else b"") + self.news(text)

    def news(self, text: str) -> bytes:
        return self._say(lines.before(text, marked=self._marked))

    def keepalive(self) -> bytes:
        return sse.KEEP_ALIVE

    def last(self, text: str | None) -> bytes:
        return self._say(lines.before(text, last=True, marked=self._marked)) if text else b""

    def closing(self, text: str) -> bytes:
        if self.footer:
            return self._say(lines.after(text, marked=self._marked))
        return self._chunks.closing(text)

    def error(self, fault: Fault) -> bytes:
        return self._chunks.error(fault)

    def _say(self, text: str) -> bytes:
        if not self._chat:
            return self._chunks.with_choice({"text": text, "logprobs": None})
        said = {"content": "", "reasoning_content": text} if self._thinking else {"content": text}
        return self._chunks.with_choice({"delta": {"role": "assistant", **said}})
