"""A messages request means the same as a chat completion."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_router.wire.anthropic import chat_request, estimate_tokens
from llm_router.wire.errors import BadRequestError
from llm_router.wire.foreign import Translated

HELLO = [{"role": "user", "content": "hi"}]


def translated(**fields: Any) -> Translated:
    return chat_request(json.dumps({"model": "m", "max_tokens": 9, "messages": HELLO, **fields}).encode())


def chat(**fields: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(translated(**fields).body)
    return body


def turns(*messages: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = chat(messages=list(messages), **fields)["messages"]
    return found


def user(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def test_the_plain_request() -> None:
    asked = translated()
    assert (asked.path, asked.model, asked.stream, asked.dropped) == ("/v1/chat/completions", "m", False, ())
    assert json.loads(asked.body) == {"model": "m", "max_tokens": 9, "messages": HELLO}


def test_a_stream_asks_for_its_usage() -> None:
    assert translated(stream=True).stream
    assert chat(stream=True)["stream_options"] == {"include_usage": True}


def test_sampling_and_the_rest() -> None:
    asked = translated(
        temperature=0.5,
        top_p=0.9,
        top_k=4,
        min_p=0.1,
        stop_sequences=["X", 7],
        metadata={"user_id": "u"},
        container="c",
    )
    body = json.loads(asked.body)
    assert {key: body[key] for key in ("temperature", "top_p", "top_k", "min_p", "stop", "user")} == {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 4,
        "min_p": 0.1,
        "stop": ["X"],
        "user": "u",
    }
    assert asked.stops == ("X",)
    assert asked.dropped == ("container",)


@pytest.mark.parametrize(("kind", "switch"), [("enabled", True), ("disabled", False), ("adaptive", None)])
def test_thinking_becomes_the_templates_switch(kind: str, switch: bool | None) -> None:
    asked = translated(thinking={"type": kind, "budget_tokens": 1024})
    assert json.loads(asked.body).get("chat_template_kwargs") == (
        None if switch is None else {"enable_thinking": switch}
    )
    assert asked.dropped == ("thinking.budget_tokens",)


def test_effort_and_schema() -> None:
    body = chat(output_config={"effort": "max", "format": {"type": "json_schema", "schema": {"type": "object"}}})
    assert body["reasoning_effort"] == "high"
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}


@pytest.mark.parametrize(
    "system", ["Be kind.\nBe short.", [text("Be kind."), {**text("Be short."), "cache_control": {"type": "ephemeral"}}]]
)
def test_system_comes_first(system: Any) -> None:
    assert turns(*HELLO, system=system) == [{"role": "system", "content": "Be kind.\nBe short."}, *HELLO]


def test_turns_of_one_role_are_one_turn() -> None:
    assert turns({"role": "user", "content": "a"}, user(text("b"), text("c"))) == [
        {"role": "user", "content": "a\nb\nc"}
    ]
    said = {"role": "assistant", "content": "x"}
    assert turns(*HELLO, said, said)[1:] == [{"role": "assistant", "content": "x\nx"}]


def test_a_system_turn_in_between_stays_there() -> None:
    assert turns(*HELLO, {"role": "system", "content": "now"})[1] == {"role": "system", "content": "now"}


def test_pictures() -> None:
    inline = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    linked = {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}
    assert turns(user(text("see"), inline, linked))[0]["content"] == [
        text("see"),
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
    ]


def test_documents_and_search_results_as_text() -> None:
    document = {
        "type": "document",
        "title": "T",
        "source": {"type": "text", "media_type": "text/plain", "data": "body"},
    }
    nested = {"type": "document", "source": {"type": "content", "content": [text("inner")]}}
    found = {"type": "search_result", "title": "R", "source": "https://example.org", "content": [text("hit")]}
    assert turns(user(document, nested, found))[0]["content"] == "T\nbody\ninner\nR\nhttps://example.org\nhit"


def test_a_tool_round() -> None:
    call = {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": "é"}}
    picture = {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [text("4"), picture]}
    failed = {"type": "tool_result", "tool_use_id": "t2", "content": "no", "is_error": True}
    silent = {"type": "tool_result", "tool_use_id": "t3"}
    said = {
        "role": "assistant",
        "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}, text("let me"), call],
    }
    assert turns(*HELLO, said, user(result, failed, silent, text("and?")))[1:] == [
        {
            "role": "assistant",
            "content": "let me",
            "reasoning_content": "hm",
            "tool_calls": [{"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"a":"é"}'}}],
        },
        {"role": "tool", "tool_call_id": "t1", "content": "4"},
        {"role": "tool", "tool_call_id": "t2", "content": "Error: no"},
        {"role": "tool", "tool_call_id": "t3", "content": ""},
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}, text("and?")],
        },
    ]


def test_a_call_without_words_has_no_content() -> None:
    call = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
    assert turns(*HELLO, {"role": "assistant", "content": [call]})[1]["content"] is None


def test_tools() -> None:
    schema = {"type": "object", "properties": {}}
    own = {"name": "f", "description": "does f", "input_schema": schema}
    asked = translated(tools=[own, {"type": "web_search_20250305", "name": "web_search"}], tool_choice={"type": "any"})
    body = json.loads(asked.body)
    assert body["tools"] == [
        {"type": "function", "function": {"name": "f", "parameters": schema, "description": "does f"}}
    ]
    assert body["tool_choice"] == "required"
    assert asked.dropped == ("tools.web_search",)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, "auto"),
        ({"type": "none"}, "none"),
        ({"type": "tool", "name": "f"}, {"type": "function", "function": {"name": "f"}}),
    ],
)
def test_tool_choice(choice: dict[str, Any], expected: Any) -> None:
    tools = [{"name": "f", "input_schema": {}}]
    assert chat(tools=tools, tool_choice=choice)["tool_choice"] == expected
    assert chat(tools=tools, tool_choice={**choice, "disable_parallel_tool_use": True})["parallel_tool_calls"] is False
    assert "tool_choice" not in chat(tool_choice=choice), "without tools there is nothing to choose"


def test_blocks_of_others_are_left_out_by_name() -> None:
    asked = translated(messages=[user(text("a"), {"type": "container_upload", "file_id": "x"})])
    assert asked.dropped == ("content.container_upload",)
    assert json.loads(asked.body)["messages"] == [{"role": "user", "content": "a"}]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"{", "as JSON"),
        (b"[]", "must be a JSON object"),
        (b"[" * 100_000, "nested too deeply"),
        (b"{}", "messages"),
        (b'{"messages":[]}', "at least one"),
        (b'{"messages":[7]}', r"messages\[0\]"),
        (b'{"messages":[{"role":"robot","content":"a"}]}', "'robot'"),
        (b'{"messages":[{"role":"user","content":7}]}', r"messages\[0\].content"),
        (b'{"messages":[{"role":"user"}]}', r"messages\[0\].content"),
        (b'{"messages":[{"role":"user","content":[7]}]}', r"content\[0\]"),
        (b'{"messages":[{"role":"user","content":[{}]}]}', "needs a type"),
        (b'{"messages":[{"role":"user","content":[{"type":"text"}]}]}', "needs its content"),
        (
            b'{"messages":[{"role":"user","content":[{"type":"image","source":{"type":"file"}}]}]}',
            "base64 or by its URL",
        ),
        (b'{"messages":[{"role":"user","content":[{"type":"document","source":{"type":"base64"}}]}]}', "given as text"),
        (b'{"messages":[{"role":"assistant","content":[{"type":"tool_use","input":{}}]}]}', "name: it must be a text"),
        (
            b'{"messages":[{"role":"assistant","content":[{"type":"tool_use","name":"f","input":7}]}]}',
            "input: it must be an object",
        ),
        (b'{"messages":[{"role":"user","content":"a"}],"tools":7}', "tools: it must be a list"),
        (
            b'{"messages":[{"role":"user","content":"a"}],"tools":[{"input_schema":{}}],"tool_choice":{"type":"x"}}',
            "'x'",
        ),
        (b'{"messages":[{"role":"user","content":"a"}],"thinking":7}', "thinking"),
    ],
)
def test_what_is_wrong_is_named(body: bytes, named: str) -> None:
    with pytest.raises(BadRequestError, match=f"^cannot .*{named}"):
        chat_request(body)


def test_the_estimate_is_rather_too_high() -> None:
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 100_000}}
    words = "the quick brown fox jumps over the lazy dog " * 10
    tools = [{"name": "f", "description": "x" * 300, "input_schema": {}}]

    def estimate(**fields: Any) -> int:
        tokens: int = json.loads(estimate_tokens(json.dumps({"messages": HELLO, **fields}).encode()))["input_tokens"]
        return tokens

    assert estimate() >= 1
    assert 90 < estimate(messages=[{"role": "user", "content": words}]) < 250, "90 words"
    assert 1600 < estimate(messages=[user(picture)]) < 1700
    assert estimate(tools=tools) > estimate() + 100


@pytest.mark.real
@pytest.mark.slow
def test_the_estimate_is_not_below_the_real_count(
    ask_llama: Callable[[str, dict[str, Any]], bytes],
) -> None:
    body = {"model": "alpha", "messages": HELLO, "max_tokens": 5}
    exact = json.loads(ask_llama("/v1/messages/count_tokens", body))["input_tokens"]
    assert json.loads(estimate_tokens(json.dumps(body).encode()))["input_tokens"] >= exact


@pytest.mark.real
@pytest.mark.slow
def test_the_real_engine_understands_the_translation(ask_llama: Callable[[str, dict[str, Any]], bytes]) -> None:
    call = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "4"}
    asked = translated(
        messages=[*HELLO, {"role": "assistant", "content": [text("so"), call]}, user(result)], system="s", max_tokens=3
    )
    answer = json.loads(ask_llama(asked.path, json.loads(asked.body)))
    assert answer["choices"][0]["message"]["content"] == "I am alpha,"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(0, 9)
    | st.sampled_from(["text", "image", "user", "assistant", "tool", "base64"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "role", "content", "text", "source", "input", "name", "data"]), inner, max_size=4
        )
    ),
    max_leaves=10,
)


@settings(max_examples=40)
@given(
    st.fixed_dictionaries(
        {
            "messages": st.lists(
                st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system"]), "content": JSON})
                | JSON
            )
        },
        optional={
            "system": JSON,
            "tools": JSON,
            "tool_choice": JSON,
            "thinking": JSON,
            "metadata": JSON,
            "output_config": JSON,
        },
    )
)
def test_any_request_is_translated_or_refused(body: dict[str, Any]) -> None:
    raw = json.dumps(body).encode()
    try:
        asked = chat_request(raw)
    except BadRequestError:
        return
    assert json.loads(asked.body)["messages"] is not None
    assert json.loads(estimate_tokens(raw))["input_tokens"] > 0


def test_a_type_that_is_no_text_is_no_known_one() -> None:
    asked = {"messages": [{"role": "user", "content": "x"}], "thinking": {"type": []}}
    assert "chat_template_kwargs" not in json.loads(chat_request(json.dumps(asked).encode()).body)
    tools = {"tools": [{"name": "t", "input_schema": {}}], "tool_choice": {"type": ["auto"]}}
    with pytest.raises(BadRequestError, match="cannot translate tool_choice"):
        chat_request(json.dumps(asked | tools).encode())
