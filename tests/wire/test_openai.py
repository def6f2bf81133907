import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router.wire import openai
from llm_router.wire.content import Content
from llm_router.wire.errors import BadRequestError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_what_is_looked_at() -> None:
    asked = openai.read_json(
        Content(
            b'{"model":"m","stream":true,"stream_options":{"include_usage":true},"n":2,"response_format":{"type":"json_schema"}}'
        )
    )
    assert (asked.model, asked.stream, asked.wants_usage, asked.choices) == ("m", True, True, 2)
    assert asked.structured
    assert not asked.joinable
    assert openai.read_json(Content(b'{"model":null,"stream":null,"n":null}')).joinable


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"model":5}', "Expected `str | null`, got `int` - at `$.model`"),
        (b'{"stream":"yes"}', "`$.stream`"),
        (b"[]", "Expected `object`"),
        (b'{"a":', "JSON"),
        (b'{"model": "\xff"}', "JSON"),
        (b'{"\xff":1,"model":"m"}', "JSON"),
        (b'{"stream_options":{"include_usage":7}}', "got `int` - at `$.stream_options.include_usage`"),
        (b'{"a":' + b"[" * 200_000, "nested"),
    ],
)
def test_what_cannot_be_used_is_named(body: bytes, said: str) -> None:
    with pytest.raises(BadRequestError, match=r"^cannot ") as caught:
        openai.read_json(Content(body))
    assert said in caught.value.fault.message
    assert caught.value.fault.status == 400


@given(st.dictionaries(st.text(), JSON, max_size=5), st.text())
def test_a_rewrite_changes_what_it_is_told_and_nothing_else(fields: dict[str, object], model: str) -> None:
    body = json.dumps(fields).encode()
    assert json.loads(openai.rewrite(Content(body), {"model": model})) == {**fields, "model": model}
    assert json.loads(openai.rewrite(Content(body), {})) == fields
    assert json.loads(openai.rewrite(Content(body), {}, fields)) == {}


def test_values_stay_byte_for_byte() -> None:
    body = b'{"model":"a", "x": [1.0,  1e5, "\\u00e9"]}'
    assert openai.rewrite(Content(body), {"model": "b"}) == b'{"model":"b","x":[1.0,  1e5, "\\u00e9"]}'
    plain = b'{"model" : "a" }'
    assert openai.rewrite(Content(plain), {}) is plain


def test_a_repeated_key_counts_once_and_last() -> None:
    assert openai.rewrite(Content(b'{"model":"a","x":1,"model":"b"}'), {}) == b'{"model":"b","x":1}'
    assert openai.rewrite(Content(b'{"model":"a","mod\\u0065l":"b"}'), {}) == b'{"model":"b"}'
    assert openai.read_json(Content(b'{"model":"a","mod\\u0065l":"b"}')).model == "b"


def test_usage_is_asked_for_beside_the_clients_options() -> None:
    assert openai.add_usage(Content(b'{"stream_options":{"x":1,"include_usage":false}}')) == {
        "stream_options": {"x": 1, "include_usage": True}
    }
    assert openai.add_usage(Content(b'{"stream_options":null}')) == {"stream_options": {"include_usage": True}}


def test_a_model_in_the_query() -> None:
    assert openai.model_of_query(b"a=1&model=org%2Fm") == "org/m"
    assert openai.model_of_query(b"a=1") == ""
    with pytest.raises(BadRequestError, match="more than one"):
        openai.model_of_query(b"model=a&model=b")


def _task(text: str, **more: object) -> bool:
    body = {"model": "m", "messages": [{"role": "user", "content": text}], **more}
    return openai.read_json(Content(json.dumps(body).encode())).task


def test_a_background_prompt_is_guessed_by_its_first_two_lines() -> None:
    assert _task("### Task:\nGenerate a concise, 3-5 word title")
    assert _task("### Task:\nGenerate 1-3 broad tags")
    assert not _task("### Task:\nGenerate a concise, 3-5 word title", stream=True)
    assert not _task("### Task:\nGenerate a concise, 3-5 word title", tools=[{}])
    assert not _task("### Task:\nAnalyze the chat history to determine search queries")
    assert not _task("What does ### Task: mean?\nGenerate a concise")


_LARGE = b'"messages":[{"role":"user","content":"%b"}]' % (b"x" * 70_000)


def test_a_large_body_that_is_written_tightly_is_not_copied() -> None:
    body = b'{"model":"a",%b,"n":1}' % _LARGE
    assert openai.rewrite(Content(body), {}) is body


@pytest.mark.parametrize(
    "more",
    [
        pytest.param(b',"model":"b"', id="twice"),
        pytest.param(b',"\\u006dodel":"b"', id="twice, once escaped"),
        pytest.param(b', "n":1', id="a space"),
        pytest.param(b',"n":1 ', id="a space at the end"),
    ],
)
def test_a_large_body_with_anything_more_is_written_anew(more: bytes) -> None:
    body = b'{"model":"a",%b%b}' % (_LARGE, more)
    new = openai.rewrite(Content(body), {})
    assert len(new) < len(body)
    assert msgspec.json.decode(new) == msgspec.json.decode(body)
    assert new.count(b'"model":') == 1
