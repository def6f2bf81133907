"""What is said of the router's unit, its account, its rights and its state folder."""

import os
from pathlib import Path

import pytest

from llm_router.host.doctor import service
from llm_router.host.doctor.findings import Finding
from llm_router.host.doctor.service import Installed
from llm_router.host.install import layout, machine
from llm_router.host.supervisors import choosing, packaging

GOOD = {"ActiveState": "active", "UnitFileState": "enabled", "User": "llm-router"}
SYSTEM = layout.system()
USER = layout.user(Path("/home/me"), {})


@pytest.fixture(autouse=True)
def booted(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that systemd booted."""
    monkeypatch.setattr(choosing, "BOOTED", Path("/"))


def told(findings: "object") -> list[str]:
    assert not isinstance(findings, str)
    return [f"{finding.level}: {finding.text}" for finding in findings]  # type: ignore[attr-defined]


def test_without_systemd_or_without_a_service_all_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(service.service(None)) == ["ok: the router is not installed as a service"]
    monkeypatch.setattr(choosing, "BOOTED", Path("/no/such/folder"))
    assert told(service.service(None))[0].startswith("ok: this machine was not booted by systemd")


def test_a_unit_in_each_state() -> None:
    def about(**words: str) -> list[str]:
        return told(service.service(Installed(SYSTEM, {**GOOD, **words})))

    assert about() == ["ok: llm-router.service runs"]
    assert about(ActiveState="failed", Result="exit-code") == ["fail: llm-router.service has failed (exit-code)"]
    assert about(ActiveState="inactive") == ["warn: llm-router.service is inactive"]
    assert about(UnitFileState="disabled")[1:] == ["warn: llm-router.service does not start at boot"]
    assert about(NeedDaemonReload="yes")[1:] == ["warn: llm-router.service was changed since systemd read it"]
    assert told(service.service(Installed(SYSTEM, {})))[0].startswith("fail: systemd does not answer")


def test_an_accounts_own_manager_should_linger() -> None:
    found = told(service.service(Installed(USER, GOOD)))
    assert "boot" in found[1]


def test_it_is_found_where_it_was_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = layout.user(tmp_path, {})
    assert service.find((mine,)) is None
    mine.unit.parent.mkdir(parents=True)
    mine.unit.touch()
    said = "ActiveState=active\nUser=x\nResult=a=b"
    monkeypatch.setattr(machine, "ask", lambda _words: (0, said))
    found = service.find((mine,))
    assert found == Installed(mine, {"ActiveState": "active", "User": "x", "Result": "a=b"})
    assert found.account == "", "a user's own"
    monkeypatch.setattr(machine, "ask", lambda _words: (1, said))
    assert service.find((mine,)) == Installed(mine, {})


def test_what_a_plain_account_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template, rule = tmp_path / "llm-router-model@.service", tmp_path / "50-llm-router.rules"
    monkeypatch.setattr(packaging, "TEMPLATE_PLACE", template)
    monkeypatch.setattr(packaging, "RULE_PLACE", rule)
    installed = Installed(SYSTEM, GOOD)
    assert told(service.rights(installed)) == ["fail: the account llm-router of the service does not exist"]
    assert told(service.rights(None)) == []
    assert told(service.rights(Installed(SYSTEM, {**GOOD, "User": "root"}))) == []
    monkeypatch.setattr(machine, "account_exists", lambda _name: True)
    assert told(service.rights(installed))[0].startswith("warn:")
    template.write_text("User=somebody\n")
    assert told(service.rights(installed)) == [
        f"fail: {template} is not for the account llm-router",
        f"fail: {rule} is missing: the router may not start an engine",
    ]
    template.write_text(packaging.template("llm-router", Path("/var/lib/llm-router")))
    rule.write_text(packaging.rule("somebody"))
    assert told(service.rights(installed)) == [f"fail: {rule} is not for the account llm-router"]
    rule.write_text(packaging.rule("llm-router"))
    assert told(service.rights(installed))[0].startswith("ok: the account llm-router may start engines")


def test_the_state_folder(tmp_path: Path) -> None:
    def about(folder: Path, installed: Installed | None = None) -> Finding:
        (found,) = service.state_folder(folder, installed)
        return found

    assert "is not there yet" in about(tmp_path / "none").text
    tmp_path.chmod(0o700)
    assert about(tmp_path).level == "ok"
    tmp_path.chmod(0o755)
    assert about(tmp_path).remedy == f"chmod 700 {tmp_path}"
    if os.getuid() == 0:
        os.chown(tmp_path, 4711, 4711)
        assert about(tmp_path).text == f"{tmp_path} belongs to 4711, not to root"
