"""Answers in another form: the same however they are cut, and whole or an error, never a part of one."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.backend import DONE, chunk, usage
from llm_router.wire import faces, interpreters
from llm_router.wire.answer import Terms
from llm_router.wire.content import Content
from llm_router.wire.dialect import Dialect
from llm_router.wire.errors import BadRequestError, Fault
from llm_router.wire.interpreters import Interpreter, Scene
from llm_router.wire.order import read
from llm_router.wire.paths import Api, route
from llm_router.wire.translated import Kept, TranslatedAnswer

CHATS_ONLY = Dialect(serves=frozenset({"/v1/chat/completions"}))
BODIES: dict[str, dict[str, Any]] = {
    "/v1/messages": {"model": "m", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "hi"}]},
    "/v1/responses": {"model": "m", "stream": True, "input": "hi"},
    "/api/chat": {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
    "/api/generate": {"model": "m", "prompt": "hi"},
}


def interpreter(path: str) -> Interpreter:
    body = json.dumps(BODIES[path]).encode()
    found = route(path.encode())
    assert found is not None
    if found.api is Api.ollama:
        made = interpreters.read_ollama(found, body)[1]
    else:
        made = interpreters.needed(read(found, b"", b"application/json", Content(body)), Content(body), CHATS_ONLY)
    assert made is not None
    return made


def answer(path: str, opened: bool = False) -> TranslatedAnswer:
    found = route(path.encode())
    assert found is not None
    face = faces.choose(found.api, "event", "id", "m", 1)
    assert face is not None
    if opened:
        face.opening("Loading")
    scene = Scene("id", "m", 100.0, 1.0, face, opened)
    return TranslatedAnswer(Terms(face=face, opened=opened), interpreter(path).stream(scene), face, 0.0)


def play(path: str, blocks: list[bytes], cuts: list[int]) -> tuple[TranslatedAnswer, bytes]:
    data = b"".join(blocks)
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    made = answer(path)
    out = b"".join(made.feed(data[begin:end], 101.0) for begin, end in itertools.pairwise(edges) if not made.done)
    return made, out + (b"" if made.done else made.end(101.0))


CALL = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLING = json.dumps({"choices": [{"index": 0, "delta": {"tool_calls": [CALL]}, "finish_reason": None}]})
PIECES = st.sampled_from(
    [
        chunk("é🙂"),
        chunk("a"),
        b": ping\n\n",
        b"data: %b\n\n" % CALLING.encode(),
        chunk(None, "stop"),
        usage(),
        DONE,
        chunk(None, "tool_calls"),
        b'data: {"error":{"message":"no"}}\n\n',
        b"data: \xff\n\n",
    ]
)


@pytest.mark.parametrize("path", BODIES)
@given(blocks=st.lists(PIECES, max_size=6), cuts=st.lists(st.integers(0, 3000), max_size=8))
def test_however_a_stream_is_cut_the_client_reads_the_same(path: str, blocks: list[bytes], cuts: list[int]) -> None:
    whole, expected = play(path, blocks, [])
    cut, out = play(path, blocks, cuts)
    assert out == expected
    assert (cut.done, cut.failed, cut.continues) == (True, whole.failed, whole.continues)
    assert cut.terms.meter.completion == whole.terms.meter.completion


@pytest.mark.parametrize("path", BODIES)
def test_a_stream_without_its_end_is_an_error(path: str) -> None:
    made, out = play(path, [chunk("a")], [])
    assert made.failed
    assert b"error" in out.splitlines()[-1] + out.splitlines()[-2]


@pytest.mark.parametrize("path", BODIES)
def test_what_breaks_off_is_told_in_the_clients_form_and_order(path: str) -> None:
    made = answer(path, opened=True)
    made.feed(chunk("a"), 101.0)
    out = made.broken(Fault(502, "c", "cannot go on"))
    assert b"cannot go on" in out
    if path == "/v1/responses":
        assert json.loads(out.split(b"data: ")[1])["sequence_number"] > 3
    assert (made.done, made.failed) == (True, True)


def test_tools_and_counts_are_noticed() -> None:
    made, _ = play("/v1/messages", [chunk("a"), chunk(None, "tool_calls"), usage(5, 7), DONE], [])
    assert made.continues
    assert (made.terms.meter.prompt, made.terms.meter.completion) == (5, 7)


# Whole answers


def test_a_kept_answer_passes_as_it_came_and_tells_its_speed() -> None:
    kept = Kept(Terms(), 200, None)
    body = b'{ "usage":{"prompt_tokens":3,"completion_tokens":2},"choices":[{"finish_reason":"tool_calls"}]}'
    assert kept.feed(body[:9], 1.0) + kept.feed(body[9:], 1.0) + kept.end(2.0) == b""
    assert kept.result == body
    assert kept.continues
    assert kept.lines() == [b"x-llm-router-tokens: 2\r\n", b"x-llm-router-prompt-tokens: 3\r\n"]


def test_a_kept_answer_is_turned_or_a_fault() -> None:
    def turn(body: bytes, now: float) -> bytes:
        if body == b"bad":
            raise ValueError("cannot translate it")
        return b"%b at %d" % (body, now)

    good, bad, refused = Kept(Terms(), 200, turn, 10.0), Kept(Terms(), 200, turn), Kept(Terms(), 429, turn)
    for kept, body in ((good, b"x"), (bad, b"bad"), (refused, b'{"error":"slow down"}')):
        kept.feed(body, 1.0)
        kept.end(2.0)
    assert good.result == b"x at 12"
    assert bad.fault is not None
    assert (bad.fault.status, bad.fault.code) == (502, "engine_answered_badly")
    assert refused.fault is not None
    assert (refused.fault.status, refused.fault.message) == (429, "slow down")


# Who is interpreted


@pytest.mark.parametrize(
    ("path", "serves", "needed"),
    [
        ("/v1/messages", None, False),
        ("/v1/messages", {"/v1/messages"}, False),
        ("/v1/messages", set(), True),
        ("/v1/responses", {"/v1/chat/completions"}, True),
        ("/v1/messages/count_tokens", set(), True),
        ("/v1/chat/completions", set(), False),
        ("/v1/embeddings", set(), False),
    ],
)
def test_only_who_needs_it_is_interpreted(path: str, serves: set[str] | None, needed: bool) -> None:
    found = route(path.encode())
    assert found is not None
    body = json.dumps({**BODIES["/v1/messages"], "input": "hi"}).encode()
    dialect = Dialect(serves=None if serves is None else frozenset(serves))
    made = interpreters.needed(read(found, b"", b"application/json", Content(body)), Content(body), dialect)
    assert (made is not None) is needed


def test_what_cannot_be_translated_is_refused() -> None:
    found = route(b"/v1/responses")
    assert found is not None
    body = b'{"model":"m","input":"x","previous_response_id":"r"}'
    with pytest.raises(BadRequestError, match="nothing is stored here"):
        interpreters.needed(read(found, b"", b"application/json", Content(body)), Content(body), CHATS_ONLY)


def test_a_name_may_have_ollamas_tag() -> None:
    assert interpreters.names("m:latest") == ("m:latest", "m")
    assert interpreters.names("m:7b") == ("m:7b",)
