import os
from pathlib import Path

import pytest

from llm_router.engines.engine import Edit, Somewhere
from llm_router.host.service import installation
from llm_router.host.service.installation import InstallationError, KeyFile, Keys

EDIT = Edit(Somewhere("config.yml"), ((("model", "model_name"), "new"),))
TEXT = "# mine\nmodel:\n  model_name: old # this\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yml"
    path.write_text(TEXT)
    return path


def test_an_edit_keeps_a_copy_the_rights_and_nothing_else(config: Path) -> None:
    config.chmod(0o640)
    assert installation.apply(EDIT, config)
    assert config.read_text() == TEXT.replace("old", "new")
    assert (config.parent / "config.yml.llm-router.bak").read_text() == TEXT
    assert {path.name for path in config.parent.iterdir()} == {"config.yml", "config.yml.llm-router.bak"}
    assert config.stat().st_mode & 0o777 == 0o640
    assert not installation.apply(EDIT, config)


def test_a_link_stays_a_link(config: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "config.yml"
    link.symlink_to(config)
    assert installation.apply(EDIT, link)
    assert link.is_symlink()
    assert "new" in config.read_text()


@pytest.mark.parametrize(("content", "line"), [(b"model:\n  a: [\n", "line 3"), (b"\xff\xfe\x00", "no UTF-8")])
def test_a_broken_file_is_named_and_left_alone(config: Path, content: bytes, line: str) -> None:
    config.write_bytes(content)
    for attempt in (installation.check, installation.apply):
        with pytest.raises(InstallationError, match=rf"^cannot edit {config}, ?.*{line}|{line}"):
            attempt(EDIT, config)
    assert config.read_bytes() == content
    assert list(config.parent.iterdir()) == [config]


def test_line_ends_and_a_byte_order_mark_stay(config: Path) -> None:
    config.write_bytes(b"\xef\xbb\xbfmodel:\r\n  model_name: old\r\n")
    installation.apply(EDIT, config)
    assert config.read_bytes() == b"\xef\xbb\xbfmodel:\r\n  model_name: new\r\n"


def test_places_are_looked_into_in_order(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("said", "named", "unit", "first", "second")]
    for folder in folders:
        folder.mkdir()
        (folder / "config.yml").touch()
    said, named, unit, first, second = map(str, folders)
    everywhere = Somewhere("config.yml", said, "TABBY_CONFIG_PATH", (first, second))
    environment = {"TABBY_CONFIG_PATH": f"{named}/config.yml"}

    def found(file: Somewhere, environment: dict[str, str], *folders: str) -> str:
        return str(installation.locate(file, environment, *folders).parent)

    assert found(everywhere, environment, unit) == said
    unsaid = Somewhere("config.yml", "", "TABBY_CONFIG_PATH", (first, second))
    assert found(unsaid, environment, unit) == named
    assert found(unsaid, {"TABBY_CONFIG_PATH": named}, unit) == named
    assert found(unsaid, {}, unit) == unit
    assert found(unsaid, {}, "") == first
    (Path(first) / "config.yml").unlink()
    assert found(unsaid, {}) == second


def test_a_file_that_is_nowhere_is_an_error_that_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(InstallationError, match=r"^cannot find config.yml in /nowhere, /neither; write where it is"):
        installation.locate(Somewhere("config.yml", "", "X", ("/nowhere", "/neither")), {})
    # Who says where it is does not want another one to be edited.
    (tmp_path / "config.yml").touch()
    with pytest.raises(InstallationError, match=r"^cannot find /nowhere/config.yml"):
        installation.locate(Somewhere("config.yml", "/nowhere/config.yml", "X", (str(tmp_path),)), {})


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("api_key: one\nadmin_key: two\n", Keys("one", "two")),
        ("api_key: [one, other]\nadmin_key: two\n", Keys("one", "two")),
        ("api_key:\n- 123\n", Keys("123", None)),
        ("api_key: []\nadmin_key: ''\n", Keys()),
        ("", Keys()),
    ],
)
def test_keys_are_a_text_or_a_list(tmp_path: Path, text: str, keys: Keys) -> None:
    (tmp_path / "api_tokens.yml").write_text(text)
    assert KeyFile(tmp_path / "api_tokens.yml").keys() == keys


def test_keys_are_read_again_when_their_file_changes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "api_tokens.yml"
    file = KeyFile(path)
    assert file.keys() == Keys()
    path.write_text("api_key: one\n")
    assert file.keys() == Keys("one")
    path.write_text("api_key: two\n")
    os.utime(path, ns=(1, 1))
    assert file.keys() == Keys("two")
    path.write_text("api_key: [s3cret\n")
    assert file.keys() == Keys("two")
    assert "s3cret" not in caplog.text
    assert str(path) in caplog.text
    path.unlink()
    assert file.keys() == Keys("two")
