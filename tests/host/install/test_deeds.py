"""Single deeds in a folder of the test's: done once, known as done, undone to what was there before."""

import stat
import sys
import zipfile
from pathlib import Path

import pytest

from llm_router.host.install import deeds
from llm_router.host.install.deeds import Answering, Enabled, File, Folder, Packages, Running
from llm_router.host.install.machine import InstallError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_folder_is_made_and_removed_again(tmp_path: Path) -> None:
    deed = Folder(str(tmp_path / "a"), 0o750).found()
    assert not deed.done()
    deed.do()
    assert deed.done()
    assert mode(tmp_path / "a") == 0o750
    assert deed.undo() is None
    assert not (tmp_path / "a").exists()
    assert deed.undo() is None, "a second time, or never done: nothing to do"


def test_a_folder_with_something_of_others_in_it_stays(tmp_path: Path) -> None:
    deed = Folder(str(tmp_path / "a")).found()
    deed.do()
    (tmp_path / "a" / "theirs").touch()
    assert "stays: there is something in it" in str(deed.undo())
    assert (tmp_path / "a" / "theirs").exists()


def test_a_folder_that_goes_with_all_in_it(tmp_path: Path) -> None:
    deed = Folder(str(tmp_path / "a"), whole=True).found()
    deed.do()
    (tmp_path / "a" / "ours").touch()
    deed.undo()
    assert not (tmp_path / "a").exists()


def test_a_folder_that_was_there_gets_its_mode_back_and_keeps_its_content(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0o755)
    (tmp_path / "a" / "theirs").touch()
    deed = Folder(str(tmp_path / "a"), 0o700, whole=True).found()
    assert not deed.done()
    deed.do()
    assert mode(tmp_path / "a") == 0o700
    assert deed.undo() is None
    assert mode(tmp_path / "a") == 0o755
    assert (tmp_path / "a" / "theirs").exists()


def test_a_folder_whose_parent_is_missing_or_that_is_a_link_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match="cannot make the folder"):
        Folder(str(tmp_path / "none" / "a")).do()
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(InstallError, match="it is a link"):
        Folder(str(tmp_path / "link")).do()


def test_a_file_is_written_whole_with_its_mode_and_removed_again(tmp_path: Path) -> None:
    path = tmp_path / "f"
    deed = File(str(path), "text\n", 0o640).found()
    deed.do()
    assert (path.read_text(), mode(path)) == ("text\n", 0o640)
    assert deed.done()
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"], "no half-written piece is left"
    assert deed.undo() is None
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_there_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("old\n")
    path.chmod(0o600)
    deed = File(str(path), "new\n").found()
    deed.do()
    assert path.read_text() == "new\n"
    deed.undo()
    assert (path.read_text(), mode(path)) == ("old\n", 0o600)


def test_an_edited_file_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "f"
    deed = File(str(path), "text\n").found()
    deed.do()
    path.write_text("edited\n")
    assert not deed.done()
    assert "was changed since" in str(deed.undo())
    assert (tmp_path / f"f{deeds.ASIDE}").read_text() == "edited\n"


def test_an_operators_configuration_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    path.write_text("mine\n")
    path.chmod(0o644)
    deed = File(str(path), "other\n", 0o640, config=True).found()
    deed.do()
    assert (path.read_text(), mode(path)) == ("mine\n", 0o640)
    path.write_text("mine, changed later\n")
    deed.undo()
    assert (path.read_text(), mode(path)) == ("mine, changed later\n", 0o644)


def test_a_file_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    (tmp_path / "f").symlink_to(tmp_path / "target")
    with pytest.raises(InstallError, match="it is a link"):
        File(str(tmp_path / "f"), "x").do()
    assert (tmp_path / "target").read_text() == "precious"


def test_what_follows_a_file_is_run_after_it_came_and_went(tmp_path: Path) -> None:
    log = tmp_path / "log"
    after = ("sh", "-c", f"ls {tmp_path} >> {log}")
    deed = File(str(tmp_path / "f"), "x", after=after).found()
    deed.do()
    deed.undo()
    assert log.read_text().split() == ["f", "log", "log"]


def a_wheel(folder: Path) -> Path:
    """The smallest thing that pip installs."""
    wheel = folder / "llm_router-9.9-py3-none-any.whl"
    about = "llm_router-9.9.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("llm_router/__init__.py", "")
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: llm-router\nVersion: 9.9\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    return wheel


# An environment with a pip of its own, as on a host: most of the time is pip unpacking itself.
@pytest.mark.slow
def test_packages_are_installed_by_a_real_pip_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    deed = Packages(str(tmp_path / "9.9"), sys.executable, str(a_wheel(tmp_path)), ("other==1",))
    assert not deed.done()
    deed.do()
    assert deed.done()
    assert list((tmp_path / "9.9").glob("lib/python3*/site-packages/llm_router/__init__.py"))
    deed.undo()
    assert not (tmp_path / "9.9").exists()
    assert not deed.done()


@pytest.mark.slow
def test_packages_that_cannot_be_had_leave_nothing_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    # It makes an environment that is this one: a real one takes seconds, for pip unpacks itself into it.
    python = tmp_path / "python"
    pip = (
        f"mkdir -p $3/bin; printf '#!/bin/sh\\nexec {sys.executable} \"$@\"\\n' > $3/bin/python; chmod +x $3/bin/python"
    )
    python.write_text(f"#!/bin/sh\n{pip}\n")
    python.chmod(0o755)
    deed = Packages(str(tmp_path / "9.9"), str(python), "no-such-thing==1")
    with pytest.raises(InstallError, match=r"cannot do `.*pip install.*no-such-thing(.|\n)*look at the network"):
        deed.do()
    assert not deed.done()


FAKE = """\
#!/bin/sh
echo "$@" >> {folder}/said
case "$1" in
  is-enabled|is-active) exit $(cat {folder}/answer) ;;
  stop) exit $(cat {folder}/stops) ;;
esac
"""


@pytest.fixture
def systemctl(tmp_path: Path) -> Path:
    """A program in the place of systemctl: writes down what it is told, answers as the files say."""
    program = tmp_path / "systemctl"
    program.write_text(FAKE.format(folder=tmp_path))
    program.chmod(0o755)
    (tmp_path / "answer").write_text("1")
    (tmp_path / "stops").write_text("0")
    return program


def said(systemctl: Path) -> list[str]:
    return (systemctl.parent / "said").read_text().splitlines()


def test_a_unit_is_enabled_and_disabled_only_if_it_is_enabled(systemctl: Path) -> None:
    deed = Enabled((str(systemctl),), "a.service")
    assert not deed.done()
    deed.do()
    deed.undo()
    (systemctl.parent / "answer").write_text("0")
    assert deed.done()
    deed.undo()
    asked = "is-enabled --quiet a.service"
    assert said(systemctl) == [asked, "enable --quiet a.service", asked, asked, asked, "disable --quiet a.service"]


def test_a_unit_is_started_anew_and_stopped_with_its_engines(systemctl: Path) -> None:
    deed = Running((str(systemctl),), "a.service", "a.slice")
    deed.do()
    deed.undo()
    assert said(systemctl) == ["restart a.service", "stop a.service", "stop a.slice", "reset-failed a.service"]


def test_a_unit_that_is_not_there_needs_no_stop_and_one_that_cannot_be_stopped_is_told(systemctl: Path) -> None:
    deed = Running((str(systemctl),), "a.service", "a.slice")
    (systemctl.parent / "stops").write_text("5")
    assert deed.undo() is None
    (systemctl.parent / "stops").write_text("1")
    with pytest.raises(InstallError, match=r"cannot stop a\.service"):
        deed.undo()


def test_a_router_that_never_answers_fails_with_what_it_said(systemctl: Path) -> None:
    systemctl.write_text("#!/bin/sh\necho ActiveState=active NRestarts=1\n")
    deed = Answering("http://127.0.0.1:9", (str(systemctl),), "a.service", ("echo", "no such file"), 5.0)
    with pytest.raises(
        InstallError, match=r"a\.service does not answer at http://127\.0\.0\.1:9\. It said:\nno such file"
    ):
        deed.do()


def test_every_deed_says_what_it_does_and_undoes(tmp_path: Path) -> None:
    for deed in (
        Folder("/a"),
        Folder("/a", whole=True),
        Folder("/a", was=(0o755, "0:0")),
        File("/a", "x", owner="root:root"),
        File("/a", "x", was=(0o755, "0:0")),
        Packages("/a", "python3", "b"),
        deeds.Account("a", "/a", ("root", "no-such-group")),
        Enabled((), "a"),
        Running((), "a", "b"),
        Answering("a", (), "a", ()),
    ):
        assert deed.says()
        assert deed.unsays()
        assert deed.key[1]
    assert "in the groups root)" in deeds.Account("a", "/a", ("root", "no-such-group")).says()
