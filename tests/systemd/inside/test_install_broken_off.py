"""An installation on a real systemd that is broken off, at every step: it leaves nothing, or the old router."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_router.host.install import doing
from llm_router.host.install.deeds import Account, Enabled, File, Folder, Running
from llm_router.host.install.ledger import Ledger
from llm_router.host.install.machine import InstallError
from llm_router.host.machine.ports import held_by
from support.installing import PLACES, SHELF, Tree, ask, changes, command, prepared, tree, units
from support.router import until

pytestmark = [pytest.mark.systemd, pytest.mark.slow]


@pytest.fixture(autouse=True)
def nothing_left(config: Path) -> Iterator[Tree]:
    """The tree before; afterwards it must be the same, whatever the test did."""
    before = tree()
    yield before
    if changes(before):
        command("uninstall", "--yes", "--purge")
        assert changes(before) == {}


STEPS = [Account, Folder, File, File, File, File, Enabled, Running]


@pytest.mark.parametrize(
    ("step", "half"),
    [*((step, True) for step in range(len(STEPS) + 1)), (0, False), (4, False), (7, False)],
)
def test_a_failure_at_any_step_undoes_everything(
    step: int, half: bool, config: Path, nothing_left: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    deeds = prepared(config)
    assert [type(deed) for deed in deeds[:-1]] == STEPS
    fails = deeds[step]
    really = type(fails).do

    def broken(self: Any) -> None:
        if self.key != fails.key or half:
            really(self)
        if self.key == fails.key:
            raise InstallError("cannot do it: the disk is on fire")

    monkeypatch.setattr(type(fails), "do", broken)
    with pytest.raises(InstallError, match=r"on fire\nWhat this installation had done is undone\.$"):
        doing.perform(doing.todo(deeds), Ledger(PLACES.config), lambda _text: None)
    assert changes(nothing_left) == {}
    assert units() == []


@pytest.mark.parametrize("step", [1, 5, 7])
def test_an_installation_that_was_killed_is_undone_by_the_next_one(step: int, config: Path) -> None:
    deeds = prepared(config)
    child = os.fork()
    if child == 0:
        kind, really = type(deeds[step]), type(deeds[step]).do

        def killed(self: Any) -> None:
            really(self)
            if self.key == deeds[step].key:
                os._exit(9)

        kind.do = killed  # type: ignore[method-assign]
        doing.perform(doing.todo(deeds), Ledger(PLACES.config), lambda _text: None)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert len(Ledger(PLACES.config).cut_off) == step + 1
    assert "cut off" in command("install", "--yes", "--config", str(config)).stdout
    assert Ledger(PLACES.config).cut_off == ()
    assert "I am alpha." in ask(config, "alpha")


def test_a_router_that_cannot_start_is_not_left_installed(config: Path, nothing_left: Tree) -> None:
    told = json.loads(config.read_text())
    with_taken_port = SHELF / "taken.yml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        told["server"]["port"] = taken.getsockname()[1]
        with_taken_port.write_text(json.dumps(told))
        done = subprocess.run(
            [sys.executable, "-m", "llm_router", "install", "--yes", "--config", str(with_taken_port)],
            check=False,
            capture_output=True,
            text=True,
        )
    with_taken_port.unlink()
    assert done.returncode == 1
    assert "cannot listen on 127.0.0.1" in done.stderr, "the router's own words"
    assert "is undone" in done.stderr
    assert changes(nothing_left) == {}


def test_a_new_unit_text_is_an_upgrade_and_a_failed_one_brings_the_old_router_back(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepared(config)
    doing.perform(doing.todo(first), Ledger(PLACES.config), lambda _text: None)
    deeds = prepared(config)
    newer = [
        File(deed.path, deed.text + "# newer\n", after=deed.after) if deed.key == ("file", str(PLACES.unit)) else deed
        for deed in deeds
        if isinstance(deed, File) and not deed.config
    ] + [deed for deed in deeds if not isinstance(deed, File)]
    missing = doing.todo(newer)
    assert [type(deed).__name__ for deed in missing] == ["File", "Running", "Answering"]

    def broken(_self: Running) -> None:
        raise InstallError("cannot restart")

    monkeypatch.setattr(Running, "do", broken)
    with pytest.raises(InstallError, match="cannot restart"):
        doing.perform(missing, Ledger(PLACES.config), lambda _text: None)
    assert "# newer" not in PLACES.unit.read_text()
    monkeypatch.undo()
    port = json.loads(config.read_text())["server"]["port"]
    until(lambda: held_by(port) is not None)
    assert "I am alpha." in ask(config, "alpha")
    doing.perform(missing, Ledger(PLACES.config), lambda _text: None)
    assert "# newer" in PLACES.unit.read_text()
    assert len([deed for deed in Ledger(PLACES.config).deeds if deed.key == ("file", str(PLACES.unit))]) == 1
