import json
from typing import Any

import pytest

from llm_router.wire import sse, status
from llm_router.wire.errors import Fault
from llm_router.wire.paths import Api
from llm_router.wire.status import Face, Pace, face

FAULT = Fault(503, "model_load_failed", "cannot load m", "server_error")


def a_face(api: Api, mode: str = "event") -> Face:
    found = face(api, mode, "id", "m", 17)
    assert found is not None
    return found


def values(block: bytes) -> list[Any]:
    texts = [sse.payload(event) for event in sse.events(block)]
    return [json.loads(text) for text in texts if text is not None and text != b"[DONE]"]


def test_the_status_chunk_is_exactly_what_clients_were_tried_with() -> None:
    assert a_face(Api.chat).news("Loading m: 40 %") == (
        b'data: {"id":"chatcmpl-id","object":"chat.completion.chunk","created":17,"model":"m","choices":[{"index":0,'
        b'"delta":{"role":"assistant","content":""},"finish_reason":null}],"event":{"type":"status","data":'
        b'{"description":"Loading m: 40 %","done":false}}}\n\n'
    )


def test_completions_have_a_text_instead_of_a_delta() -> None:
    (value,) = values(a_face(Api.completions).opening("x"))
    assert value["object"] == "text_completion"
    assert value["choices"] == [{"index": 0, "text": "", "logprobs": None, "finish_reason": None}]


def test_the_last_status_is_done_and_hidden_if_there_is_nothing_to_keep() -> None:
    chat = a_face(Api.chat)
    assert values(chat.last("m ready (42 s)"))[0]["event"]["data"] == {"description": "m ready (42 s)", "done": True}
    assert values(chat.last(None))[0]["event"]["data"] == {"description": "ready", "done": True, "hidden": True}
    assert values(chat.closing("x"))[0]["event"]["data"]["done"] is True


@pytest.mark.parametrize("api", list(Api))
@pytest.mark.parametrize("mode", ["event", "comment"])
def test_every_face_gives_whole_events_and_never_a_ping_comment(api: Api, mode: str) -> None:
    one = a_face(api, mode)
    said = [one.opening("a\nb"), one.news("c"), one.keepalive(), one.last("d"), one.last(None), one.closing("e")]
    for block in [*said, one.error(FAULT)]:
        assert block == b"" or block.endswith(b"\n\n")
        assert b": ping" not in block.replace(b"event: ping", b"")
        assert b"retry:" not in block


def test_an_error_has_no_choices_and_ends_the_stream() -> None:
    block = a_face(Api.chat).error(FAULT)
    assert block.endswith(sse.DONE)
    assert values(block) == [
        {"error": {"message": "cannot load m", "type": "server_error", "param": None, "code": "model_load_failed"}}
    ]


def test_responses_begin_officially_and_count() -> None:
    one = a_face(Api.responses)
    said = values(one.opening("a") + one.news("b") + one.last(None) + one.error(FAULT))
    assert [value["type"] for value in said] == ["response.created", *["response.in_progress"] * 3, "error"]
    assert [value["sequence_number"] for value in said] == [0, 1, 2, 3, 4]
    assert said[-1]["error"]["code"] == "model_load_failed"


def test_messages_begin_officially_and_ping() -> None:
    one = a_face(Api.messages)
    assert [value["type"] for value in values(one.opening("a") + one.news("b"))] == ["message_start", "ping", "ping"]
    assert values(one.error(FAULT))[0]["error"]["type"] == "overloaded_error"


def test_silence_is_a_mode() -> None:
    assert status.face(Api.chat, "off", "id", "m", 0) is None


def test_the_pace_of_news() -> None:
    pace = Pace(every_s=5, gap_s=0.5, silence_s=8)
    assert pace.say("loading", 1, "10 %", 0.0)
    assert not pace.say("loading", 1, "11 %", 4.9)
    assert pace.say("loading", 1, "12 %", 5.0)
    assert not pace.say("loading", 2, "graphs", 5.4)
    assert pace.say("loading", 2, "graphs", 5.5)
    assert pace.say("ready", 3, "x", 5.5)
    assert not pace.say("ready", 3, "x", 99.0)
    assert not pace.silent(13.4)
    assert pace.silent(13.5)
    assert not pace.silent(14.0)
    pace.wrote(20.0)
    assert not pace.silent(27.9)
