"""Which requests go to an engine, and which of the four streaming forms their answers have.

This file knows the paths that engines serve. It refuses to know models, bodies and what an engine makes of
a path: anything below these roots is passed on, and the engine says itself what it does not have.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final
from urllib.parse import unquote_to_bytes


class Api(Enum):
    """The forms of a streamed answer that the router can read and add to."""

    chat = "chat"
    completions = "completions"
    responses = "responses"
    messages = "messages"
    #: Ollama's chat, generate and embed: always translated.
    ollama = "ollama"
    #: Anything else: passed as it comes.
    other = "other"


@dataclass(frozen=True, slots=True)
class Route:
    """Where a model request goes. ``path`` is what the engine is asked for, without the query.

    ``raw``: the model is named in the path (``/upstream/MODEL/...``) and nothing of the request or the
    answer is touched; ``path`` still holds both and is taken apart by ``raw_candidates``.
    """

    path: bytes
    api: Api = Api.other
    raw: bool = False


#: Paths that people use without ``/v1`` in front and that no engine has at its root under another meaning.
_SHORT: Final = {
    b"/chat/completions": Api.chat,
    b"/completions": Api.completions,
    b"/responses": Api.responses,
    b"/messages": Api.messages,
    b"/messages/count_tokens": Api.other,
    b"/embeddings": Api.other,
}

_EXACT: Final = {
    **{b"/v1" + path: Route(b"/v1" + path, api) for path, api in _SHORT.items()},
    **{path: Route(b"/v1" + path, api) for path, api in _SHORT.items()},
    **{
        path: Route(path)
        for path in (
            b"/apply-template",
            b"/classify",
            b"/completion",
            b"/detokenize",
            b"/embedding",
            b"/generate",
            b"/infill",
            b"/pooling",
            b"/rerank",
            b"/reranking",
            b"/score",
            b"/tokenize",
            b"/v1/classify",
            b"/v1/detokenize",
            b"/v1/infill",
            b"/v1/moderations",
            b"/v1/pooling",
            b"/v1/realtime",
            b"/v1/rerank",
            b"/v1/reranking",
            b"/v1/score",
            b"/v1/tokenize",
            b"/v2/rerank",
        )
    },
    **{path: Route(path, Api.ollama) for path in (b"/api/chat", b"/api/generate", b"/api/embed", b"/api/embeddings")},
}
_BELOW: Final = (b"/v1/audio/", b"/v1/chat/completions/", b"/v1/images/", b"/v1/responses/", b"/v1/token/")
_RAW: Final = b"/upstream/"


def route(path: bytes) -> Route | None:
    """The road of a request's path (without query, as it came); ``None``: not for an engine."""
    found = _EXACT.get(path)
    if found is not None:
        return found
    if path.startswith(_RAW) and len(path) > len(_RAW):
        return Route(path, raw=True)
    if path.startswith(_BELOW):
        return Route(path)
    return None


def raw_candidates(path: bytes) -> Iterator[tuple[str, bytes]]:
    """The ways to read ``/upstream/MODEL/rest``: model and rest, shortest model first, as names may hold ``/``.

    The rest begins with ``/``. At most four segments are taken for a name.
    """
    segments = path.removeprefix(_RAW).split(b"/")
    for count in range(1, min(len(segments), 4) + 1):
        name = unquote_to_bytes(b"/".join(segments[:count])).decode(errors="replace")
        yield name, b"/" + b"/".join(segments[count:])
