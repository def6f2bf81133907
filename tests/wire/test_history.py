"""No line of the router reaches a model, and nothing but the router's lines is taken from a history."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from llm_router.wire import lines
from llm_router.wire.history import clean, clean_fields

HEAD = lines.before(lines.switching("M")) + lines.before(lines.ready("M", 4), last=True)
FOOT = lines.after(lines.footer(128, 2.8))
PLAIN = lines.before(lines.ready("M", 4), last=True, marked=False), lines.after(lines.footer(9, 1), marked=False)


def raw(value: Any, *, ascii_only: bool = False) -> Raw:
    return Raw(json.dumps(value, ensure_ascii=ascii_only).encode())


def cleaned(value: Any, *, unmarked: bool = False) -> Any:
    return json.loads(bytes(clean(raw(value), unmarked=unmarked)))


@pytest.mark.parametrize("ascii_only", [True, False])
def test_an_answer_comes_back_without_the_lines(ascii_only: bool) -> None:
    history = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": f"{HEAD}Hello!{FOOT}"}]
    assert json.loads(bytes(clean(raw(history, ascii_only=ascii_only)))) == [
        history[0],
        {"role": "assistant", "content": "Hello!"},
    ]


def test_parts_are_cleaned_too() -> None:
    parts = [
        {"type": "text", "text": f"{HEAD}Hel"},
        {"type": "image_url", "image_url": {"url": HEAD}},
        {"type": "text", "text": f"lo{FOOT}"},
    ]
    assert cleaned([{"role": "assistant", "content": parts}]) == [
        {"role": "assistant", "content": [{"type": "text", "text": "Hel"}, parts[1], {"type": "text", "text": "lo"}]}
    ]


def test_tool_results_inside_parts_are_cleaned() -> None:
    result = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": f"{HEAD}4"}]}
    assert cleaned([{"role": "user", "content": [result]}])[0]["content"][0]["content"] == [
        {"type": "text", "text": "4"}
    ]


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_that_was_only_ours_is_gone(key: str) -> None:
    assert cleaned([{"role": "assistant", "content": "a", key: HEAD}]) == [{"role": "assistant", "content": "a"}]
    assert cleaned([{"role": "assistant", "content": "a", key: HEAD + "hm"}]) == [
        {"role": "assistant", "content": "a", key: "hm"}
    ]


def test_a_thinking_part_keeps_its_field() -> None:
    part = {"type": "thinking", "thinking": HEAD, "signature": ""}
    assert cleaned([{"role": "assistant", "content": [part]}])[0]["content"] == [{**part, "thinking": ""}]


def test_an_answer_quoted_in_a_prompt_is_cleaned_when_marked() -> None:
    task = [{"role": "user", "content": f"### Task:\nASSISTANT: {HEAD}Hello{FOOT}"}]
    assert cleaned(task) == [{"role": "user", "content": "### Task:\nASSISTANT: Hello"}]


def test_unmarked_lines_are_taken_from_the_assistant_only() -> None:
    text = f"{PLAIN[0]}Hello{PLAIN[1]}"
    history = [{"role": "user", "content": text}, {"role": "assistant", "content": text}]
    assert cleaned(history, unmarked=True) == [history[0], {"role": "assistant", "content": "Hello"}]
    assert cleaned(history) == history


def test_a_plain_text_is_cleaned() -> None:
    assert cleaned(f"{HEAD}a{FOOT}") == "a"


def test_only_touched_messages_are_written_anew() -> None:
    untouched = b'{ "role":"user", "content":"1e2 \\u00e9", "n":1.0e2}'
    touched = b'{"role":"assistant","n":1.0e2,"content":' + bytes(raw(HEAD + "a")) + b"}"
    assert (
        bytes(clean(Raw(b"[" + untouched + b"," + touched + b"]")))
        == b"[" + untouched + b',{"role":"assistant","n":1.0e2,"content":"a"}]'
    )


def test_only_history_fields_are_looked_at() -> None:
    fields = {"messages": raw([{"role": "assistant", "content": HEAD}]), "stop": raw([FOOT]), "model": raw("m")}
    found = clean_fields(fields)
    assert bytes(found["messages"]) == b'[{"role":"assistant","content":""}]'
    assert found["stop"] is fields["stop"]
    assert list(found) == list(fields)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\u2061\u2063", exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["role", "content", "text", "reasoning", "x"]), inner, max_size=4)
    ),
)


@given(JSON)
def test_without_lines_the_very_same_value_comes_back(value: Any) -> None:
    history = raw(value)
    assert clean(history) is history


MESSAGE = st.fixed_dictionaries(
    {
        "role": st.just("assistant"),
        "content": st.text(st.characters(exclude_characters="\u2061\u2063", exclude_categories=["Cs"])),
    }
)


@given(st.lists(MESSAGE, min_size=1), st.data())
def test_inserting_and_cleaning_is_nothing(history: list[dict[str, str]], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(history) - 1))
    told = [
        {**message, "content": f"{HEAD}{message['content']}{FOOT}"} if n == place else message
        for n, message in enumerate(history)
    ]
    assert cleaned(told) == history
    twice = clean(raw(told))
    assert clean(twice) is twice


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"[",
        b'"' + lines.OPEN.encode(),
        b"[" * 100_000 + lines.OPEN.encode(),
        b'"' + lines.OPEN.encode() + b'\xff"',
    ],
)
def test_what_cannot_be_read_is_left_to_others(broken: bytes) -> None:
    value = Raw(broken)
    assert clean(value, unmarked=True) is value


def test_texts_that_lie_absurdly_deep_are_left_alone() -> None:
    value: Any = HEAD
    for _ in range(12):
        value = [value]
    assert cleaned(value) == value
