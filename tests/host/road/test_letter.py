"""What the router writes itself: header lines as far as facts are known, spaces in time, errors in the client's form."""

import asyncio
import json
from typing import cast

import pytest

from llm_router.host.road.incoming import Request
from llm_router.host.road.letter import Letter
from llm_router.host.road.reply import Reply
from llm_router.wire.errors import Fault
from llm_router.wire.paths import route

FAULT = Fault(503, "model_loading", "cannot answer yet", retry_after_s=2.0)


class Wire:
    """Takes what is written."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    @property
    def body(self) -> bytes:
        return self.written.partition(b"\r\n\r\n")[2]


def letter(path: bytes = b"/v1/chat/completions", origin: bytes = b"") -> tuple[Letter, Wire]:
    found = route(path)
    assert found is not None
    request = Request(found, b"POST", path, b"", [])
    request.origin = origin
    wire = Wire()
    reply = Reply(cast("asyncio.Transport", wire), old=False, head_only=False, keep=True)
    return Letter(reply, request, "id1", 8.0, 100.0), wire


def test_spaces_come_in_time_and_promise_once() -> None:
    made, wire = letter()
    assert [made.space(now) for now in (107.9, 108.0, 115.9, 116.0)] == [False, True, False, False]
    assert wire.written.startswith(b"HTTP/1.1 200 OK\r\n")
    assert wire.written.count(b"x-llm-router-keep-alive: whitespace") == 1
    made.whole(503, [], b"{}")
    assert wire.body == b"1\r\n \r\n" * 2 + b"2\r\n{}\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("path", "key"), [(b"/v1/chat/completions", "type"), (b"/v1/messages", "message"), (b"/api/chat", "")]
)
def test_an_error_has_the_form_of_its_api(path: bytes, key: str) -> None:
    made, wire = letter(path)
    made.fault(FAULT)
    assert wire.written.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 2\r\n" in wire.written
    assert b"x-request-id: id1\r\n" in wire.written
    error = json.loads(wire.body)["error"]
    assert (error[key] if key else error) in ("server_error", "cannot answer yet")


def test_a_page_may_read_the_answer() -> None:
    made, _ = letter(origin=b"http://localhost:3000")
    assert any(b"access-control-allow-origin: http://localhost:3000" in line for line in made.lines())
