"""The tiny models: cut without loss, the same bytes each time, as long as promised, readable as GGUF."""

import hashlib
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router.demo.tinymodel import (
    END,
    FIRST_PIECE,
    STRENGTH,
    TinyModel,
    cut,
    is_model,
    model_bytes,
    model_size,
    write_model,
)
from llm_router.formats.gguf import GgufHeader, read_header


@given(st.text(alphabet=st.sampled_from("ab \n\té🙂"), max_size=60))
def test_pieces_join_to_the_text_and_are_all_different(text: str) -> None:
    pieces = cut(text)
    assert "".join(pieces) == text
    assert len(set(pieces)) == len(pieces)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("I am alpha", ("I", " am", " alpha")),
        ("a a a", ("a", " a a")),
        (" so so so so", (" so", " so so so")),
        ("end ", ("end", " ")),
    ],
)
def test_a_repeated_word_is_kept_with_its_neighbours(text: str, pieces: tuple[str, ...]) -> None:
    assert cut(text) == pieces


def walk(model: TinyModel, start: int, limit: int, *, end_allowed: bool = True) -> list[int]:
    """What the weights make of a prompt that ends in ``start``: always the strongest successor."""
    table = model.successors()
    said: list[int] = []
    token = start
    while len(said) < limit:
        choices = {
            following: weight
            for (following, present), weight in table.items()
            if present == token and (end_allowed or following != END)
        }
        token = max(choices, key=choices.__getitem__)
        if token == END:
            return said
        said.append(token)
    return said


def test_any_prompt_leads_to_the_sentence_and_then_to_the_end() -> None:
    model = TinyModel("alpha", "I am alpha, what else?")
    sentence = list(range(FIRST_PIECE, FIRST_PIECE + len(model.pieces)))
    for prompt_end in (5, 7, 100):
        assert walk(model, prompt_end, 100) == sentence
    assert set(model.successors().values()) == {STRENGTH, STRENGTH / 2}


def test_where_the_end_is_forbidden_the_sentence_starts_again() -> None:
    model = TinyModel("alpha", "I am alpha")
    assert walk(model, 5, 8, end_allowed=False) == [FIRST_PIECE + n % 3 for n in range(8)]


@pytest.mark.parametrize("says", ["", "   ", "<|end|>", "<0x41> is a byte"])
def test_an_impossible_sentence_is_refused(says: str) -> None:
    with pytest.raises(ValueError, match="cannot make the model 'alpha'"):
        TinyModel("alpha", says)


def test_the_bytes_depend_on_the_arguments_alone() -> None:
    def digest(model: TinyModel) -> str:
        sha = hashlib.sha256()
        for block in model_bytes(model):
            sha.update(block)
        return sha.hexdigest()

    model = TinyModel("alpha", "I am alpha.", pad_mb=3)
    assert digest(model) == digest(TinyModel("alpha", "I am alpha.", pad_mb=3))
    assert digest(model) != digest(TinyModel("alpha", "I am beta.", pad_mb=3))
    assert digest(model) != digest(TinyModel("alpha", "I am alpha.", pad_mb=4))


@pytest.mark.parametrize("pad_mb", [0, 1, 7, 40])
def test_the_file_is_as_long_as_promised_and_about_as_large_as_asked(tmp_path: Path, pad_mb: int) -> None:
    model = TinyModel("alpha", "I am alpha.", pad_mb)
    size = write_model(tmp_path / "a.gguf", model.name, model.says, pad_mb)
    assert size == model_size(model)
    assert abs(size - pad_mb * 1_000_000) < 5_000_000


def test_it_is_a_sound_gguf_file(tmp_path: Path) -> None:
    path = tmp_path / "alpha.gguf"
    size = write_model(path, "alpha", "I am alpha.", 2)
    header = read_header(path.read_bytes(), size)
    assert isinstance(header, GgufHeader)
    assert header.architecture == "llama"
    assert header.needed == size
    assert header.text("general.name") == "alpha"
    assert header.integer("llama.context_length") == 4096
    assert header.has_template


def test_the_padding_is_finite_and_small(tmp_path: Path) -> None:
    path = tmp_path / "alpha.gguf"
    write_model(path, "alpha", "I am alpha.", 8)
    middle = path.read_bytes()[3_000_000:3_100_000]
    values = [value for (value,) in struct.iter_unpack("<e", middle)]
    assert {2**-6 <= abs(value) < 2**-5 for value in values} == {True}
    assert len(set(values)) > 1000


def test_a_file_is_known_again_and_a_broken_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "alpha.gguf"
    model = TinyModel("alpha", "I am alpha.")
    assert not is_model(path, model)
    write_model(path, model.name, model.says)
    assert is_model(path, model)
    assert not is_model(path, TinyModel("alpha", "I am alphb."))
    path.write_bytes(path.read_bytes()[:-1])
    assert not is_model(path, model)


def test_a_failed_write_leaves_nothing_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "alpha.gguf"
    path.mkdir()
    with pytest.raises(OSError, match=r"alpha\.gguf"):
        write_model(path, "alpha", "I am alpha.")
    assert [entry.name for entry in tmp_path.iterdir()] == ["alpha.gguf"]
