"""Which voice the router has, by API and mode."""

import json

import pytest

from llm_router.wire import faces
from llm_router.wire.classic import LinesFace
from llm_router.wire.errors import Fault
from llm_router.wire.faces import OllamaFace
from llm_router.wire.ollama import Form
from llm_router.wire.paths import Api
from llm_router.wire.status import ChunkFace, CommentFace, MessagesFace, ResponsesFace
from llm_router.wire.wording import ClassicWords


@pytest.mark.parametrize(
    ("api", "kinds"),
    [
        (Api.chat, [ChunkFace, LinesFace, LinesFace, CommentFace]),
        (Api.completions, [ChunkFace, LinesFace, ChunkFace, CommentFace]),
        (Api.responses, [ResponsesFace, ResponsesFace, ResponsesFace, CommentFace]),
        (Api.messages, [MessagesFace, MessagesFace, MessagesFace, CommentFace]),
        (Api.ollama, [OllamaFace, OllamaFace, OllamaFace, OllamaFace]),
        (Api.other, [CommentFace, CommentFace, CommentFace, CommentFace]),
    ],
)
def test_each_api_has_the_modes_that_it_can_have(api: Api, kinds: list[type]) -> None:
    modes = ("event", "content", "reasoning", "comment")
    assert [type(faces.choose(api, mode, "i", "m", 1)) for mode in modes] == kinds
    assert faces.choose(api, "off", "i", "m", 1) is None


def test_an_answer_for_a_program_has_no_lines_in_it() -> None:
    for mode in ("content", "reasoning"):
        assert type(faces.choose(Api.chat, mode, "i", "m", 1, structured=True)) is ChunkFace


def test_the_lines_know_how_long_a_load_may_take() -> None:
    face = faces.choose(Api.chat, "content", "i", "m", 1, limit_s=180.0)
    assert face is not None
    assert face.words == ClassicWords(180.0)


@pytest.mark.parametrize("api", list(Api))
def test_an_error_can_be_told_where_the_router_is_silent(api: Api) -> None:
    assert b"cannot" in faces.for_errors(api, "i", "m", 1).error(Fault(503, "c", "cannot"))
    assert not faces.tells_errors(None)
    assert not faces.tells_errors(CommentFace())
    assert faces.tells_errors(faces.choose(Api.chat, "event", "i", "m", 1))


@pytest.mark.parametrize("form", [Form.chat, Form.generate])
@pytest.mark.parametrize("mode", ["event", "content", "reasoning", "comment"])
def test_ollamas_streams_are_lines_of_json_that_clients_can_add_up(form: Form, mode: str) -> None:
    face = OllamaFace(form, "m", 0.0, mode, None)
    blocks = [face.opening("a"), face.news("b"), face.keepalive(), face.last("c"), face.last(None), face.closing("d")]
    text, thought = "", ""
    for line in b"".join(blocks).splitlines():
        value = json.loads(line)
        message = value.get("message") or {"content": value.get("response"), "thinking": value.get("thinking")}
        text += message["content"]
        thought += message.get("thinking") or ""
        assert value["done"] is False
        assert ("status" in value) <= (mode == "event")
    assert bool(text) is (mode == "content")
    assert bool(thought) is (mode == "reasoning")
