"""A request on its way in: cleaned, ruled over, or byte for byte as it came."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router.wire import lines
from llm_router.wire.content import Content
from llm_router.wire.errors import BadRequestError
from llm_router.wire.manners import ModelManners
from llm_router.wire.params import Rules, told
from llm_router.wire.tailor import tailor

PLAIN = ModelManners()


def changed(value: Any, manners: ModelManners = PLAIN, **more: Any) -> tuple[Any, str]:
    content, changes = tailor(Content(json.dumps(value).encode()), manners, **more)
    return json.loads(content.body), told(changes)


def test_what_needs_no_change_is_the_same_object() -> None:
    body = b'{ "model":"m" ,\n "temperature": 1.0, "messages":[{"role":"user","content":"n_ctx and \\u00e9"}] }'
    for content in (Content(body), Content(bytearray(body))):
        same, changes = tailor(content, PLAIN)
        assert same is content
        assert changes == ()


@pytest.mark.parametrize("name", ["num_ctx", "n_ctx", "ctx_size", "context_length", "max_seq_len", "max_model_len"])
def test_no_client_changes_the_context(name: str) -> None:
    assert changed({"model": "m", name: 99}) == ({"model": "m"}, f"drop {name}")
    escaped = b'{"model":"m","%b":99}' % "".join(f"\\u{ord(letter):04x}" for letter in name).encode()
    assert json.loads(tailor(Content(escaped), PLAIN)[0].body) == {"model": "m"}


def test_a_models_rules_are_applied_and_told() -> None:
    manners = ModelManners(rules=Rules.of({"temperature": 0.5}, {"top_p": 0.9, "chat_template_kwargs.t": 1}, ["seed"]))
    body, said = changed({"model": "m", "temperature": 2, "seed": 1, "chat_template_kwargs": {"a": 1}}, manners)
    expected = {"model": "m", "temperature": 0.5, "chat_template_kwargs": {"a": 1, "t": 1}, "top_p": 0.9}
    assert body == expected
    assert said == "drop seed, force temperature, default top_p, default chat_template_kwargs.t"
    assert changed(expected, manners) == (expected, "")


@pytest.mark.parametrize("ascii_only", [True, False])
def test_the_routers_own_lines_never_reach_a_model(ascii_only: bool) -> None:
    said = lines.before(lines.ready("m", 4.0), last=True) + "Hello" + lines.after(lines.footer(3, 1.0))
    history = [{"role": "assistant", "content": said}, {"role": "user", "content": "more"}]
    body = json.dumps({"model": "m", "messages": history}, ensure_ascii=ascii_only).encode()
    out, changes = tailor(Content(body), PLAIN)
    assert json.loads(out.body)["messages"] == [{"role": "assistant", "content": "Hello"}, history[1]]
    assert changes == ()


def test_plain_lines_are_known_where_they_are_in_use() -> None:
    said = (
        lines.before(lines.ready("m", 4.0), last=True, marked=False)
        + "Hi"
        + lines.after(lines.footer(3, 1), marked=False)
    )
    value = {"model": "m", "messages": [{"role": "assistant", "content": said}]}
    assert changed(value)[0] == value
    assert changed(value, plain_lines=True)[0]["messages"][0]["content"] == "Hi"


TEXTS = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(["⚡ 4 tok/s", "✅ it is ready", "🔄"])


@given(st.lists(TEXTS, max_size=4), st.booleans())
def test_cleaning_never_changes_other_text(texts: list[str], plain: bool) -> None:
    texts = [text for text in texts if not lines.has_marks(text.encode()) and lines.without_unmarked(text) == text]
    value = {"model": "m", "messages": [{"role": "assistant", "content": text} for text in texts]}
    content = Content(json.dumps(value).encode())
    assert tailor(content, PLAIN, plain_lines=plain)[0] is content


def test_user_messages_in_a_row_are_joined_where_that_is_wanted() -> None:
    merge = ModelManners(merge=True)
    picture = {"type": "image_url", "image_url": {"url": "data:"}}
    value = {
        "model": "m",
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "a", "name": "ann"},
            {"role": "user", "content": "b"},
            {"role": "user", "content": [picture]},
            {"role": "assistant", "content": "c"},
            {"role": "user", "content": "d"},
        ],
    }
    assert changed(value) == (value, "")
    messages = changed(value, merge)[0]["messages"]
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
    assert messages[1] == {"role": "user", "name": "ann", "content": [{"type": "text", "text": "a\n\nb"}, picture]}
    alone = {"model": "m", "messages": value["messages"][-2:], "x": '"user" "user"'}
    assert changed(alone, merge)[0] == alone
    assert changed({"model": "m", "messages": 'a "user" and a "user"'}, merge)[0]["messages"] == 'a "user" and a "user"'


def test_another_model_is_written_in() -> None:
    assert changed({"model": "a", "x": 1}, model="b") == ({"model": "b", "x": 1}, "")


def test_what_cannot_be_read_is_the_clients_fault() -> None:
    with pytest.raises(BadRequestError, match="as JSON"):
        tailor(Content(b'{"n_ctx":'), PLAIN)
