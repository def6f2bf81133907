"""What engines say is read the same whichever engine says it."""

from typing import Any

import pytest

from llm_router.wire import foreign
from llm_router.wire.errors import BadRequestError


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"error":{"message":"nested","type":"t","code":503}}', "nested"),
        (b'{"error":"a text"}', "a text"),
        (b'{"object":"error","message":"flat","code":400}', "flat"),
        (b'{"detail":"No models are currently loaded."}', "No models are currently loaded."),
        (b'{"detail":[{"msg":"field required"}]}', '[{"msg":"field required"}]'),
        (b'{"error":{"message":"","code":7}}', '{"message":"","code":7}'),
        (b"upstream \xff timed out\n", "upstream \ufffd timed out"),
        (b"", "the engine gave no reason"),
        (b'"quoted"', "quoted"),
    ],
)
def test_an_engines_error_in_one_text(body: bytes, text: str) -> None:
    assert foreign.error_text(body) == text


@pytest.mark.parametrize(
    ("message", "said", "thought"),
    [
        ({"content": "a", "reasoning_content": "b"}, "a", "b"),
        ({"content": None, "refusal": "no", "reasoning": "c", "reasoning_content": ""}, "no", "c"),
        ({"content": ["a"], "thinking": "d"}, "", "d"),
        ({}, "", ""),
    ],
)
def test_words_and_thoughts(message: dict[str, Any], said: str, thought: str) -> None:
    assert (foreign.spoken(message), foreign.thoughts(message)) == (said, thought)


@pytest.mark.parametrize("answer", [{}, {"choices": None}, {"choices": []}, {"choices": [7]}])
def test_no_choice_is_an_empty_one(answer: dict[str, Any]) -> None:
    assert foreign.first_choice(answer) == {}


def test_counts() -> None:
    assert [foreign.count(value) for value in (3, 0, -1, True, "3", None)] == [3, 0, 0, 0, 0, 0]
    assert foreign.cached_tokens({"prompt_tokens_details": {"cached_tokens": 5}}) == 5
    assert foreign.cached_tokens({"prompt_tokens_details": None}) == 0


def test_texts_alone_are_one_text() -> None:
    said = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert foreign.collapse(said) == "a\nb"
    assert foreign.collapse([*said, {"type": "image_url"}]) == [*said, {"type": "image_url"}]


@pytest.mark.parametrize(
    ("check", "right", "wrong", "wanted"),
    [(foreign.an_object, {}, [], "an object"), (foreign.a_list, [], {}, "a list"), (foreign.a_text, "", 7, "a text")],
)
def test_fields_are_what_they_must_be(check: Any, right: object, wrong: object, wanted: str) -> None:
    assert check(right, "tools[3]") is right
    with pytest.raises(BadRequestError, match=rf"^cannot translate tools\[3\]: it must be {wanted}$"):
        check(wrong, "tools[3]")


def test_texts_of_a_field() -> None:
    assert foreign.texts("a") == ("a",)
    assert foreign.texts(["a", 7, "b"]) == ("a", "b")
    assert foreign.texts(None) == ()
