import os
from pathlib import Path

import pytest

from llm_router.host.state import StateError, StateFolder, opened, place


def test_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert place("/var/lib/x", {}) == Path("/var/lib/x")
    assert place("~/x", {}, "/etc/r") == tmp_path / "x"
    assert place("state", {}, "/etc/r") == Path("/etc/r/state")
    assert place(None, {"STATE_DIRECTORY": "/var/lib/llm-router:/other"}) == Path("/var/lib/llm-router")
    assert place(None, {}) == tmp_path / ".local" / "state" / "llm-router"


def test_it_is_nobody_elses_and_held_by_one(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "state"
    with opened(folder) as state:
        assert state.path == folder
        assert folder.stat().st_mode & 0o777 == 0o700
        with pytest.raises(StateError, match=rf"\(pid {os.getpid()}\).*another `state_dir`"), opened(folder):
            pass
    with opened(folder):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StateError, match=r"cannot use the state folder .*file/state: Not a directory"),
        opened(tmp_path / "file" / "state"),
    ):
        pass


def test_the_serial_only_grows_and_survives_nonsense(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = StateFolder(tmp_path)
    assert state.serial == 0
    state.remember_serial(7)
    state.remember_serial(3)
    assert StateFolder(tmp_path).serial == 7
    assert not caplog.text
    (tmp_path / "serial").write_bytes(b"half a numb\xff")
    again = StateFolder(tmp_path)
    assert again.serial == 0
    assert "numbered from 1 again" in caplog.text
    again.remember_serial(8)
    assert StateFolder(tmp_path).serial == 8


def test_a_disk_that_refuses_the_serial_fails_no_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = StateFolder(tmp_path / "gone")
    state.remember_serial(7)
    assert state.serial == 7
    assert "cannot keep the number of the last instance" in caplog.text


def test_a_lock_that_cannot_be_written_still_locks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "lock").symlink_to("/dev/full")
    with opened(tmp_path):
        assert "another router will not be told who has the folder" in caplog.text
