"""The files and links of a launch, put in place before the guard starts."""

import errno
import os
from pathlib import Path

import pytest

from llm_router.engines.engine import FileToWrite, Launch
from llm_router.host.supervisors.launching import FirstWord, first_word, is_passing, lay_out, why_not
from llm_router.host.supervisors.records import Folder


def test_files_are_written_with_their_folders_and_rights(tmp_path: Path) -> None:
    files = (FileToWrite(f"{tmp_path}/new/key", b"k", secret=True), FileToWrite("plain.yml", b"p"))
    lay_out(Launch(("x",), cwd=str(tmp_path), files=files))
    key, plain = tmp_path / "new" / "key", tmp_path / "plain.yml"
    assert (key.read_bytes(), key.stat().st_mode & 0o777) == (b"k", 0o600)
    assert (plain.read_bytes(), plain.stat().st_mode & 0o777) == (b"p", 0o644)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "plain.yml"]


def test_a_file_replaces_the_old_one_and_what_a_crash_left(tmp_path: Path) -> None:
    place = tmp_path / "config.yml"
    place.write_text("old")
    (tmp_path / "config.yml.new").write_text("half of")
    lay_out(Launch(("x",), files=(FileToWrite(str(place), b"new"),)))
    assert place.read_text() == "new"
    assert list(tmp_path.iterdir()) == [place]


def test_links_are_made_and_renewed_but_replace_nothing_else(tmp_path: Path) -> None:
    place = tmp_path / "models" / "qwen"
    lay_out(Launch(("x",), links=((str(place), "/absent/one"),)))
    lay_out(Launch(("x",), links=((str(place), "/absent/two"),)))
    assert place.readlink() == Path("/absent/two")
    place.unlink()
    place.write_text("somebody's")
    with pytest.raises(FileExistsError, match="where a link must be"):
        lay_out(Launch(("x",), links=((str(place), "/absent/two"),)))
    assert place.read_text() == "somebody's"


def test_a_relative_place_needs_a_working_directory() -> None:
    with pytest.raises(OSError, match="must be absolute"):
        lay_out(Launch(("x",), links=(("models", "/opt/models"),)))


@pytest.mark.parametrize("said", [b"", b'{"main": {"pid": 1'])
async def test_a_guard_that_ends_in_the_middle_said_nothing(said: bytes) -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, said)
    os.close(write_end)
    assert await first_word(read_end, 5) is None


async def test_a_word_in_two_pieces_is_one_word() -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b'{"step": "exec", ')
    os.write(write_end, b'"errno": 2}\n')
    assert await first_word(read_end, 5) == FirstWord(step="exec", errno=errno.ENOENT)
    os.close(write_end)


def test_an_error_that_nobody_foresaw_is_told_in_the_systems_words(tmp_path: Path) -> None:
    word = FirstWord(step="exec", errno=errno.E2BIG)
    text = why_not(Launch(("/opt/engine",)), word, Folder(tmp_path))
    assert text == f"the program /opt/engine cannot be executed: {os.strerror(errno.E2BIG)}"


@pytest.mark.parametrize(
    ("number", "passing"), [(errno.ENOSPC, True), (errno.ENOMEM, True), (errno.ENOENT, False), (0, False)]
)
def test_what_the_machine_lacks_now_may_be_there_later(number: int, passing: bool) -> None:
    assert is_passing(number) is passing
