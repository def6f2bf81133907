"""Names of split GGUF files."""

import pytest

from llm_router.formats.gguf_files import PartName, model_stem, part_name, part_names


def test_a_part_is_taken_apart_and_its_siblings_named() -> None:
    assert part_name("Big-Q4-00002-of-00003.gguf") == PartName("Big-Q4", 2, 3)
    assert part_names("Big-Q4-00002-of-00003.gguf") == (
        "Big-Q4-00001-of-00003.gguf",
        "Big-Q4-00002-of-00003.gguf",
        "Big-Q4-00003-of-00003.gguf",
    )
    assert model_stem("Big-Q4-00002-of-00003.gguf") == "Big-Q4"


def test_a_whole_file_is_its_only_part() -> None:
    assert part_name("small.gguf") is None
    assert part_names("small.gguf") == ("small.gguf",)
    assert model_stem("small.gguf") == model_stem("small.GGUF") == "small"


@pytest.mark.parametrize(
    "name", ["x-00000-of-00002.gguf", "x-00003-of-00002.gguf", "x-1-of-2.gguf", "x-00001-of-00002.bin"]
)
def test_impossible_parts_are_whole_files(name: str) -> None:
    assert part_name(name) is None
