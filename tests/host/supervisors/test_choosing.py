import os
import pwd
from pathlib import Path

import pytest

from llm_router.host.supervisors import choosing
from llm_router.host.supervisors.supervisor import SupervisorError

AS_A_UNIT = {"SYSTEMD_EXEC_PID": str(os.getpid())}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of which nothing is known yet: not booted by systemd, no template, a plain account."""
    monkeypatch.setattr(choosing, "BOOTED", tmp_path / "booted")
    monkeypatch.setattr(choosing, "_TEMPLATES", (tmp_path / "template",))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return tmp_path


async def chosen(word: choosing.Word, machine: Path, **environment: str) -> str:
    given = {"XDG_RUNTIME_DIR": str(machine / "runtime"), **environment}
    supervisors = choosing.choose(word, machine / "state", "die", given)
    text = repr(supervisors)
    await supervisors.aclose()
    return text


def template(account: str) -> str:
    return f"[Service]\nUser={account}\nExecStart=/bin/true\n"


def has_user_manager(machine: Path) -> None:
    (machine / "runtime" / "systemd").mkdir(parents=True)
    (machine / "runtime" / "systemd" / "private").touch()
    (machine / "runtime" / "bus").touch()


async def test_a_router_in_a_shell_runs_its_own_children(machine: Path) -> None:
    has_user_manager(machine)
    assert await chosen("auto", machine) == await chosen("child", machine)
    assert "<children in" in await chosen("auto", machine)
    assert "<children in" in await chosen("auto", machine, SYSTEMD_EXEC_PID="1")


async def test_a_unit_of_root_has_its_engines_as_units(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(SupervisorError, match="was not booted by it"):
        await chosen("systemd", machine)
    (machine / "booted").mkdir()
    assert "<transient units of <systemd (system)" in await chosen("auto", machine, **AS_A_UNIT)


async def test_a_plain_account_has_its_template_else_its_user_manager_else_its_children(machine: Path) -> None:
    assert "<children in" in await chosen("auto", machine, **AS_A_UNIT)
    has_user_manager(machine)
    assert "<transient units of <systemd (user)" in await chosen("auto", machine, **AS_A_UNIT)
    (machine / "template").write_text(template("1000"))
    assert "<template units of <systemd (system)" in await chosen("systemd", machine)


async def test_a_template_is_known_by_its_accounts_name(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    account = pwd.getpwuid(os.getuid())
    monkeypatch.setattr(os, "geteuid", lambda: account.pw_uid or 1)
    (machine / "template").write_text(template(account.pw_name if account.pw_uid else pwd.getpwuid(1).pw_name))
    assert "<template units of <systemd (system)" in await chosen("systemd", machine)


async def test_a_template_for_another_account_is_not_for_this_one(machine: Path) -> None:
    (machine / "template").write_text(template("llm-router"))
    assert "<children in" in await chosen("auto", machine, **AS_A_UNIT)
    with pytest.raises(SupervisorError, match=r"enable-linger.* is for the account 'llm-router'$"):
        await chosen("systemd", machine)
    has_user_manager(machine)
    assert "<transient units of <systemd (user)" in await chosen("systemd", machine)


async def test_who_asks_for_systemd_is_told_what_it_needs(machine: Path) -> None:
    with pytest.raises(
        SupervisorError, match=r"^cannot use the supervisor systemd: .*enable-linger.*llm-router install"
    ):
        await chosen("systemd", machine)
