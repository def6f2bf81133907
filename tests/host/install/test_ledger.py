"""The list of what was done: kept after each deed, read again, and gone when nothing is left to undo."""

from pathlib import Path

import pytest

from llm_router.host.install.deeds import Enabled, File, Folder
from llm_router.host.install.ledger import NAME, Ledger, folded
from llm_router.host.install.machine import InstallError

A, B = Folder("/a"), File("/b", "text", after=("true",))


def test_a_list_is_there_from_the_first_deed_to_the_last_undone(tmp_path: Path) -> None:
    folder = tmp_path / "etc" / "llm-router"
    ledger = Ledger(folder)
    assert ledger.deeds == ()
    ledger.add(A)
    ledger.add(B)
    assert Ledger(folder).deeds == (A, B)
    assert Ledger(folder).cut_off == (A, B), "it was never settled"
    assert (folder / NAME).stat().st_mode & 0o777 == 0o600
    ledger.drop(B)
    assert Ledger(folder).deeds == (A,)
    ledger.drop(A)
    assert list(tmp_path.iterdir()) == [], "with it go the folders that were made for it"


def test_a_folder_that_was_there_stays(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.add(A)
    ledger.drop(A)
    assert tmp_path.is_dir()
    ledger = Ledger(tmp_path / "new")
    ledger.add(A)
    (tmp_path / "new" / "mine").touch()
    ledger.drop(A)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mine"]


def test_what_is_settled_is_not_cut_off(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.add(A)
    ledger.settle()
    ledger.add(B)
    assert Ledger(tmp_path).cut_off == (B,)
    ledger.drop(A)
    assert Ledger(tmp_path).cut_off == (B,), "an older deed that goes leaves the newer ones what they are"


def test_the_same_deed_twice_is_forgotten_from_the_end(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for deed in (A, B, A):
        ledger.add(deed)
    ledger.drop(A)
    assert ledger.deeds == (A, B)


def test_folded_keeps_the_first_before_and_the_last_after() -> None:
    first = File("/b", "one", before="theirs", was=(0o600, "0:0"))
    second = File("/b", "two", before="one", was=(0o644, "0:0"))
    made, later = Folder("/a", whole=True), Folder("/a", 0o700, was=(0o755, "0:0"))
    assert folded([made, first, Enabled((), "u"), later, second, Enabled((), "u")]) == [
        Folder("/a", 0o700, whole=True),
        File("/b", "two", before="theirs", was=(0o600, "0:0")),
        Enabled((), "u"),
    ]


@pytest.mark.parametrize("text", ["", "{", '{"deeds": [{"type": "Rocket"}]}', "[]"])
def test_a_list_that_makes_no_sense_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)
    with pytest.raises(InstallError, match=r"cannot understand .*install\.json"):
        Ledger(tmp_path)


def test_a_list_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    with pytest.raises(InstallError, match="cannot read"):
        Ledger(tmp_path)
