import os
from pathlib import Path

import pytest

from llm_router.engines.engine import Edit, Launch, Somewhere
from llm_router.host.supervisors import preparing
from llm_router.host.supervisors.manager import Scope
from llm_router.host.supervisors.supervisor import SupervisorError


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "start.sh"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


def test_a_script_becomes_a_drop_in_that_the_next_model_takes_back(tmp_path: Path, script: str) -> None:
    drop_ins = tmp_path / "run"
    launch = Launch((script,), unit="sglang.service")
    preparing.check(launch, drop_ins, "")
    assert preparing.prepare(launch, drop_ins, "", "qwen")
    place = drop_ins / "sglang.service.d" / "50-llm-router.conf"
    assert place.read_text().endswith(f"[Service]\nExecStart=\nExecStart=:{script}\n")
    assert [path.name for path in place.parent.iterdir()] == ["50-llm-router.conf"]
    own = Launch((), unit="sglang.service")
    assert preparing.prepare(own, drop_ins, "", "other")
    assert not place.exists()
    assert not preparing.prepare(own, drop_ins, "", "other")


def test_what_others_dropped_in_stays(tmp_path: Path) -> None:
    theirs = tmp_path / "sglang.service.d" / "override.conf"
    theirs.parent.mkdir()
    theirs.write_text("[Service]\nNice=5\n")
    preparing.prepare(Launch((), unit="sglang.service"), tmp_path, "", "m")
    assert theirs.exists()


def test_a_missing_script_is_named(tmp_path: Path, script: str) -> None:
    with pytest.raises(SupervisorError, match=r"there is no script /nowhere\.sh; correct `script`"):
        preparing.check(Launch(("/nowhere.sh",), unit="x.service"), tmp_path, "")
    Path(script).chmod(0o644)
    with pytest.raises(SupervisorError, match=r"may not be executed; type: chmod \+x"):
        preparing.check(Launch((script,), unit="x.service"), tmp_path, "")


def test_a_place_that_may_not_be_written_is_named(tmp_path: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(SupervisorError, match=r"this account may not write .*; run the router as root"):
        preparing.check(Launch((script,), unit="x.service"), tmp_path / "a" / "b", "")


def test_a_file_is_edited_in_the_units_own_folder(tmp_path: Path) -> None:
    edit = Edit(Somewhere("config.yml"), ((("model", "model_name"), "new"),))
    launch = Launch((), unit="x.service", edit=edit)
    with pytest.raises(SupervisorError, match=r"^cannot find config.yml"):
        preparing.check(launch, tmp_path, str(tmp_path))
    (tmp_path / "config.yml").write_text("model: {model_name: old}\n")
    preparing.check(launch, tmp_path, str(tmp_path))
    assert (tmp_path / "config.yml").read_text() == "model: {model_name: old}\n"
    preparing.prepare(launch, tmp_path, str(tmp_path), "m")
    assert (tmp_path / "config.yml").read_text() == "model: {model_name: new}\n"


@pytest.mark.parametrize(
    ("scope", "place", "expected"),
    [
        ("system", "run", "/run/systemd/system"),
        ("system", "etc", "/etc/systemd/system"),
        ("user", "run", "/run/user/7/systemd/user"),
        ("user", "etc", "/home/me/.config/systemd/user"),
    ],
)
def test_where_drop_ins_belong(scope: Scope, place: str, expected: str) -> None:
    environment = {"XDG_RUNTIME_DIR": "/run/user/7", "XDG_CONFIG_HOME": "/home/me/.config"}
    assert preparing.drop_in_folder(scope, place, environment) == Path(expected)
