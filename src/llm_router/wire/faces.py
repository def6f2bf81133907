"""Which voice the router has in a stream: by the client's API and the mode that its rules give.

It knows which modes an API can have. It refuses to know how the mode was found.
"""

from typing import Final

from llm_router.wire import lines, ollama_answer, status
from llm_router.wire.classic import LinesFace
from llm_router.wire.errors import Fault
from llm_router.wire.foreign import encode
from llm_router.wire.ollama import Form
from llm_router.wire.paths import Api
from llm_router.wire.status import Face
from llm_router.wire.wording import STATUS, ClassicWords, Words

_LINES: Final = ("content", "reasoning")


def choose(
    api: Api,
    mode: str,
    ident: str,
    model: str,
    created: int,
    *,
    structured: bool = False,
    limit_s: float | None = None,
    marked: bool = True,
    form: Form = Form.chat,
) -> Face | None:
    """The face for a stream; ``None``: say nothing. ``created`` is a Unix time in seconds.

    ``structured``: the answer is for a program, so that nothing may stand in its text. ``limit_s`` is how long the
    model may load, ``marked`` whether lines in a text stand between marks, ``form`` that of an Ollama request.
    """
    if mode in _LINES and structured:
        mode = "event"
    if api is Api.ollama:
        return None if mode == "off" else OllamaFace(form, model, created, mode, limit_s, marked=marked)
    if mode in _LINES:
        thinking = mode == "reasoning"
        if api is Api.chat or (api is Api.completions and not thinking):
            return LinesFace(api, ident, model, created, ClassicWords(limit_s), marked=marked, thinking=thinking)
        mode = "event"
    return status.face(api, mode, ident, model, created)


def for_errors(api: Api, ident: str, model: str, created: int) -> Face:
    """A face that tells of errors as the API does, for answers in which the router is silent or comments."""
    if api is Api.ollama:
        return OllamaFace(Form.chat, model, created, "event", None)
    return status.face(api, "event", ident, model, created) or status.CommentFace()


def tells_errors(face: Face | None) -> bool:
    """Whether the face knows how errors are told."""
    return face is not None and not isinstance(face, status.CommentFace)


class OllamaFace:
    """Lines of JSON with an empty text and the status beside it; in the modes with lines, the text is the line.

    All that Ollama's own streams know is an answer that grows; its clients pass over keys they do not know.
    """

    lasting: bool
    footer = False
    content_type = b"application/x-ndjson"

    def __init__(
        self, form: Form, model: str, created: float, mode: str, limit_s: float | None, *, marked: bool = True
    ) -> None:
        self._form, self._model, self._created = form, model, created
        self._mode, self._marked = mode, marked
        self.lasting = mode in _LINES
        self.words: Words = ClassicWords(limit_s) if self.lasting else STATUS

    def opening(self, text: str) -> bytes:
        return self.news(text)

    def news(self, text: str) -> bytes:
        return self._say(lines.before(text, marked=self._marked)) if self.lasting else self._say("", status=text)

    def keepalive(self) -> bytes:
        return self._say("")

    def last(self, text: str | None) -> bytes:
        if not self.lasting:
            return self._say("", status=text) if text else b""
        return self._say(lines.before(text, last=True, marked=self._marked)) if text else b""

    def closing(self, text: str) -> bytes:  # noqa: ARG002  the last line has the figures
        return b""

    def error(self, fault: Fault) -> bytes:
        return ollama_answer.error_body(fault.message)

    def _say(self, text: str, **more: str) -> bytes:
        thinking = self._mode == "reasoning"
        said = {"thinking": text} if thinking and text else {}
        spoken = "" if thinking else text
        answer = (
            {"response": spoken, **said}
            if self._form is Form.generate
            else {"message": {"role": "assistant", "content": spoken, **said}}
        )
        head = {"model": self._model, "created_at": ollama_answer.moment(self._created)}
        return encode({**head, **answer, "done": False, **({} if self._mode == "comment" else more)}) + b"\n"
