"""The unit's text, for each way in which engines run."""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from llm_router.host.install import layout, unit
from llm_router.host.install.machine import InstallError

SYSTEM = layout.system()
USER = layout.user(Path("/home/me"), {})
SERVICE = unit.Service(Path("/usr/bin/python3"), Path("/etc/llm-router"), 120, "llm-router")


def settings(text: str) -> set[str]:
    return {line for line in text.splitlines() if line and line[0] not in "#["}


def test_a_plain_account_with_engines_in_units_is_closed_in_most() -> None:
    found = settings(unit.text(SERVICE, SYSTEM))
    assert {
        "User=llm-router",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "ProtectSystem=strict",
        "PrivateTmp=yes",
        "RestrictNamespaces=yes",
        "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK",
        "ExecStart=/usr/bin/python3 -I -m llm_router serve --config /etc/llm-router",
        "TimeoutStopSec=120",
        "RestartPreventExitStatus=6",
    } <= found


def test_what_lies_in_tmp_is_not_hidden_from_the_service() -> None:
    for path in (Path("/tmp/checkout/.venv/bin/python"), Path("/var/tmp/x/python")):
        assert "PrivateTmp=no" in settings(unit.text(replace(SERVICE, python=path), SYSTEM))
    assert "PrivateTmp=yes" in settings(unit.text(replace(SERVICE, python=Path("/tmpfiles/python")), SYSTEM))


def test_engines_as_children_may_write_and_die_alone() -> None:
    found = settings(unit.text(replace(SERVICE, engines="children"), SYSTEM))
    assert {"ProtectSystem=full", "OOMPolicy=continue"} <= found
    assert "RestrictNamespaces=yes" not in found


def test_files_of_existing_engines_can_be_edited() -> None:
    assert "ProtectSystem=full" in settings(unit.text(replace(SERVICE, edits=True), SYSTEM))


def test_root_keeps_the_rights_that_it_needs() -> None:
    found = settings(unit.text(replace(SERVICE, account="root"), SYSTEM))
    assert "CapabilityBoundingSet=" not in found
    assert "ReadWritePaths=-/etc/systemd/system" in found


@pytest.mark.parametrize("account", ["llm-router", "root"])
@pytest.mark.parametrize("engines", ["units", "children"])
def test_what_would_hide_gpus_or_forbid_their_code_is_never_there(account: str, engines: unit.Engines) -> None:
    text = unit.text(replace(SERVICE, account=account, engines=engines), SYSTEM)
    forbidden = (
        "PrivateDevices",
        "DevicePolicy",
        "DeviceAllow",
        "ProtectClock",
        "MemoryDenyWriteExecute",
        "ProtectProc",
    )
    assert not [line for line in settings(text) if line.startswith(forbidden)]


def test_a_users_manager_gets_only_what_it_can_do() -> None:
    found = settings(unit.text(replace(SERVICE, account=""), USER))
    assert not [
        line for line in found if line.startswith(("User=", "Protect", "Private", "StateDirectory", "Capability"))
    ]
    assert {"NoNewPrivileges=yes", "WantedBy=default.target"} <= found


@pytest.mark.parametrize(
    "path", ["/home/two words/python", "/home/50%/python", "/home/$HOME/python", "relative", '/a"b']
)
def test_a_path_that_a_unit_would_read_otherwise_is_refused(path: str) -> None:
    with pytest.raises(InstallError, match="cannot write the unit for"):
        unit.text(replace(SERVICE, python=Path(path)), SYSTEM)


def test_every_line_but_the_plain_ones_is_explained() -> None:
    """A comment stands above each block of settings that restrict something."""
    text = unit.text(SERVICE, SYSTEM)
    for name in ("NoNewPrivileges", "CapabilityBoundingSet", "ProtectSystem", "ProtectHome", "RestrictAddressFamilies"):
        block = text[: text.index(f"\n{name}=")].splitlines()
        assert any(line.startswith("#") for line in block[-3:]), name
    assert not re.search("@[A-Z_]+@", text)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.slow
@pytest.mark.parametrize("where", [SYSTEM, USER], ids=["system", "user"])
@pytest.mark.parametrize("engines", ["units", "children"])
def test_systemd_understands_every_line(tmp_path: Path, where: layout.Layout, engines: unit.Engines) -> None:
    service = replace(SERVICE, account="root" if where is SYSTEM else "", engines=engines)
    place = tmp_path / layout.UNIT
    place.write_text(unit.text(service, where))
    scope = "--system" if where is SYSTEM else "--user"
    done = subprocess.run(
        ["systemd-analyze", scope, "verify", "--man=no", str(place)], check=False, capture_output=True, text=True
    )
    ours = [line for line in done.stderr.splitlines() if layout.UNIT in line]
    assert ours == []
