import json

import pytest

from fakes.backend import chunk
from llm_router.wire import forms, join, sse
from llm_router.wire.answer import EventAnswer, PlainAnswer, Terms
from llm_router.wire.chunks import ChunkAnswer
from llm_router.wire.errors import of_engine
from llm_router.wire.events import MessagesAnswer, ResponsesAnswer
from llm_router.wire.forms import Collected, Joined, answer_for
from llm_router.wire.paths import Api
from llm_router.wire.status import face


def test_each_api_has_its_reader() -> None:
    kinds = {api: type(answer_for(api, True, b"text/event-stream", Terms())) for api in Api}
    assert kinds == {
        Api.chat: ChunkAnswer,
        Api.completions: ChunkAnswer,
        Api.responses: ResponsesAnswer,
        Api.messages: MessagesAnswer,
        Api.ollama: EventAnswer,
        Api.other: EventAnswer,
    }
    assert type(answer_for(Api.chat, False, b"application/json", Terms())) is PlainAnswer


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        (b'{"error":{"message":"a","code":"c"}}', "a", "c"),
        (b'{"error":"a"}', "a", "engine_error"),
        (b'{"object":"error","message":"a","code":400,"type":"t"}', "a", "engine_error"),
        (b'{"detail":"a"}', "a", "engine_error"),
        (b"<html>", "<html>", "engine_error"),
        (b"", "the engine answered with status 400 and no text", "engine_error"),
        (b'{"error":{"message":"a","type":"t","code":400}}', "a", "t"),
    ],
)
def test_the_errors_of_all_engines_are_read(body: bytes, message: str, code: str) -> None:
    fault = of_engine(400, body)
    assert (fault.message, fault.code, fault.status) == (message, code, 400)


def test_an_answer_that_is_no_stream_becomes_an_error() -> None:
    answer = Collected(Terms(face=face(Api.chat, "event", "i", "m", 1)), 500, b"application/json")
    assert answer.feed(b'{"error":', 1.0) == b""
    answer.feed(b'"a"}', 1.0)
    out = answer.end(2.0)
    assert json.loads(out[6 : out.index(b"\n")])["error"]["message"] == "a"


def joined(*blocks: bytes) -> Joined:
    joiner = join.joiner("/v1/chat/completions")
    assert joiner is not None
    answer = Joined(joiner, Terms())
    for at, block in enumerate(blocks):
        assert answer.feed(block, float(at)) == b""
    answer.end(9.0)
    return answer


def test_a_stream_is_joined_and_measured() -> None:
    answer = joined(chunk("a"), chunk("b"), chunk("c", "stop"))
    assert answer.fault is None
    assert json.loads(answer.result)["choices"][0]["message"]["content"] == "abc"
    assert answer.lines() == [b"x-llm-router-tokens: 3\r\n", b"x-llm-router-tokens-per-second: 1.0\r\n"]


def test_what_is_not_whole_is_no_answer() -> None:
    assert joined(chunk("a")).fault is not None
    broken = joined(chunk("a"), b'data: {"error":"x"}\n\n')
    assert broken.fault is not None
    assert (broken.fault.status, broken.fault.message) == (502, "x")


def test_a_stream_without_end_is_not_put_together_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "JOINED_LIMIT", 10_000)
    joiner = join.joiner("/v1/chat/completions")
    assert joiner is not None
    answer = Joined(joiner, Terms())
    piece = chunk("x" * 100)
    for _ in range(10_000 // len(piece)):
        assert answer.feed(piece, 0.0) == b""
    with pytest.raises(sse.EventTooLongError, match="put together"):
        answer.feed(piece, 0.0)
