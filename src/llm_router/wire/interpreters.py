"""Requests of one API served by an engine that speaks another: who is to be interpreted, and both ways of it.

An interpreter holds the request as the engine gets it and turns the engine's answer into the client's form. It
knows which translation belongs to which API; the translations themselves have files of their own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from llm_router.wire import anthropic, ollama, ollama_answer, openai, paths, responses
from llm_router.wire.anthropic_answer import MessageStream, message_answer
from llm_router.wire.content import Body, Content
from llm_router.wire.dialect import Dialect
from llm_router.wire.foreign import Translated
from llm_router.wire.ollama import Form
from llm_router.wire.ollama_answer import OllamaStream
from llm_router.wire.order import Order
from llm_router.wire.paths import Api, Route
from llm_router.wire.responses_answer import ResponseStream, response_answer
from llm_router.wire.status import Face, ResponsesFace

_COUNT: Final = b"/v1/messages/count_tokens"
#: What Ollama's clients add to a name that has no other tag.
_LATEST: Final = ":latest"


class Stream(Protocol):
    """Turns the payloads of a stream of chat completions or completions into the client's bytes."""

    @property
    def complete(self) -> bool: ...

    @property
    def failed(self) -> bool: ...

    def feed(self, payload: bytes, now: float) -> bytes: ...

    def end(self, now: float) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Scene:
    """What an answer in another form says of itself. Times are Unix seconds.

    ``face`` has ``opened`` the stream already, or could have. ``load_s`` of the time since ``started`` were a load.
    """

    ident: str
    model: str
    started: float
    load_s: float = 0.0
    face: Face | None = None
    opened: bool = False


@dataclass(frozen=True, slots=True)
class Interpreter:
    """One request. ``order`` and ``content`` are for the engine; ``dropped`` names what was left out.

    ``answer`` is there at once where no engine has to be asked. ``whole`` may raise ``ValueError``; its second
    argument is a Unix time in seconds.
    """

    order: Order
    content: Content
    dropped: tuple[str, ...]
    stream: Callable[[Scene], Stream]
    whole: Callable[[Scene, bytes, float], bytes]
    answer: bytes | None = None


def needed(order: Order, content: Content, dialect: Dialect) -> Interpreter | None:
    """The interpreter for this engine, ``None`` if it speaks the client's API. Raises ``BadRequestError``."""
    path = order.route.path
    if dialect.serves is None or order.route.raw or path.decode("latin-1") in dialect.serves:
        return None
    match order.route.api:
        case Api.messages:
            return _messages(content.body)
        case Api.responses:
            return _responses(content.body)
        case _:
            return _counting(order, content) if path == _COUNT else None


def read_ollama(route: Route, body: Body) -> tuple[ollama.Asked, Interpreter | None]:
    """A request to one of Ollama's paths; without an interpreter it only wants the model loaded or unloaded.

    Raises ``BadRequestError``.
    """
    asked = ollama.read_request(route.path.decode(), body)
    assert asked is not None  # the route says so
    if asked.request is None:
        return asked, None
    form = asked.form
    vectors = form in (Form.embed, Form.embeddings)
    whole = partial(_vectors if vectors else _ollama_whole, form)
    return asked, _interpreter(asked.request, partial(_ollama_stream, form), whole)


def names(model: str) -> tuple[str, ...]:
    """The names a client of Ollama may mean: its own word, and that without the tag it adds to all names."""
    return (model, model.removesuffix(_LATEST)) if model.endswith(_LATEST) else (model,)


def _interpreter(
    request: Translated,
    stream: Callable[[Scene], Stream],
    whole: Callable[[Scene, bytes, float], bytes],
) -> Interpreter:
    route = paths.route(request.path.encode())
    assert route is not None
    content = Content(request.body)
    order = Order(route, openai.read_json(content), ((request.model, route.path),))
    return Interpreter(order, content, request.dropped, stream, whole)


def _messages(body: Body) -> Interpreter:
    request = anthropic.chat_request(body)
    return _interpreter(request, partial(_message_stream, request.stops), partial(_message_whole, request.stops))


def _message_stream(stops: tuple[str, ...], scene: Scene) -> Stream:
    return _Timeless(MessageStream(f"msg_{scene.ident}", scene.model, stops, opened=scene.opened))


def _message_whole(stops: tuple[str, ...], scene: Scene, body: bytes, now: float) -> bytes:  # noqa: ARG001
    return message_answer(body, stops)


def _responses(body: Body) -> Interpreter:
    asked = responses.chat_request(body)

    def stream(scene: Scene) -> Stream:
        sequence = scene.face.sequence if isinstance(scene.face, ResponsesFace) else 0
        made = ResponseStream(
            f"resp_{scene.ident}",
            scene.model,
            int(scene.started),
            asked.echo,
            opened=scene.opened,
            sequence=sequence if scene.opened else 0,
        )
        return _Timeless(made)

    def whole(scene: Scene, answer: bytes, now: float) -> bytes:  # noqa: ARG001
        return response_answer(answer, f"resp_{scene.ident}", int(scene.started), asked.echo)

    return _interpreter(asked.request, stream, whole)


def _counting(order: Order, content: Content) -> Interpreter:
    """No engine is asked: it could not count."""

    def stream(scene: Scene) -> Stream:
        raise AssertionError(f"an estimate is no stream: {scene}")

    def whole(scene: Scene, answer: bytes, now: float) -> bytes:  # noqa: ARG001
        return answer

    return Interpreter(order, content, (), stream, whole, anthropic.estimate_tokens(content.body))


def _ollama_stream(form: Form, scene: Scene) -> Stream:
    return OllamaStream(form, scene.model, scene.started, scene.load_s)


def _ollama_whole(form: Form, scene: Scene, body: bytes, now: float) -> bytes:
    return ollama_answer.whole_answer(form, body, scene.model, scene.started, now, scene.load_s)


def _vectors(form: Form, scene: Scene, body: bytes, now: float) -> bytes:
    return ollama_answer.vectors(form, body, scene.model, scene.started, now, scene.load_s)


class _Timeless:
    """A translation that tells no times."""

    def __init__(self, stream: MessageStream | ResponseStream) -> None:
        self._stream = stream

    @property
    def complete(self) -> bool:
        return self._stream.complete

    @property
    def failed(self) -> bool:
        return self._stream.failed

    @property
    def sequence(self) -> int | None:
        """The number of the next event, where events have numbers."""
        return self._stream.sequence if isinstance(self._stream, ResponseStream) else None

    def feed(self, payload: bytes, now: float) -> bytes:  # noqa: ARG002
        return self._stream.feed(payload)

    def end(self, now: float) -> bytes:  # noqa: ARG002
        return self._stream.end()
