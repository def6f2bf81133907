"""A router's admin interface for tests of its clients: real HTTP on loopback, scripted answers."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]


def status(*models: Json, **more: Any) -> Json:
    """A whole answer of ``/api/status``."""
    return {
        "router": {"version": "9.9", "uptime_s": 3720.0, "address": "http://127.0.0.1:8002"},
        "models": [model(**entry) for entry in models],
        "instances": [],
        "queue": [],
        "devices": [],
        "failures": [],
        **more,
    }


def model(name: str, **more: Any) -> Json:
    """One entry of its list of models."""
    entry = {"name": name, "state": "gone", "engine": "llamacpp", "loaded": False, "pinned": False, "default": False}
    return {**entry, "aliases": [], "context": None, "waiting": 0, "running": 0, "last_load_s": None, **more}


def chunk(content: str | None = None, **more: Any) -> Json:
    """One chunk of a streamed chat."""
    finish = more.pop("finish", None)
    delta = {"content": content} if content is not None else {}
    return {
        "id": "c",
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        **more,
    }


def told(description: str, *, done: bool = False) -> Json:
    """A chunk that carries a status."""
    return chunk("", event={"type": "status", "data": {"description": description, "done": done}})


@dataclass
class AdminApi:
    """What it answers, and what it was asked. The last status is repeated for ever."""

    statuses: list[Json] = field(default_factory=lambda: [status()])
    #: Path -> HTTP status and body, before anything else.
    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)
    chunks: list[Json] = field(default_factory=list)
    #: Whether the stream of a chat ends as it should.
    finishes: bool = True
    key: str | None = None
    asked: list[tuple[str, Any]] = field(default_factory=list)
    url: str = ""

    def answer(self, path: str) -> tuple[int, Any]:
        if path in self.answers:
            return self.answers[path]
        if path == "/api/status":
            return 200, self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if path in {"/models/load", "/models/unload"}:
            return 200, {"success": True}
        return 404, {"error": {"message": f"cannot find {path}", "code": "not_found"}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # one write an answer, so that no acknowledgement is waited for
    api: AdminApi

    def do_GET(self) -> None:
        self._serve(None)

    def do_POST(self) -> None:
        self._serve(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _serve(self, body: Any) -> None:
        self.api.asked.append((self.path, body))
        if self.api.key is not None and self.headers["Authorization"] != f"Bearer {self.api.key}":
            self._send(401, {"error": {"message": "cannot accept the request: it has no key"}})
        elif self.path == "/v1/chat/completions" and self.path not in self.api.answers:
            self._stream()
        else:
            self._send(*self.api.answer(self.path))

    def _send(self, code: int, body: Any) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for item in self.api.chunks:
            self.wfile.write(b"data: " + json.dumps(item).encode() + b"\n\n")
        if self.api.finishes:
            self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Silence: the tests look at ``asked``."""


@contextmanager
def running(api: AdminApi) -> Iterator[AdminApi]:
    """The interface on a port of its own."""
    handler = type("Handler", (_Handler,), {"api": api})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        api.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield api
        finally:
            server.shutdown()
            thread.join()
