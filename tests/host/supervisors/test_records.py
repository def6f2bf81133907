"""The folders of instances: what is written, what is read back, what is forgotten."""

import os
from pathlib import Path

import pytest

from llm_router.core.words import InstanceId
from llm_router.host.supervisors.records import (
    VERSION,
    Birth,
    Folder,
    LaunchRecord,
    RecordError,
    Shelf,
    model_of,
)
from llm_router.host.supervisors.supervisor import Exit

ME = Birth(os.getpid(), 1)


def ended(shelf: Shelf, model: str, number: int) -> Folder:
    token = f"{number:032x}"
    folder = shelf.create(InstanceId(f"{model}#{number}"), token)
    folder.write_launch(LaunchRecord(VERSION, f"{model}#{number}", token, model, "keep", float(number), ME, {}))
    folder.write_exit(Exit(0, asked=True, killed=False))
    return folder


@pytest.mark.parametrize(
    ("instance", "name"),
    [
        ("qwen#8", "qwen-8"),
        ("a/../b c#1", "a-..-b-c-1"),
        ("..", "instance"),
        ("é" * 9, "instance"),
        ("x" * 99, "x" * 60),
    ],
)
def test_no_name_of_a_model_leaves_the_shelf(tmp_path: Path, instance: str, name: str) -> None:
    folder = Shelf(tmp_path).create(InstanceId(instance), "0" * 32)
    assert folder.path == tmp_path / "instances" / f"{name}-{'0' * 32}"
    assert folder.token == "0" * 32
    assert list(Shelf(tmp_path)) == [folder]


def test_an_exit_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder = Shelf(tmp_path).create(InstanceId("a#1"), "0" * 32)
    assert (folder.ended, folder.exit(), folder.asked) == (False, None, False)
    for end in (Exit(None, asked=False, killed=True), Exit(-9, asked=True, killed=False)):
        folder.write_exit(end)
        assert folder.exit() == end
    folder.write_stop(2.5)
    assert (folder.ended, folder.asked) == (True, True)


def test_what_was_never_told_to_live_has_no_handle(tmp_path: Path) -> None:
    folder = ended(Shelf(tmp_path), "a", 1)
    assert folder.handle() is None


def test_a_newer_format_is_not_guessed_at(tmp_path: Path) -> None:
    folder = Shelf(tmp_path).create(InstanceId("a#1"), "0" * 32)
    (folder.path / "exit").write_text('{"version": 2, "code": 0, "asked": true, "killed": false}')
    with pytest.raises(RecordError, match=r"cannot read \S+/exit: a newer llm-router wrote it \(format 2\)"):
        folder.exit()


def test_pruning_keeps_the_last_of_this_model_and_all_of_others(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    mine = [ended(shelf, "a", number) for number in (3, 1, 4, 2)]
    other = ended(shelf, "b", 5)
    living = shelf.create(InstanceId("a#6"), "6" * 32)
    shelf.prune("a", 2, spare=())
    assert {folder.path for folder in shelf} == {mine[0].path, mine[2].path, other.path, living.path}


def test_pruning_spares_an_exit_that_is_still_to_be_read(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    folder = ended(shelf, "a", 1)
    shelf.prune("a", 0, spare={folder.token})
    assert list(shelf) == [folder]
    shelf.prune("a", 0, spare=())
    assert list(shelf) == []


def test_a_removal_that_was_cut_short_is_finished_and_never_found(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    folder = ended(shelf, "a", 1)
    cut = folder.path.rename(f"{folder.path}.removed")
    assert list(shelf) == []
    folder.remove()
    shelf.prune("b", 0, spare=())
    assert not cut.exists()


def test_before_the_first_start_the_shelf_is_empty(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "new")
    assert list(shelf) == []
    assert shelf.folder("0" * 32) is None


@pytest.mark.parametrize(("instance", "model"), [("qwen#8", "qwen"), ("a#b#2", "a#b"), ("plain", "plain")])
def test_the_model_is_in_the_instances_name(instance: str, model: str) -> None:
    assert model_of(InstanceId(instance)) == model
