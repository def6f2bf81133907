"""A request in Ollama's form means the same as one in OpenAI's, and never changes how a model is loaded."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_router.wire.errors import BadRequestError
from llm_router.wire.foreign import Translated
from llm_router.wire.ollama import Asked, Form, keep_seconds, read_request

HELLO = [{"role": "user", "content": "hi"}]
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}


def asked(path: str, **fields: Any) -> Asked:
    found = read_request(path, json.dumps({"model": "m", **fields}).encode())
    assert found is not None
    return found


def request(path: str, **fields: Any) -> Translated:
    found = asked(path, **fields).request
    assert found is not None
    return found


def chat(**fields: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(request("/api/chat", messages=HELLO, **fields).body)
    return body


def test_other_paths_are_others_business() -> None:
    assert read_request("/api/pull", b"{}") is None


def test_a_plain_chat_streams_unless_told_otherwise() -> None:
    found = asked("/api/chat", messages=HELLO)
    assert (found.form, found.model, found.keep_s) == (Form.chat, "m", None)
    assert found.request is not None
    assert found.request.stream
    assert found.request.path == "/v1/chat/completions"
    assert json.loads(found.request.body) == {"model": "m", "messages": HELLO, **STREAMED}
    whole = request("/api/chat", messages=HELLO, stream=False)
    assert not whole.stream
    assert json.loads(whole.body) == {"model": "m", "messages": HELLO}


def test_options_that_tune_an_answer_are_kept_and_those_of_the_load_are_named() -> None:
    found = request(
        "/api/chat",
        messages=HELLO,
        options={
            "temperature": 0.5,
            "top_k": 4,
            "seed": 7,
            "num_predict": 9,
            "stop": "X",
            "repeat_penalty": 1.1,
            "num_ctx": 99,
            "num_gpu": 1,
            "top_p": None,
        },
        template="t",
    )
    body = json.loads(found.body)
    assert {key: body[key] for key in body.keys() - {"model", "messages", *STREAMED}} == {
        "temperature": 0.5,
        "top_k": 4,
        "seed": 7,
        "max_tokens": 9,
        "stop": ["X"],
        "repeat_penalty": 1.1,
        "repetition_penalty": 1.1,
    }
    assert found.stops == ("X",)
    assert found.dropped == ("template", "options.num_ctx", "options.num_gpu")


@pytest.mark.parametrize("unlimited", [-1, -2, 0])
def test_no_limit_is_no_field(unlimited: int) -> None:
    assert "max_tokens" not in chat(options={"num_predict": unlimited})


@pytest.mark.parametrize(
    ("given_format", "expected"),
    [
        ("json", {"type": "json_object"}),
        (
            {"type": "object"},
            {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True}},
        ),
        ("", None),
        (None, None),
    ],
)
def test_formats(given_format: Any, expected: Any) -> None:
    assert chat(format=given_format).get("response_format") == expected


def test_thinking() -> None:
    assert chat(think=True)["chat_template_kwargs"] == {"enable_thinking": True}
    assert chat(think=False)["chat_template_kwargs"] == {"enable_thinking": False}
    high = chat(think="high")
    assert (high["chat_template_kwargs"], high["reasoning_effort"]) == ({"enable_thinking": True}, "high")
    assert "chat_template_kwargs" not in chat()


def test_a_tool_round_gets_ids() -> None:
    def call(name: str, **arguments: str) -> dict[str, Any]:
        return {"function": {"name": name, "arguments": arguments}}

    messages = [
        *HELLO,
        {
            "role": "assistant",
            "content": "",
            "thinking": "hm",
            "tool_calls": [call("f", a="é"), call("g"), {**call("f"), "id": "own"}],
        },
        {"role": "tool", "content": "G", "tool_name": "g"},
        {"role": "tool", "content": "F", "tool_name": "f"},
        {"role": "tool", "content": "last"},
        {"role": "tool", "content": "stray"},
        {"role": "tool", "content": "named", "tool_call_id": "x"},
    ]
    tools = [{"type": "function", "function": {"name": "f"}}]
    body = json.loads(request("/api/chat", messages=messages, tools=tools).body)
    assert body["tools"] == tools
    said = body["messages"][1]
    assert (said["content"], said["reasoning_content"]) == (None, "hm")
    assert [(one["id"], one["function"]) for one in said["tool_calls"]] == [
        ("call_0", {"name": "f", "arguments": '{"a":"é"}'}),
        ("call_1", {"name": "g", "arguments": "{}"}),
        ("own", {"name": "f", "arguments": "{}"}),
    ]
    assert [one["tool_call_id"] for one in body["messages"][2:]] == ["call_1", "call_0", "own", "call_unknown", "x"]


@pytest.mark.parametrize(
    ("data", "url"),
    [
        ("/9j/AA", "data:image/jpeg;base64,/9j/AA"),
        ("iVBORw0", "data:image/png;base64,iVBORw0"),
        ("R0lGOD", "data:image/gif;base64,R0lGOD"),
        ("UklGRg", "data:image/webp;base64,UklGRg"),
        ("AAAA", "data:image/png;base64,AAAA"),
        ("data:image/png;base64,AA", "data:image/png;base64,AA"),
    ],
)
def test_pictures(data: str, url: str) -> None:
    message = {"role": "user", "content": "see", "images": [data]}
    body = json.loads(request("/api/chat", messages=[message]).body)
    assert body["messages"][0]["content"] == [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    silent = json.loads(request("/api/generate", images=[data]).body)
    assert silent["messages"][0]["content"] == [{"type": "image_url", "image_url": {"url": url}}]


def test_generate_is_a_chat_of_one_turn() -> None:
    found = request("/api/generate", prompt="hi", system="s", context=[1, 2])
    assert found.path == "/v1/chat/completions"
    assert json.loads(found.body)["messages"] == [{"role": "system", "content": "s"}, *HELLO]
    assert found.dropped == ("context",)


@pytest.mark.parametrize("how", [{"raw": True}, {"suffix": "end"}])
def test_generate_with_a_prompt_of_its_own_is_a_completion(how: dict[str, Any]) -> None:
    found = request("/api/generate", prompt="hi", logprobs=True, top_logprobs=2, **how)
    assert found.path == "/v1/completions"
    suffix = {"suffix": "end"} if "suffix" in how else {}
    assert json.loads(found.body) == {"model": "m", "prompt": "hi", "logprobs": 2, **suffix, **STREAMED}


def test_probabilities_of_a_chat() -> None:
    body = chat(logprobs=True, top_logprobs=2)
    assert (body["logprobs"], body["top_logprobs"]) == (True, 2)


def test_embeddings() -> None:
    found = request("/api/embed", input=["a", "b"], dimensions=8, options={"num_ctx": 5}, truncate=True)
    assert found.path == "/v1/embeddings"
    assert not found.stream
    assert json.loads(found.body) == {"model": "m", "input": ["a", "b"], "encoding_format": "float", "dimensions": 8}
    assert found.dropped == ("options.num_ctx",)
    older = asked("/api/embeddings", prompt="a")
    assert older.form is Form.embeddings
    assert older.request is not None
    assert json.loads(older.request.body)["input"] == "a"


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/api/chat", Form.chat),
        ("/api/generate", Form.generate),
        ("/api/embed", Form.embed),
        ("/api/embeddings", Form.embeddings),
    ],
)
def test_asking_nothing_is_asking_for_the_load(path: str, form: Form) -> None:
    assert asked(path) == Asked(form, "m", None, None)
    assert asked(path, keep_alive=0) == Asked(form, "m", None, 0.0)


@pytest.mark.parametrize(
    ("wish", "seconds"),
    [
        (None, None),
        (0, 0.0),
        ("0", 0.0),
        ("-0", 0.0),
        (300, 300.0),
        ("300", 300.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        (".5s", 0.5),
        ("250ms", 0.25),
        (" 10s ", 10.0),
        (-1, math.inf),
        ("-1", math.inf),
        ("-1m", math.inf),
    ],
)
def test_how_long_it_should_stay(wish: Any, seconds: float | None) -> None:
    assert keep_seconds(wish) == seconds
    assert asked("/api/chat", messages=HELLO, keep_alive=wish).keep_s == seconds


@pytest.mark.parametrize("wish", ["", "soon", "5 m", "5m!", "m", True, [], {}])
def test_a_wish_that_cannot_be_read(wish: Any) -> None:
    with pytest.raises(BadRequestError, match=r"^cannot read keep_alive"):
        keep_seconds(wish)


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59))
def test_durations_add_up(hours: int, minutes: int, seconds: int) -> None:
    assert keep_seconds(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("/api/chat", b"{", "as JSON"),
        ("/api/chat", b"{}", "name one in `model`"),
        ("/api/chat", b'{"model":"m","messages":7}', "messages"),
        ("/api/chat", b'{"model":"m","messages":[7]}', r"messages\[0\]"),
        ("/api/chat", b'{"model":"m","messages":[{}]}', r"messages\[0\].role"),
        ("/api/chat", b'{"model":"m","messages":[{"role":"user","content":7}]}', r"messages\[0\].content"),
        ("/api/chat", b'{"model":"m","messages":[{"role":"user","images":[7]}]}', "images"),
        (
            "/api/chat",
            b'{"model":"m","messages":[{"role":"assistant","tool_calls":[{}]}]}',
            r"tool_calls\[0\].function",
        ),
        ("/api/chat", b'{"model":"m","messages":[{"role":"user"}],"options":7}', "options"),
        ("/api/generate", b'{"model":"m","prompt":7}', "prompt"),
    ],
)
def test_what_is_wrong_is_named(path: str, body: bytes, named: str) -> None:
    with pytest.raises(BadRequestError, match=f"^cannot .*{named}"):
        read_request(path, body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 9) | st.sampled_from(["json", "5m", "user", "tool", ""]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["role", "content", "tool_calls", "function", "name", "arguments", "images", "stop"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
FIELDS = [
    "messages",
    "prompt",
    "input",
    "options",
    "format",
    "think",
    "tools",
    "images",
    "keep_alive",
    "raw",
    "stream",
    "suffix",
    "system",
]


@settings(max_examples=50)
@given(
    st.sampled_from(["/api/chat", "/api/generate", "/api/embed", "/api/embeddings"]),
    st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=5),
)
def test_any_request_is_translated_or_refused(path: str, fields: dict[str, Any]) -> None:
    try:
        found = asked(path, **fields)
    except BadRequestError:
        return
    assert found.request is None or json.loads(found.request.body)["model"] == "m"


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/api/chat", {"messages": HELLO}),
        ("/api/generate", {"prompt": "hi"}),
        ("/api/generate", {"prompt": "hi", "raw": True}),
    ],
)
def test_the_real_engine_understands_the_translation(
    path: str, fields: dict[str, Any], ask_llama: Callable[[str, dict[str, Any]], bytes]
) -> None:
    found = request(path, stream=False, options={"num_predict": 3, "temperature": 0, "repeat_penalty": 1.0}, **fields)
    choice = json.loads(ask_llama(found.path, json.loads(found.body)))["choices"][0]
    assert (choice.get("text") or choice["message"]["content"]) == "I am alpha,"
