"""Programs, files and owners, in the smallest pieces."""

import os
from pathlib import Path

import pytest

from llm_router.host.install import machine
from llm_router.host.install.machine import InstallError


def test_a_program_that_fails_is_told_with_its_words() -> None:
    machine.run(("true",))
    machine.run(())
    with pytest.raises(InstallError, match=r"cannot do `sh -c echo no; exit 3`: no; ask somebody"):
        machine.run(("sh", "-c", "echo no; exit 3"), "ask somebody")
    with pytest.raises(InstallError, match="exit code 1"):
        machine.run(("false",))
    with pytest.raises(InstallError, match="cannot run `/no/such/program`"):
        machine.run(("/no/such/program",))
    with pytest.raises(InstallError, match="timed out"):
        machine.run(("sleep", "5"), limit_s=0.01)


def test_a_program_that_is_asked_never_raises() -> None:
    assert machine.ask(("sh", "-c", "echo out; echo err >&2; exit 4")) == (4, "out\nerr")
    assert machine.ask(("/no/such/program",))[0] == 127
    assert machine.ask(("sleep", "5"), limit_s=0.01)[0] == 127


def test_accounts() -> None:
    assert machine.account_exists("root")
    assert not machine.account_exists("no-such-account")


def test_a_text_that_cannot_be_had_is_none(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    assert machine.text_of(str(tmp_path / "bytes")) is None
    assert machine.text_of(str(tmp_path / "none")) is None


def test_an_owner_by_name_or_number(tmp_path: Path) -> None:
    me = f"{os.getuid()}:{os.getgid()}"
    path = str(tmp_path / "f")
    machine.write(path, "x", 0o600, me)
    assert machine.stands(path, 0o600, me)
    assert not machine.stands(path, 0o600, "no-such-account:no-such-group")
    assert not machine.stands(path, 0o644, "")
    with pytest.raises(InstallError, match="this host has no such account"):
        machine.write(path, "y", 0o600, "no-such-account:root")
    assert Path(path).read_text() == "x", "whole or not at all"
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match=r"cannot write .*none/f: No such file"):
        machine.write(str(tmp_path / "none" / "f"), "x", 0o600, "")
