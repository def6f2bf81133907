"""What is made from the code is what the code says now. (The command line's pages: tests/doors/cli/test_reference.py.)"""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from llm_router import __version__
from llm_router.core.instance import MOVES
from support.documents import REFERENCE, ROOT


@pytest.fixture
def drawing() -> ModuleType:
    path = ROOT / "scripts" / "state_diagram.py"
    spec = importlib.util.spec_from_file_location("state_diagram", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_states_are_drawn_from_the_table(drawing: ModuleType) -> None:
    written = (REFERENCE / "states.md").read_text(encoding="utf-8")
    assert written == drawing.page(), "write it anew: python scripts/state_diagram.py"


def test_every_move_is_in_the_diagram(drawing: ModuleType) -> None:
    drawn = set(re.findall(r"^    (\w+) --> (\w+)$", drawing.page(), re.MULTILINE))
    assert drawn == {(state.value, after.value) for state, states in MOVES.items() for after in states}


def test_a_page_that_is_out_of_date_is_found_and_written(
    drawing: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "states.md"
    page.write_text("old")
    monkeypatch.setattr(drawing, "PAGE", page)
    assert drawing.main(["--check"]) == 1
    assert "is not what the table says" in capsys.readouterr().err
    assert drawing.main([]) == 0
    assert drawing.main(["--check"]) == 0


def test_changelog_and_version_agree() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    heads = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert heads[0] == "Unreleased"
    released = [head.partition(" ")[0] for head in heads[1:]]
    assert released[0] == __version__ if released else f"first version, {__version__}," in text
