import os
from pathlib import Path

import pytest

from llm_router.config.problems import ConfigError
from llm_router.host.config_edit import EditError, add_models, create, remove_models

ENTRY = {"command": "y"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "x.yml"
    path.write_text("models:\n  a: {command: x}  # first\n")
    path.chmod(0o600)
    return path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_change_keeps_mode_comments_and_a_copy(file: Path) -> None:
    changed, config = add_models(file, {"b": ENTRY, "c": ENTRY}, {})
    assert (changed, list(config.models)) == (file, ["a", "b", "c"])
    assert file.read_text() == "models:\n  a: {command: x}  # first\n  b:\n    command: y\n  c:\n    command: y\n"
    assert file.stat().st_mode & 0o777 == 0o600
    assert (file.parent / "x.yml.bak").read_text() == "models:\n  a: {command: x}  # first\n"
    _, config = remove_models(file, ["a", "b"], {})
    assert list(config.models) == ["c"]
    assert names(file.parent) == {"x.yml", "x.yml.bak"}


def test_a_link_stays_a_link(file: Path) -> None:
    link = file.with_name("link.yml")
    link.symlink_to(file)
    add_models(link, {"b": ENTRY}, {})
    assert link.is_symlink()
    assert "b:" in file.read_text()


def test_a_result_that_is_no_configuration_is_not_written(file: Path) -> None:
    before = file.read_text()
    with pytest.raises(ConfigError, match=r"models\.b has no such key. Did you mean 'command'"):
        add_models(file, {"b": {"comand": "y"}}, {})
    assert (file.read_text(), names(file.parent)) == (before, {"x.yml"})


def test_somebody_elses_change_is_not_lost(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.fsync

    def meanwhile(handle: int) -> None:
        file.write_text("models: {}  # by hand\n")
        write(handle)

    monkeypatch.setattr(os, "fsync", meanwhile)
    with pytest.raises(EditError, match="somebody else changed it at the same moment; nothing was written, try again"):
        add_models(file, {"b": ENTRY}, {})
    assert file.read_text() == "models: {}  # by hand\n"
    assert not [name for name in names(file.parent) if name.startswith(".")]


def test_in_a_folder_models_have_their_own_file(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text("models: {a: {command: x}}\nserver: {port: 5}\n")
    (tmp_path / "models.yml").write_text("b: {command: x}\n")
    changed, config = add_models(tmp_path, {"c": ENTRY}, {})
    assert (changed.name, sorted(config.models)) == ("models.yml", ["a", "b", "c"])
    assert remove_models(tmp_path, ["a"], {})[0].name == "config.yml"
    with pytest.raises(EditError, match="cannot remove the model 'a'"):
        remove_models(tmp_path, ["a"], {})


def test_an_older_layout_is_converted_first(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"router_port": 1}')
    with pytest.raises(
        EditError, match="it is in an older layout; write it in the present one first: llm-router config"
    ):
        add_models(file, {"b": ENTRY}, {})


def test_a_new_file_is_not_for_everybody(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.yml"
    assert create(path, "models: {}\n") is None
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("models: {}\n", 0o640)
    with pytest.raises(EditError, match="there is a file of this name; name another one, or say --force"):
        create(path, "other\n")
    kept = create(path, "other\n", replace=True)
    assert kept is not None
    assert (path.read_text(), kept.read_text()) == ("other\n", "models: {}\n")
    create(tmp_path, "in a folder\n")
    assert (tmp_path / "config.yml").read_text() == "in a folder\n"


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(EditError, match=r"cannot write .*/gone.yml: No such file or directory"):
        add_models(tmp_path / "gone.yml", {"a": ENTRY}, {})
    (tmp_path / "file").touch()
    with pytest.raises(EditError, match=r"cannot write .*: "):
        create(tmp_path / "file" / "x.yml", "")
    (tmp_path / "bytes.yml").write_bytes(b"\xff")
    with pytest.raises(EditError, match="it is not UTF-8 text"):
        add_models(tmp_path / "bytes.yml", {"a": ENTRY}, {})
