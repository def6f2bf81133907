"""Lines inside an answer: where they stand in a chunk, and that they come out of the history again."""

import itertools
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.backend import DONE, chunk, usage
from llm_router.wire import faces, sse
from llm_router.wire.answer import Terms
from llm_router.wire.chunks import ChunkAnswer
from llm_router.wire.lines import without, without_unmarked
from llm_router.wire.paths import Api
from llm_router.wire.status import Face


def a_face(api: Api = Api.chat, mode: str = "content", **more: Any) -> Face:
    found = faces.choose(api, mode, "id", "m", 17, **more)
    assert found is not None
    return found


def values(block: bytes) -> list[Any]:
    texts = [sse.payload(event) for event in sse.events(block)]
    return [json.loads(text) for text in texts if text is not None and text != b"[DONE]"]


def said(block: bytes) -> str:
    return "".join(value["choices"][0]["delta"].get("content") or "" for value in values(block) if value["choices"])


def play(blocks: list[bytes], cuts: list[int] = [], **more: Any) -> tuple[ChunkAnswer, bytes]:  # noqa: B006
    """The blocks through an answer in content mode, cut anew at these places."""
    answer = ChunkAnswer(Terms(**{"face": a_face(), **more}))
    data = b"".join(blocks)
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    pieces = [data[begin:end] for begin, end in itertools.pairwise(edges)]
    out = b"".join(answer.feed(piece, 5.0) for piece in pieces if not answer.done)
    return answer, out + (b"" if answer.done else answer.end(5.0))


TIMINGS = {"predicted_n": 2, "predicted_ms": 100.0, "predicted_per_second": 20.0}


@pytest.mark.parametrize("marked", [True, False])
def test_a_whole_conversation_leaves_nothing_but_the_answer(marked: bool) -> None:
    face = a_face(marked=marked)
    words = face.words
    text = said(
        face.opening(words.waiting("m"))
        + face.news(words.reading("m"))
        + face.last(words.ready("m", 4.0))
        + play([chunk("Hello"), chunk(None, "stop", timings=TIMINGS), DONE], face=face)[1]
    )
    assert text.count("\n") == 6
    assert (without if marked else without_unmarked)(text) == "Hello"
    assert without(text) == ("Hello" if marked else text)


@pytest.mark.parametrize(
    "ending",
    [
        [chunk(None, "stop", timings=TIMINGS), DONE],
        [chunk(None, "stop"), usage(3, 2), DONE],
        [chunk("", "stop"), usage(3, 2)],
        [chunk("!", "stop"), usage(3, 2), DONE],
    ],
)
def test_the_footer_comes_before_the_end_of_the_text_and_knows_the_engines_count(ending: list[bytes]) -> None:
    _, out = play([chunk("Hi"), *ending])
    assert "tok/s (2 tokens in" in said(out)
    chunks = [value for value in values(out) if value["choices"]]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert [value["choices"][0]["finish_reason"] for value in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert without(said(out)) in ("Hi", "Hi!")
    assert out.endswith(DONE)


@pytest.mark.parametrize(
    ("blocks", "more"),
    [
        ([chunk("Hi"), chunk(None, "tool_calls"), DONE], {}),
        ([chunk("Hi"), chunk(None, "stop"), DONE], {"closing": False}),
        ([chunk(None, "stop"), DONE], {}),
    ],
)
def test_no_footer_where_it_would_do_harm(blocks: list[bytes], more: dict[str, Any]) -> None:
    _, out = play(blocks, **more)
    assert out == b"".join(blocks)


def test_several_choices_have_no_footer() -> None:
    second = chunk(None, "stop").replace(b'"index": 0', b'"index": 1')
    _, out = play([chunk("Hi"), chunk(None, "stop"), second, DONE], choices=2)
    assert "tok/s" not in said(out)


def test_an_error_after_the_text_is_told() -> None:
    answer, out = play([chunk("Hi"), b'data: {"error":"x"}\n\n'])
    assert answer.failed
    assert values(out)[-1]["error"]["message"] == "x"
    assert "tok/s" not in out.decode()


PIECES = st.sampled_from([chunk("é"), chunk("🙂"), chunk("a", None), b": x\n\n", chunk("z", "stop"), usage(), DONE])


@given(st.lists(PIECES, max_size=6), st.lists(st.integers(0, 4000), max_size=8))
def test_however_a_stream_is_cut_the_client_reads_the_same(blocks: list[bytes], cuts: list[int]) -> None:
    # What the router counts itself, it counts by blocks.
    expected, out = (
        re.sub("⚡ .*?s\\)", "⚡", json.dumps(values(play(blocks, at)[1]), ensure_ascii=False)) for at in ([], cuts)
    )
    assert out == expected


def test_a_load_begins_with_the_switch() -> None:
    face = a_face()
    assert without_unmarked(said(face.opening("⏳ Loading m... 3s"))) == ""
    assert said(face.opening("⏳ Loading m... 3s")).count("Switching to m") == 1
    assert "Switching" not in said(face.opening("🕒 2nd in line for m"))


def test_completions_have_lines_but_no_footer_and_thinking_stands_apart() -> None:
    (value,) = values(a_face(Api.completions).news("x"))
    assert "x" in value["choices"][0]["text"]
    assert not a_face(Api.completions).footer
    (value,) = values(a_face(mode="reasoning").news("x"))
    delta = value["choices"][0]["delta"]
    assert (delta["content"], "x" in delta["reasoning_content"]) == ("", True)
    assert values(a_face(mode="reasoning").closing("fast"))[0]["event"]["data"]["description"] == "fast"
