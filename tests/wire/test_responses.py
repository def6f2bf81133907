"""A responses request means the same as a chat completion."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_router.wire.errors import BadRequestError
from llm_router.wire.responses import Asked, chat_request

HELLO = {"role": "user", "content": "hi"}


def asked(**fields: Any) -> Asked:
    return chat_request(json.dumps({"model": "m", "input": "hi", **fields}).encode())


def chat(**fields: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(asked(**fields).request.body)
    return body


def turns(*items: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = chat(input=list(items))["messages"]
    return found


def test_a_text_is_a_turn() -> None:
    found = asked()
    assert (found.request.path, found.request.model, found.request.stream) == ("/v1/chat/completions", "m", False)
    assert json.loads(found.request.body) == {"model": "m", "messages": [HELLO]}
    assert found.echo == {}


def test_fields() -> None:
    found = asked(
        instructions="Be kind.",
        max_output_tokens=9,
        temperature=0.5,
        stream=True,
        reasoning={"effort": "low"},
        metadata={"a": "b"},
        extra=1,
        store=False,
    )
    assert json.loads(found.request.body) == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be kind."}, HELLO],
        "max_tokens": 9,
        "temperature": 0.5,
        "stream": True,
        "stream_options": {"include_usage": True},
        "reasoning_effort": "low",
    }
    assert found.request.dropped == ("extra",)
    assert set(found.echo) == {"instructions", "max_output_tokens", "temperature", "reasoning", "metadata"}


def test_no_effort_is_no_thinking() -> None:
    assert chat(reasoning={"effort": "none"})["chat_template_kwargs"] == {"enable_thinking": False}


def test_formats() -> None:
    schema = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}
    assert chat(text={"format": schema})["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True},
    }
    assert chat(text={"format": {"type": "json_object"}})["response_format"] == {"type": "json_object"}
    assert "response_format" not in chat(text={"format": {"type": "text"}})


def test_tools() -> None:
    own = {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
    found = asked(tools=[own, {"type": "web_search"}], tool_choice={"type": "function", "name": "f"})
    body = json.loads(found.request.body)
    assert body["tools"] == [
        {
            "type": "function",
            "function": {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True},
        }
    ]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert found.request.dropped == ("tools.web_search",)
    assert chat(tools=[own], tool_choice="required")["tool_choice"] == "required"
    assert "tool_choice" not in chat(tools=[own], tool_choice={"type": "web_search"})
    assert "tool_choice" not in chat(tool_choice="auto")


def test_a_conversation_with_tools() -> None:
    assert turns(
        {"role": "developer", "content": "rules"},
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}],
        },
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "so"}, {"type": "refusal", "refusal": "no"}],
        },
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a":1}'},
        {"type": "function_call", "call_id": "c2", "name": "g", "arguments": ""},
        {"type": "function_call_output", "call_id": "c1", "output": "1"},
        {
            "type": "function_call_output",
            "call_id": "c2",
            "output": [
                {"type": "input_text", "text": "2"},
                {"type": "input_image", "image_url": "https://example.org/a.png"},
            ],
        },
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "again"}]},
        {"type": "function_call", "call_id": "c3", "name": "f", "arguments": "{}"},
    ) == [
        {"role": "system", "content": "rules"},
        {"role": "user", "content": "a\nb"},
        {
            "role": "assistant",
            "content": "so\nno",
            "reasoning_content": "hm",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
                {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "1"},
        {"role": "tool", "tool_call_id": "c2", "content": "2"},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]},
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "again",
            "tool_calls": [{"id": "c3", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
    ]


def test_other_items_are_left_out_by_name() -> None:
    audio = {"type": "input_audio", "input_audio": {"data": "A", "format": "wav"}}
    found = asked(input=[{"role": "user", "content": [audio, {"type": "hologram"}]}, {"type": "web_search_call"}])
    assert json.loads(found.request.body)["messages"] == [{"role": "user", "content": [audio]}]
    assert found.request.dropped == ("content.hologram", "input.web_search_call")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"previous_response_id": "r"}, "previous_response_id: nothing is stored here"),
        ({"background": True}, "background: nothing is stored here"),
        ({"input": []}, "holds nothing"),
        ({"input": None}, "input: it must be a list"),
        ({"input": [7]}, r"input\[0\]: it must be an object"),
        ({"input": [{"content": "a"}]}, r"input\[0\].role"),
        ({"input": [{"role": "user", "content": 7}]}, r"input\[0\].content"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}, "input_file must come"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, r"input\[0\]: nothing is stored"),
        ({"input": [{"type": "function_call", "call_id": "c"}]}, r"input\[0\].name"),
        ({"instructions": 7}, "instructions"),
        ({"tools": [7]}, r"tools\[0\]"),
        ({"text": 7}, "text"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(BadRequestError, match=f"^cannot .*{named}"):
        asked(**fields)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(0, 9)
    | st.sampled_from(["message", "user", "input_text", "function", "reasoning"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["type", "role", "content", "text", "name", "output"]), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = [
    "input",
    "instructions",
    "tools",
    "tool_choice",
    "text",
    "reasoning",
    "stream",
    "metadata",
    "max_output_tokens",
]


@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4))
def test_any_request_is_translated_or_refused(fields: dict[str, Any]) -> None:
    try:
        found = asked(**fields)
    except BadRequestError:
        return
    assert json.loads(found.request.body)["messages"]
