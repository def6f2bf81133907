from pathlib import Path

import pytest

from llm_router.config.load import parse
from llm_router.doors.cli import reference

FOLDER = Path(__file__).parents[3] / "docs" / "reference"


@pytest.mark.parametrize("name", ["cli.md", "configuration.md", "config.schema.json"])
def test_the_reference_is_what_the_code_says(name: str) -> None:
    written = (FOLDER / name).read_text(encoding="utf-8")
    assert written == reference.pages()[name], "write it anew: python -m llm_router.doors.cli.reference"


def test_the_example_is_a_good_configuration() -> None:
    page = reference.pages()["configuration.md"]
    example = page.split("```yaml\n")[1].split("```")[0]
    found = parse(example, "example", {}, lambda path: path)
    assert (list(found.models), found.warnings) == (["qwen-7b", "big-123b", "my-own"], ())


def test_the_pages_are_written(tmp_path: Path) -> None:
    reference.write(tmp_path)
    assert {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == reference.pages()
