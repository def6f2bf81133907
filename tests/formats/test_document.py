"""JSON documents of unknown origin: what is there is found, what is absurd is absent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router.formats.document import MAX_DOCUMENT, Document, read_document
from llm_router.formats.reading import BadFile

MIXED = Document({"n": 3, "f": 4.0, "h": 2.5, "b": True, "s": "x", "none": None, "list": ["a", 1], "in": {"n": 1}})


def test_getters_answer_absent_for_a_wrong_type() -> None:
    assert MIXED.whole("none", "s", "b", "n") == 3
    assert MIXED.whole("f") == 4
    assert MIXED.whole("h") is None
    assert MIXED.number("h") == 2.5
    assert MIXED.number("b") is None
    assert MIXED.flag("b") is True
    assert MIXED.flag("n") is None
    assert MIXED.text("n", "s") == "x"
    assert MIXED.text("n") == ""
    assert MIXED.texts("list") == ["a"]
    assert MIXED.texts("s") == []
    assert MIXED.inner("in").whole("n") == 1
    assert MIXED.inner("s") == Document()
    assert [inner.whole("n") for inner in MIXED.inners()] == [1]
    assert not MIXED.has("none")


@pytest.mark.parametrize("value", [-1, 1 << 60, float("inf"), float("nan"), -0.5, "7", True])
def test_absurd_numbers_are_absent(value: object) -> None:
    assert Document({"n": value}).whole("n") is None
    assert Document({"n": value}).number("n") is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"[1]", "not a JSON object"),
        (b"{", "not JSON"),
        (b"\xff\xfe\xfd", "not JSON"),
        (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "not JSON"),
        (b" " * (MAX_DOCUMENT + 1), "more than"),
    ],
)
def test_bad_documents_give_a_reason(data: bytes, words: str) -> None:
    found = read_document(data, "config.json")
    assert isinstance(found, BadFile)
    assert found.reason.startswith("cannot read config.json: ")
    assert words in found.reason


def test_a_bare_infinity_is_taken() -> None:
    found = read_document(b'{"time_step_limit": [0.0, Infinity], "n": 1}', "config.json")
    assert isinstance(found, Document)
    assert found.whole("n") == 1


@given(st.binary(max_size=60))
def test_any_bytes(data: bytes) -> None:
    assert isinstance(read_document(data, "x.json"), Document | BadFile)
