"""However an engine mixes the parts of its answer, they come out one after the other, each whole."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router.wire.pieces import Begin, End, Failed, Finished, Grow, Kind, Pieces, Step, whole


def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    return json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}).encode()


def call(
    index: int | None, fragment: str | None = None, name: str | None = None, ident: str | None = None
) -> dict[str, Any]:
    return {"tool_calls": [{"index": index, "id": ident, "function": {"name": name, "arguments": fragment}}]}


def steps(*payloads: bytes) -> list[Step]:
    pieces = Pieces()
    found = [step for payload in payloads for step in pieces.feed(payload)]
    found += pieces.end()
    assert pieces.over
    assert pieces.feed(chunk({"content": "more"})) == []
    assert pieces.end() == []
    return found


def short(found: list[Step]) -> list[str]:
    """Steps for reading: ``<`` begins a piece, ``>`` ends it."""
    words = []
    for step in found:
        match step:
            case Begin(kind, ident, name):
                words.append(f"<{kind.value}{ident and ':' + ident}{name and ':' + name}")
            case Grow(text):
                words.append(text)
            case End():
                words.append(">")
            case Finished(choice, _, called):
                words.append(f"{choice['finish_reason']}{' called' if called else ''}")
            case Failed(text):
                words.append(f"failed: {text}")
    return words


def test_parts_in_a_row() -> None:
    found = steps(
        chunk({"role": "assistant", "content": None}),
        chunk({"reasoning_content": "h"}),
        chunk({"reasoning_content": "m", "content": "so"}),
        chunk({"content": ""}),
        chunk(call(0, "{", "f", "a")),
        chunk(call(0, "}")),
        chunk({}, "tool_calls"),
        b'{"choices":[],"usage":{"completion_tokens":4}}',
        b"[DONE]",
    )
    assert short(found) == [
        "<thinking",
        "h",
        "m",
        ">",
        "<text",
        "so",
        ">",
        "<tool:a:f",
        "{",
        "}",
        ">",
        "tool_calls called",
    ]
    assert isinstance(found[-1], Finished)
    assert found[-1].usage == {"completion_tokens": 4}


def test_calls_that_are_mixed_wait_for_each_other() -> None:
    found = steps(
        chunk(call(0, "1", "f")), chunk(call(1, "2", "g")), chunk(call(0, "3")), chunk(call(1, "4")), chunk({}, "stop")
    )
    assert short(found) == ["<tool:f", "1", "3", ">", "<tool:g", "2", "4", ">", "stop called"]


def test_calls_without_an_index_are_whole() -> None:
    assert short(steps(chunk(call(None, "1", "f")), chunk(call(None, "2", "g")), chunk({}, "stop"))) == [
        *("<tool:f", "1", ">", "<tool:g", "2", ">"),
        "stop called",
    ]


def test_a_call_that_goes_on_after_its_end_has_failed() -> None:
    found = steps(chunk(call(0, "1", "f")), chunk({"content": "t"}), chunk(call(0, "2")), chunk({}, "stop"))
    says = "failed: the engine went on with a tool call that it had ended"
    assert short(found)[-1] == says
    both = {"tool_calls": [*call(0, "2")["tool_calls"], *call(1, "3")["tool_calls"]]}
    assert short(steps(chunk(call(0, "1", "f")), chunk({"content": "t"}), chunk(both)))[-1] == says


@pytest.mark.parametrize(
    ("payloads", "says"),
    [
        ([b"[DONE]"], "the engine broke the answer off"),
        ([chunk({}, "abort")], "the engine broke the answer off"),
        ([b'{"error":"text"}', chunk({}, "stop")], "text"),
        ([b"{", chunk({}, "stop")], "the engine sent an event that cannot be read"),
    ],
)
def test_no_clean_end_without_one(payloads: list[bytes], says: str) -> None:
    assert short(steps(*payloads)) == [f"failed: {says}"]


def test_what_is_no_chunk_is_passed_over() -> None:
    assert short(steps(b"null", b"[]", b"{}", b'{"choices":[7]}', chunk({"tool_calls": [7]}), chunk({}, "stop"))) == [
        "stop"
    ]


def test_a_whole_answer() -> None:
    message = {
        "content": "so",
        "reasoning": "hm",
        "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{}"}}, 7, {}],
    }
    body = json.dumps(
        {"id": "c", "choices": [{"message": message, "finish_reason": "stop"}], "usage": {"total_tokens": 3}}
    )
    answer, found = whole(body.encode())
    assert answer["id"] == "c"
    assert short(found) == [
        "<thinking",
        "hm",
        ">",
        "<text",
        "so",
        ">",
        "<tool:a:f",
        "{}",
        ">",
        "<tool",
        ">",
        "stop called",
    ]
    assert found[-1] == Finished(answer["choices"][0], {"total_tokens": 3}, True)


@pytest.mark.parametrize("body", [b"{", b"[]", b"{}", b'{"choices":[{"message":{},"finish_reason":"abort"}]}'])
def test_what_is_no_whole_answer(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"^cannot translate the engine's answer"):
        whole(body)


FRAGMENTS = st.one_of(
    st.builds(lambda text: {"content": text}, st.text(max_size=2)),
    st.builds(lambda text: {"reasoning": text}, st.text(max_size=2)),
    st.builds(call, st.integers(0, 3), st.text(max_size=2)),
)


@given(st.lists(FRAGMENTS, max_size=10))
def test_pieces_are_always_in_a_row_and_nothing_is_lost(fragments: list[dict[str, Any]]) -> None:
    found = steps(*(chunk(fragment) for fragment in fragments), chunk({}, "stop"))
    depth, said = 0, dict.fromkeys(Kind, "")
    kind = Kind.text
    for step in found[:-1]:
        match step:
            case Begin():
                depth, kind = depth + 1, step.kind
            case Grow(text):
                said[kind] += text
            case End():
                depth -= 1
        assert depth in (0, 1)
    if isinstance(found[-1], Failed):
        return
    assert depth == 0
    assert said[Kind.text] == "".join(fragment.get("content", "") for fragment in fragments)
    assert said[Kind.thinking] == "".join(fragment.get("reasoning", "") for fragment in fragments)
    fragments_of_calls = [one for fragment in fragments for one in fragment.get("tool_calls", [])]
    assert sorted(said[Kind.tool]) == sorted("".join(one["function"]["arguments"] for one in fragments_of_calls))
