"""The ordinary way to build such a router: an ASGI application and an HTTP client library. Here only to be compared.

It does the least that a relay must do: it reads the model's name, passes the request on with its headers, and
streams the answer. It has no queue, no status, no meter and no history.

    python -m bench.plain_asgi PORT ENGINE_PORT
"""

import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Final

import httpx2
import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

_HOP: Final = frozenset({"connection", "content-length", "host", "keep-alive", "transfer-encoding"})


class _Asked(msgspec.Struct):
    model: str = ""


def application(engine: str) -> Starlette:
    """The application in front of the engine at this address."""
    client = httpx2.AsyncClient(
        base_url=engine, timeout=None, limits=httpx2.Limits(max_connections=None, max_keepalive_connections=512)
    )
    decode = msgspec.json.Decoder(_Asked).decode

    async def relay(request: Request) -> Response:
        body = await request.body()
        if not decode(body).model:
            return JSONResponse({"error": {"message": "no model"}}, 400)
        headers = {name: value for name, value in request.headers.items() if name not in _HOP}
        asked = client.build_request("POST", request.url.path, content=body, headers=headers)
        answer = await client.send(asked, stream=True)

        async def pieces() -> AsyncIterator[bytes]:
            async with contextlib.aclosing(answer):
                async for piece in answer.aiter_raw():
                    yield piece

        passed = {name: value for name, value in answer.headers.items() if name not in _HOP}
        return StreamingResponse(pieces(), answer.status_code, passed)

    async def models(request: Request) -> Response:  # noqa: ARG001
        return JSONResponse({"object": "list", "data": []})

    return Starlette(
        routes=[Route("/v1/chat/completions", relay, methods=["POST"]), Route("/v1/models", models)],
    )


if __name__ == "__main__":
    uvicorn.run(
        application(f"http://127.0.0.1:{sys.argv[2]}"),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
        backlog=4096,
    )
