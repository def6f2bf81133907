"""The lists that Ollama's clients ask for: models, loaded models, one model, a version. In memory, like all lists.

It knows where the router's views hold what these clients want to read. Chats and the like are model requests and do
not come here.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from llm_router.core.instance import State
from llm_router.doors.views import LOADED, Views
from llm_router.formats.recognise import Recognised
from llm_router.formats.words import Format, Kind
from llm_router.wire import interpreters, ollama_lists
from llm_router.wire.ollama_lists import Listed

May = Callable[[Request], Callable[[str], bool]]
"""Whether a request may read, and then which models it may see. Raises what the application answers."""

#: What a client asks for is a name and little more, in bytes.
_LONGEST: Final = 64 * 1024
_VECTORS: Final = frozenset({Kind.embedding, Kind.rerank, Kind.classify})


class _Asked(msgspec.Struct):
    model: str = ""
    name: str = ""


def routes(views: Callable[[], Views], may: May) -> list[Route]:
    """The routes below ``/api``."""

    async def tags(request: Request) -> Response:
        sees = may(request)
        return _json(ollama_lists.tags(model for model in listed(views()) if sees(model.name)))

    async def running(request: Request) -> Response:
        sees = may(request)
        return _json(ollama_lists.running(model for model in listed(views()) if sees(model.name)))

    async def show(request: Request) -> Response:
        sees, here = may(request), views()
        asked = await _read(request)
        names = [here.config.resolve(name) for name in interpreters.names(asked)]
        models = {model.name: model for model in listed(here, hidden=True)}
        found = next((models[name] for name in names if name in models and sees(name)), None)
        if found is None:
            return _json(msgspec.json.encode({"error": f"model {asked!r} not found"}), 404)
        return _json(ollama_lists.show(found))

    async def version(request: Request) -> Response:
        del request
        return _json(ollama_lists.version())

    return [
        Route("/api/tags", tags, methods=["GET"]),
        Route("/api/ps", running, methods=["GET"]),
        Route("/api/show", show, methods=["POST"]),
        Route("/api/version", version, methods=["GET"]),
    ]


def listed(views: Views, *, hidden: bool = False) -> list[Listed]:
    """The models as these clients know them, in the order of the configuration."""
    seen = views.snapshot()
    instances = {instance.model: instance for instance in seen.instances if instance.state is State.ready}
    found = []
    for model in seen.models:
        entry, about = views.config.models[model.name], views.about.get(model.name)
        if entry.hidden and not hidden:
            continue
        instance = instances.get(model.name)
        leaves = instance.leaves_in_s if instance else None
        found.append(
            Listed(
                model.name,
                modified=views.started,
                context=entry.context or (about.context if about else None),
                capabilities=_capabilities(about, entry.capabilities),
                loaded=model.state in LOADED,
                vram=(instance.taken or 0) if instance else 0,
                leaves_at=None if leaves is None else views.clock() + leaves,
                **_facts(about),
            )
        )
    return found


def _facts(about: Recognised | None) -> dict[str, Any]:
    if about is None:
        return {}
    size = f"{about.parameters / 1e9:.1f}B" if about.parameters else ""
    return {
        "size": about.size,
        "format": "gguf" if about.format is Format.gguf else "safetensors",
        "family": about.architecture,
        "parameter_size": size,
        "quantization": about.quantisation,
    }


def _capabilities(about: Recognised | None, told: dict[str, bool]) -> tuple[str, ...]:
    """In Ollama's words. What the configuration says counts; a chat model is taken to know tools, as most do."""
    kind = about.kind if about else Kind.chat
    usual = {
        "completion": kind not in _VECTORS,
        "tools": kind in (Kind.chat, Kind.vision),
        "vision": kind is Kind.vision,
        "embedding": kind is Kind.embedding,
        "thinking": False,
    }
    return tuple(word for word, there in usual.items() if told.get(word, there))


async def _read(request: Request) -> str:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _LONGEST:
            return ""
    try:
        asked = msgspec.json.decode(body, type=_Asked)
    except msgspec.MsgspecError:
        return ""
    return asked.model or asked.name


def _json(body: bytes, status: int = 200) -> Response:
    return Response(body, status, media_type="application/json")
