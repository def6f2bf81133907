"""Which Python the service gets: one that its account can run and nobody else can change."""

import os
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from llm_router import __version__
from llm_router.host.install import program
from llm_router.host.install.layout import Layout
from llm_router.host.install.machine import InstallError

LAYOUT = Layout("system", Path("/e"), Path("/s"), Path("/u"), Path("/opt/llm-router"))


def test_root_and_users_themselves_run_what_they_have() -> None:
    for account in ("", "root"):
        found = program.choose("auto", LAYOUT, account)
        assert (found.packages, found.package.name) == (None, "llm_router")
        assert (found.package / "host/supervisors/run_job.py").is_file()


def test_a_home_that_is_closed_gives_an_environment_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        program, "hindrances", lambda path: iter(["/home/me is closed"] if "bin" not in str(path.parent)[:9] else [])
    )
    monkeypatch.setattr(sys, "executable", "/home/me/venv/bin/python")
    monkeypatch.setattr(sys, "_base_executable", "/home/me/python/bin/python")
    monkeypatch.setattr(program, "_version", lambda _python: (3, 11))
    found = program.choose("auto", LAYOUT, "llm-router", "/src")
    assert found.why == "an environment of its own, because /home/me is closed"
    folder = f"/opt/llm-router/{__version__}-{program.digest()}"
    assert found.python == Path(f"{folder}/bin/python")
    assert found.package == Path(f"{folder}/lib/python3.11/site-packages/llm_router")
    assert found.packages is not None
    assert (found.packages.python, found.packages.wanted) == ("/usr/bin/python3", "/src")
    assert any(line.startswith("msgspec==") for line in found.packages.constraints)
    assert not any(line.startswith("llm-router==") for line in found.packages.constraints)
    with pytest.raises(InstallError, match="cannot run the service from this environment: /home/me is closed"):
        program.choose("present", LAYOUT, "llm-router")


def test_another_text_is_another_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "llm_router"
    (package / "host" / "install").mkdir(parents=True)
    (package / "a.py").write_text("1")
    monkeypatch.setattr(program, "__file__", str(package / "host" / "install" / "program.py"))
    first = program.digest()
    (package / "a.pyc").write_text("made of it")
    assert program.digest() == first
    (package / "a.py").write_text("2")
    assert program.digest() != first


def test_no_python_that_would_do_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_version", lambda _python: (3, 10))
    with pytest.raises(InstallError, match=r"cannot find a Python for the service: .* is not Python 3\.11 or newer"):
        program.choose("new", LAYOUT, "")


def test_what_stands_in_the_way(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir(0o755)
    file = folder / "python"
    file.touch(0o755)

    def about(path: Path) -> list[str]:
        return [reason for reason in program.hindrances(file) if str(path) in reason.split()]

    folder.chmod(0o700)
    assert f"{folder} is closed to other accounts" in about(folder)
    folder.chmod(0o777)
    assert f"{folder} may be changed by everybody" in about(folder) or os.getuid()
    if os.getuid() == 0:
        folder.chmod(0o755)
        assert about(folder) == []
        os.chown(folder, 4711, 4711)
        assert about(folder)[0].startswith(f"{folder} belongs to somebody")
    assert "cannot be looked at" in next(program.hindrances(tmp_path / "none"))


@pytest.mark.parametrize(
    ("told", "source"),
    [
        (None, f"llm-router=={__version__}"),
        ('{"url": "file:///tmp"}', "/tmp"),
        ('{"url": "file:///no/such/folder"}', "file:///no/such/folder"),
        ('{"url": "https://example.org/x.whl"}', "https://example.org/x.whl"),
        ("nonsense", f"llm-router=={__version__}"),
    ],
)
def test_where_it_was_installed_from(told: str | None, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = SimpleNamespace(read_text=lambda _name: told)
    monkeypatch.setattr(metadata, "distribution", lambda _name: found)
    assert program.installed_from() == source


def test_this_python_has_a_version() -> None:
    assert program._version(Path(sys.executable)) == sys.version_info[:2]
    assert program._version(Path("/bin/true")) is None
    assert program._version(Path("/no/such/python")) is None
