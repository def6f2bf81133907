"""What the router writes itself: header lines as far as facts are known, spaces in time, errors in the client's form."""

import asyncio
import json
from typing import cast

import pytest

from llm_router.host.road.incoming import Request
from llm_router.host.road.letter import Letter, last_word, permission
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


def asking(origin: bytes = b"") -> Request:
    """A request for Anthropic's API, whose errors have another form than OpenAI's."""
    found = route(b"/v1/messages")
    assert found is not None
    request = Request(found, b"POST", b"/v1/messages", b"", [])
    request.origin = origin
    return request


@pytest.mark.parametrize("known", [True, False])
def test_the_last_word_has_the_form_of_the_clients_api_as_far_as_it_is_known(known: bool) -> None:
    head, _, body = last_word(FAULT, asking() if known else None, "id1").partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    assert status.startswith(b"HTTP/1.1 503 ")
    assert set(lines) > {b"connection: close", b"x-request-id: id1", b"retry-after: 2"}
    assert b"content-length: %d" % len(body) in lines
    assert (json.loads(body).get("type") == "error") is known


@pytest.mark.parametrize(("status", "told"), [(503, True), (403, False)])
def test_a_page_may_read_the_last_word_unless_it_is_refused_itself(status: int, told: bool) -> None:
    fault = Fault(status, "x", "cannot do it")
    assert (b"access-control-allow-origin: http://a" in last_word(fault, asking(b"http://a"), "id1")) is told


@pytest.mark.parametrize(("origin", "keep"), [(b"http://a", True), (b"", False)])
def test_a_preflight_is_permitted_to_who_was_let_in(origin: bytes, keep: bool) -> None:
    request = asking(origin)
    request.keep_alive = keep
    said = permission(request)
    assert said.startswith(b"HTTP/1.1 204 ")
    assert said.endswith(b"\r\n\r\n")
    assert (b"access-control-allow-methods" in said) is bool(origin)
    assert (b"connection: close" in said) is not keep
