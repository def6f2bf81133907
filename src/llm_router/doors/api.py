"""The ordinary door: lists, health, status, the operator's few wishes, the page. Starlette, in memory, quick.

Model requests do not come here: they are served on the protocol's level (``host.front``). This door reads
views and hands wishes on; it holds no state and decides nothing.
"""

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Final, Protocol, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from llm_router.config.problems import ConfigError
from llm_router.core.words import ModelName
from llm_router.doors import keys, ollama
from llm_router.doors.reloaded import Reloaded, broken
from llm_router.doors.request_ids import RequestIds, ident_of
from llm_router.doors.views import Views, listed
from llm_router.wire import access, errors
from llm_router.wire.errors import BadRequestError, Fault

#: What the wishes may be in bytes; they are a name and little more.
MAX_WISH: Final = 64 * 1024
PAGE: Final = {"index.html": "text/html", "style.css": "text/css", "page.js": "text/javascript"}
PAGE_HEADERS: Final = {
    "content-security-policy": "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


class House(Protocol):
    """What the operator can ask for. Every method returns at once; what comes of it shows in the status."""

    def find(self, name: str) -> ModelName | None: ...

    def nearest(self, name: str) -> list[str]: ...

    def names(self) -> list[str]: ...

    def load(self, model: ModelName) -> None: ...

    def unload(self, model: ModelName) -> None: ...

    def pin(self, model: ModelName, *, pin: bool) -> None: ...


@dataclass(frozen=True, slots=True)
class Door:
    """What the handlers need. ``views`` and ``guard`` are asked anew each time: a reload changes them."""

    house: House
    views: Callable[[], Views]
    guard: Callable[[], keys.Guard]
    origins: Callable[[], Sequence[str]]
    #: Reads the configuration anew and puts it in force. Raises ``ConfigError`` and has then changed nothing.
    reload: Callable[[], Awaitable[Reloaded]]


class _Wish(msgspec.Struct):
    model: str = ""


class _Pin(msgspec.Struct):
    model: str = ""
    pin: bool = True


class RefusedError(Exception):
    """A request that is answered with this fault."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


W = TypeVar("W", bound=msgspec.Struct)


def build(door: Door) -> Starlette:
    """The ASGI application."""

    async def page(request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        if name not in PAGE:
            raise HTTPException(404)
        content = resources.files("llm_router.doors").joinpath("page", name).read_bytes()
        return Response(content, media_type=PAGE[name], headers=PAGE_HEADERS)

    async def health(request: Request) -> Response:
        del request
        return _json(door.views().health())

    async def status(request: Request) -> Response:
        _may_read(door, request)
        peer = request.client.host if request.client else ""
        return _json(door.views().status(logs=door.guard().operator(_raw_headers(request), peer) is None))

    async def models(request: Request) -> Response:
        sees = _sees(door, request)
        return _tagged(request, listed(entry for entry in door.views().models() if sees(entry["id"])))

    async def model(request: Request) -> Response:
        sees = _sees(door, request)
        name = request.path_params["name"]
        entry = door.views().model(name)
        if entry is None or not sees(entry["id"]):
            raise RefusedError(errors.unknown_model(name, [near for near in door.house.nearest(name) if sees(near)]))
        return _json(entry)

    async def load(request: Request) -> Response:
        _may_change(door, request)
        name = _known(door, (await _wish(request, _Wish)).model)
        door.house.load(name)
        return _json({"success": True, "model": name}, status=202)

    async def unload(request: Request) -> Response:
        _may_change(door, request)
        name = _known(door, (await _wish(request, _Wish)).model)
        door.house.unload(name)
        return _json({"success": True, "model": name})

    async def pin(request: Request) -> Response:
        _may_change(door, request)
        wish = await _wish(request, _Pin)
        name = _known(door, wish.model)
        door.house.pin(name, pin=wish.pin)
        return _json({"success": True, "model": name, "pinned": wish.pin})

    async def reload(request: Request) -> Response:
        _may_change(door, request)
        try:
            reloaded = await door.reload()
        except ConfigError as error:
            raise RefusedError(broken(error)) from None
        return _json(reloaded.told())

    async def not_ours(request: Request) -> Response:
        raise RefusedError(
            Fault(
                405,
                "not_supported",
                f"cannot {'delete' if request.method == 'DELETE' else 'download'} models: "
                "the router serves what its configuration names; edit that",
                kind="invalid_request_error",
            )
        )

    routes = [
        Route("/", page, methods=["GET"]),
        Route("/page/{name}", page, methods=["GET"]),
        Route("/health", health, methods=["GET"]),
        Route("/api/status", status, methods=["GET"]),
        Route("/v1/models", models, methods=["GET"]),
        Route("/models", models, methods=["GET"]),
        Route("/v1/models/{name:path}", model, methods=["GET"]),
        Route("/models", not_ours, methods=["POST", "DELETE"]),
        *(
            Route(prefix + path, handler, methods=["POST"])
            for prefix in ("", "/api")
            for path, handler in (("/models/load", load), ("/models/unload", unload))
        ),
        Route("/api/models/pin", pin, methods=["POST"]),
        Route("/api/reload", reload, methods=["POST"]),
        *ollama.routes(door.views, lambda request: _sees(door, request)),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(RequestIds)],
        exception_handlers={
            RefusedError: _refused,
            BadRequestError: _refused,
            HTTPException: _http_error,
            Exception: _broken,
        },
    )


def _json(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(value), status, headers, media_type="application/json")


def _tagged(request: Request, value: object) -> Response:
    """With an ETag, so that a client that asks often gets nothing where nothing changed."""
    body = msgspec.json.encode(value)
    tag = f'"{hashlib.blake2s(body, digest_size=12).hexdigest()}"'
    headers = {"etag": tag, "cache-control": "no-cache"}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


def _answer(fault: Fault) -> Response:
    headers = {name.decode(): value.decode() for name, value in errors.headers(fault) if name != b"content-type"}
    return Response(errors.openai_body(fault), fault.status, headers, media_type="application/json")


async def _refused(request: Request, error: Exception) -> Response:
    del request
    assert isinstance(error, RefusedError | BadRequestError)
    return _answer(error.fault)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    if error.status_code == 405:
        text = f"cannot {request.method} {path}: it takes {(error.headers or {}).get('Allow', 'another method')}"
        return _answer(Fault(405, "method_not_allowed", text, kind="invalid_request_error"))
    text = f"cannot find {path}: the router has no such page; models are served below /v1"
    return _answer(Fault(error.status_code, "not_found", text, kind="invalid_request_error"))


async def _broken(request: Request, error: Exception) -> Response:
    answer = _answer(
        Fault(500, "router_fault", f"cannot answer {request.url.path}: {error!r}; the router's log says where")
    )
    answer.headers["x-request-id"] = ident_of(request.scope).decode()  # this is outside of what names it otherwise
    return answer


def _raw_headers(request: Request) -> Sequence[tuple[bytes, bytes]]:
    headers: Sequence[tuple[bytes, bytes]] = request.scope["headers"]
    return headers


def _may_read(door: Door, request: Request) -> None:
    fault = door.guard().reader(_raw_headers(request))
    if fault is not None:
        raise RefusedError(fault)


def _sees(door: Door, request: Request) -> Callable[[str], bool]:
    """Which models the request may see. Raises ``RefusedError`` if it may see nothing at all."""
    _may_read(door, request)
    names = door.guard().sees(_raw_headers(request))
    if names is None:
        return lambda _: True
    resolve = door.views().config.resolve
    allowed = {resolve(name) for name in names}
    return lambda name: resolve(name) in allowed


def _may_change(door: Door, request: Request) -> None:
    """By an operator, and not by a page of another site that a browser on this machine happens to show."""
    origin = request.headers.get("origin", "")
    if origin and not access.allowed(origin, request.headers.get("host", ""), door.origins()):
        raise RefusedError(keys.FOREIGN_PAGE)
    if request.headers.get("sec-fetch-site", "none") not in {"none", "same-origin", "same-site"} and not origin:
        raise RefusedError(keys.FOREIGN_PAGE)
    peer = request.client.host if request.client else ""
    fault = door.guard().operator(_raw_headers(request), peer)
    if fault is not None:
        raise RefusedError(fault)


async def _wish(request: Request, kind: type[W]) -> W:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_WISH:
            raise BadRequestError("cannot read the request: it is too long for a wish", "too_large", 413)
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise BadRequestError(f'cannot read the request: {error}; send {{"model": "NAME"}}') from None


def _known(door: Door, name: str) -> ModelName:
    if not name:
        raise RefusedError(errors.no_model(door.house.names()[:3]))
    model = door.house.find(name)
    if model is None:
        raise RefusedError(errors.unknown_model(name, door.house.nearest(name)))
    return model
