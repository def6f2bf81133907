"""Every answer names the request it belongs to, also those that no engine gives: the client's own id, or a new one."""

import secrets
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llm_router.wire import heads

_HEADER: Final = b"x-request-id"


class RequestIds:
    """Goes around an ASGI application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        ident = ident_of(scope)

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), (_HEADER, ident)]}
            await send(message)

        await self._app(scope, receive, marked)


def ident_of(scope: Scope) -> bytes:
    """The id that the client gave, if it can stand in a header, else a new one."""
    given = next((bytes(value) for name, value in scope["headers"] if name == _HEADER), b"")
    return (heads.request_id(given) or secrets.token_hex(8)).encode()
