"""Doing a plan and taking it back, with files of the test's: Hypothesis breaks it off anywhere."""

from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router.host.install import doing
from llm_router.host.install.deeds import Answering, Deed, File, Folder, Packages, Running
from llm_router.host.install.ledger import Ledger
from llm_router.host.install.machine import InstallError


def quiet(_text: str) -> None:
    """Nobody listens."""


def a_plan(top: Path) -> list[Deed]:
    return [
        Folder(str(top / "a")),
        File(str(top / "a" / "f"), "f"),
        Folder(str(top / "b"), 0o700, whole=True),
        File(str(top / "there"), "ours"),
        File(str(top / "a" / "config.yml"), "mine", config=True),
    ]


def tree(top: Path) -> dict[str, tuple[int, str]]:
    return {
        str(path.relative_to(top)): (path.stat().st_mode, path.read_text() if path.is_file() else "")
        for path in sorted(top.rglob("*"))
    }


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A folder in which something was there before."""
    (tmp_path / "there").write_text("theirs")
    return tmp_path


def test_a_plan_is_done_once_and_taken_back(top: Path) -> None:
    before, plan, ledger = tree(top), a_plan(top), Ledger(top / "ledger")
    told: list[str] = []
    doing.perform(doing.todo(plan), ledger, told.append)
    assert len(told) == len(plan)
    assert doing.todo(plan) == []
    assert ledger.cut_off == ()
    assert doing.uninstall(ledger, quiet, purge=True) == []
    assert tree(top) == before


def test_the_configuration_stays_unless_it_is_to_go(top: Path) -> None:
    ledger = Ledger(top / "ledger")
    doing.perform(a_plan(top), ledger, quiet)
    left = doing.uninstall(ledger, quiet, purge=False)
    assert left == [f"{top / 'a'} stays: there is something in it that the installation did not make"]
    assert (top / "a" / "config.yml").read_text() == "mine"
    assert not (top / "a" / "f").exists()
    going, staying = doing.parted(Ledger(top / "ledger"), purge=False)
    assert (going, [deed.path for deed in staying]) == ([], [str(top / "a" / "config.yml")])
    doing.uninstall(Ledger(top / "ledger"), quiet, purge=True)
    assert not (top / "a" / "config.yml").exists()


@given(step=st.integers(0, 4), half=st.booleans(), kind=st.sampled_from([InstallError, OSError, KeyboardInterrupt]))
def test_broken_off_anywhere_nothing_is_left(
    step: int, half: bool, kind: type[BaseException], tmp_path_factory: pytest.TempPathFactory
) -> None:
    top = tmp_path_factory.mktemp("top")
    (top / "there").write_text("theirs")
    before, plan, ledger = tree(top), a_plan(top), Ledger(top / "ledger")
    fails, really = plan[step], type(plan[step]).do

    def broken(self: Any) -> None:
        if self.key != fails.key or half:
            really(self)
        if self.key == fails.key:
            raise kind("cannot go on")

    wanted = KeyboardInterrupt if kind is KeyboardInterrupt else InstallError
    with mock.patch.object(type(fails), "do", broken), pytest.raises(wanted):
        doing.perform(plan, ledger, quiet)
    assert tree(top) == before


def test_what_cannot_be_undone_is_told_and_stays_on_the_list(top: Path) -> None:
    ledger = Ledger(top / "ledger")
    doing.perform(a_plan(top), ledger, quiet)

    def stuck(self: File) -> None:
        raise InstallError(f"cannot remove {self.path}: it is stuck")

    with mock.patch.object(File, "undo", stuck):
        left = doing.uninstall(ledger, quiet, purge=True)
    assert sum("it is stuck" in line for line in left) == 3
    assert [type(deed) for deed in Ledger(top / "ledger").deeds] == [File, File, File]
    assert not (top / "b").exists(), "the rest went on"


def test_a_router_is_started_anew_only_if_anything_else_changed(top: Path) -> None:
    running = Running(("true",), "u", "s")
    answering = Answering("http://127.0.0.1:9", (), "u", ())
    folder = Folder(str(top / "x"))
    assert doing.todo([folder, running, answering]) == [folder, running, answering]
    folder.do()
    assert doing.todo([folder, running, answering]) == []


def test_environments_of_earlier_versions_go(top: Path) -> None:
    ledger = Ledger(top / "ledger")
    old, new = Packages(str(top / "1"), "python3", "x"), Packages(str(top / "2"), "python3", "x")
    for deed in (Folder(str(top)), old, new):
        ledger.add(deed)
        Path(deed.path).mkdir(exist_ok=True)
    ledger.settle()
    assert doing.prune([new], ledger, quiet) == []
    assert [deed.key for deed in Ledger(top / "ledger").deeds] == [("folder", str(top)), new.key]
    assert [(top / name).exists() for name in ("1", "2")] == [False, True]
    assert ledger.cut_off == ()


def test_after_a_failed_change_a_router_that_ran_runs_again(top: Path) -> None:
    systemctl = top / "systemctl"
    systemctl.write_text(f'#!/bin/sh\necho "$1" >> {top}/said\n')
    systemctl.chmod(0o755)
    running = Running((str(systemctl),), "u", "s")

    def broken(_self: Running) -> None:
        raise InstallError("cannot restart")

    with mock.patch.object(Running, "do", broken), pytest.raises(InstallError, match="cannot restart"):
        doing.perform([running], Ledger(top / "ledger"), quiet)
    assert (top / "said").read_text().split() == ["is-active", "stop", "stop", "reset-failed", "start"]
