import socket
from collections.abc import Iterator

import pytest

from fakes.admin_api import AdminApi, chunk
from llm_router.doors.cli.client import Router
from llm_router.doors.cli.exits import CommandError, Exit


@pytest.fixture
def router(api: AdminApi) -> Iterator[Router]:
    with Router(api.url, None) as found:
        yield found


def test_models(api: AdminApi, router: Router) -> None:
    api.answers["/v1/models"] = (200, {"data": [{"id": "a"}, "odd"]})
    api.answers["/v1/models/a%20b"] = (200, {"id": "a b"})
    assert router.models() == [{"id": "a"}]
    assert router.model("a b") == {"id": "a b"}
    api.answers["/v1/models"] = (200, {"data": None})
    assert router.models() == []


def test_nobody_listens() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        with (
            Router(url, None) as router,
            pytest.raises(CommandError, match="Start it with `llm-router serve`") as caught,
        ):
            router.status()
    assert caught.value.code is Exit.unreachable


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    api: AdminApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with Router(api.url, None) as router:
        assert router.status()["router"]["version"] == "9.9"


def test_somebody_else_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        server.close()
        with Router(url, None) as router, pytest.raises(CommandError) as caught:
            router.status()
    assert caught.value.code is Exit.unreachable


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"5", b""])
def test_an_answer_that_is_not_the_routers(api: AdminApi, router: Router, body: bytes) -> None:
    api.answers["/api/status"] = (200, body)
    with pytest.raises(CommandError, match="it is no llm-router"):
        router.status()


@pytest.mark.parametrize(
    ("status", "body", "text", "code"),
    [
        (401, {"error": {"message": "cannot accept it"}}, "cannot accept it; give a key with --key or", Exit.forbidden),
        (403, {}, "cannot do this: the router wants a key; give", Exit.forbidden),
        (404, {"error": "odd"}, "cannot do this: odd", Exit.unknown),
        (404, b"x", "cannot do this: the router does not know it", Exit.unknown),
        (500, [], "cannot do this: the router answers 500", Exit.failed),
        (503, {"error": {"message": "cannot load x"}}, "cannot load x", Exit.failed),
    ],
)
def test_refusals(api: AdminApi, router: Router, status: int, body: object, text: str, code: Exit) -> None:
    api.answers["/models/load"] = (status, body)
    with pytest.raises(CommandError) as caught:
        router.load("x")
    assert caught.value.text.startswith(text)
    assert caught.value.code is code


def test_a_stream_that_is_no_stream(api: AdminApi, router: Router) -> None:
    api.answers["/v1/chat/completions"] = (200, {"choices": []})
    with pytest.raises(CommandError, match="cannot speak with the router"):
        list(router.chat({}))


def test_what_comes_after_the_end_of_a_stream_is_not_read(api: AdminApi, router: Router) -> None:
    api.chunks = [chunk("a")]
    assert [item["choices"][0]["delta"] for item in router.chat({})] == [{"content": "a"}]


@pytest.mark.parametrize("odd", [[], "text", 5])
def test_a_chunk_that_is_no_chunk(api: AdminApi, router: Router, odd: object) -> None:
    api.chunks = [odd]  # type: ignore[list-item]  # what is tried here
    with pytest.raises(CommandError, match="no JSON object"):
        list(router.chat({}))
