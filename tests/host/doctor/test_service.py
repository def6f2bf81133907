"""What is said of the router's unit, its account, its rights and its state folder."""

import os
import sys
from pathlib import Path

import pytest

from llm_router.config.load import Config, parse
from llm_router.host.doctor import service
from llm_router.host.doctor.findings import Finding, fail
from llm_router.host.doctor.service import Installed
from llm_router.host.install import layout, machine, plan
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
    monkeypatch.setattr(plan, "_POLKIT", ("/",))
    installed = Installed(SYSTEM, GOOD)
    assert told(service.rights(installed)) == ["fail: the account llm-router of the service does not exist"]
    assert told(service.rights(None)) == []
    assert told(service.rights(Installed(SYSTEM, {**GOOD, "User": "root"}))) == []
    monkeypatch.setattr(machine, "account_exists", lambda _name: True)
    assert told(service.rights(installed))[0].startswith("warn:")
    template.write_text("User=somebody\n")
    assert told(service.rights(installed)) == [
        f"fail: {template} is not for the account llm-router",
        f"fail: {rule} is missing: the router may not start engines",
    ]
    template.write_text(packaging.template("llm-router", Path("/var/lib/llm-router")))
    rule.write_text(packaging.rule("somebody"))
    assert told(service.rights(installed)) == [f"fail: {rule} is not for the account llm-router"]
    rule.write_text(packaging.rule("llm-router"))
    assert told(service.rights(installed))[0].startswith("ok: the account llm-router may start engines")


@pytest.fixture
def rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place of the rule on a machine with polkit, the account and its template."""
    template, rule = tmp_path / "llm-router-model@.service", tmp_path / "50-llm-router.rules"
    template.write_text(packaging.template("llm-router", Path("/var/lib/llm-router")))
    monkeypatch.setattr(packaging, "TEMPLATE_PLACE", template)
    monkeypatch.setattr(packaging, "RULE_PLACE", rule)
    monkeypatch.setattr(machine, "account_exists", lambda _name: True)
    monkeypatch.setattr(plan, "_POLKIT", ("/",))
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    return rule


def configured(server: str = "") -> Config:
    text = f"""
server: {{{server}}}
backends: {{sglang: {{service: sglang, port: 30000}}}}
models:
  a: {{backend: sglang, path: /m/a}}
  b: {{backend: sglang, path: /m/b, service: other.service}}
  c: {{backend: sglang, path: /m/c, service: third}}
"""
    return parse(text, "c.yml", {}, lambda _path: "")


def test_a_unit_that_came_into_the_configuration_after_the_rule_was_written_is_named(rule: Path) -> None:
    installed = Installed(SYSTEM, GOOD)
    rule.write_text(packaging.rule("llm-router", ["sglang", "third.service"]))
    (found,) = service.rights(installed, configured())
    assert found == fail(
        "polkit",
        f"{rule} does not name other.service, which the configuration uses: the router may not start it",
        "type: sudo llm-router install",
    )
    rule.write_text(packaging.rule("llm-router"))
    (found,) = service.rights(installed, configured())
    assert "does not name other.service, sglang.service and third.service, " in found.text
    rule.write_text(packaging.rule("llm-router", plan.steered(configured())))
    assert told(service.rights(installed, configured())) == [
        "ok: the account llm-router may start engines, other.service, sglang.service and third.service"
    ]


def test_what_is_to_be_typed_keeps_the_account(rule: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = Installed(SYSTEM, {**GOOD, "User": "me"})
    packaging.TEMPLATE_PLACE.write_text(packaging.template("me", Path("/var/lib/llm-router")))
    rule.write_text(packaging.rule("me"))
    (tmp_path / "llm-router").touch()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    (found,) = service.rights(installed, configured())
    assert found.remedy == f"type: sudo {tmp_path}/llm-router install --account me"


def test_units_of_the_accounts_own_manager_need_no_rule(rule: Path) -> None:
    rule.write_text(packaging.rule("llm-router"))
    assert told(service.rights(Installed(SYSTEM, GOOD), configured("units: user"))) == [
        "ok: the account llm-router may start engines"
    ]


def test_engines_as_children_need_the_rule_for_units_that_exist_already(
    rule: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packaging.TEMPLATE_PLACE.unlink()
    installed, names = Installed(SYSTEM, GOOD), "other.service, sglang.service and third.service"
    assert told(service.rights(installed, configured()))[1:] == [
        f"fail: {rule} is missing: the router may not start {names}"
    ]
    monkeypatch.setattr(plan, "_POLKIT", ("/no/such/polkit",))
    *_, found = service.rights(installed, configured())
    assert found.text == f"the router may not start {names}: there is no polkit"
    assert found.remedy == "install polkit, then type: sudo llm-router install"


def test_a_rule_of_somebody_elses_form_or_out_of_sight_is_believed(rule: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rule.write_text('polkit.addRule(function () { return "llm-router"; });')
    assert [found.level for found in service.rights(Installed(SYSTEM, GOOD), configured())] == ["ok"]

    def closed(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", closed)
    monkeypatch.setattr(machine, "text_of", lambda _path: "User=llm-router\n")
    (found,) = service.rights(Installed(SYSTEM, GOOD), configured())
    assert found.level == "ok"
    assert "root sees the rule" in found.text


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
