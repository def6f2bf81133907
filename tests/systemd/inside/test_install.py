"""Installing on a real systemd, as root: used, repeated, broken off at every step, and taken away without a trace."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from llm_router.demo.shelf import ARGS, COMMAND
from llm_router.demo.tinymodel import write_model
from llm_router.host.install import doing, layout, plan, program, settings
from llm_router.host.install.deeds import Account, Deed, Enabled, File, Folder, Running
from llm_router.host.install.ledger import Ledger
from llm_router.host.install.machine import InstallError
from llm_router.host.install.network import THIS_HOST
from llm_router.host.ports import held_by
from support.router import chat, free_port, until

pytestmark = [pytest.mark.systemd, pytest.mark.slow]

PLACES = layout.system()
#: Models and their configuration; the service has a /tmp and a /var/tmp of its own, so not there.
SHELF = Path("/var/lib/shelf")
#: Copies and locks that useradd itself leaves in /etc, and what systemd and polkit write for themselves.
NOT_OURS = ("/etc/passwd-", "/etc/shadow-", "/etc/group-", "/etc/gshadow-", "/etc/.pwd.lock", "/var/lib/polkit-1")


@pytest.fixture(scope="module")
def config() -> Iterator[Path]:
    """A configuration with two tiny models, readable for everybody."""
    SHELF.mkdir(mode=0o755)
    for name in ("alpha", "beta"):
        write_model(SHELF / f"{name}.gguf", name, f"I am {name}.", 0)
    models = {name: {"backend": "llamacpp", "path": str(SHELF / f"{name}.gguf")} for name in ("alpha", "beta")}
    backends = {"llamacpp": {"command": list(COMMAND), "args": dict(ARGS)}}
    file = SHELF / "config.yml"
    file.write_text(json.dumps({"server": {"port": free_port()}, "backends": backends, "models": models}))
    yield file
    shutil.rmtree(SHELF)


@pytest.fixture(autouse=True)
def nothing_left(config: Path) -> Iterator[dict[str, tuple[object, ...]]]:
    """The tree before; afterwards it must be the same, whatever the test did."""
    before = tree()
    yield before
    command("uninstall", "--yes", "--purge")
    assert changes(before) == {}


def tree() -> dict[str, tuple[object, ...]]:
    """Everything in the places where an installation could leave something, with what it is."""
    found = {}
    for top in ("/etc", "/var/lib", "/run/systemd/system", "/opt/llm-router"):
        for folder, folders, files in os.walk(top):
            for path in (Path(folder, name) for name in (*folders, *files)):
                if not str(path).startswith(NOT_OURS):
                    found[str(path)] = _what(path)
    return found


def _what(path: Path) -> tuple[object, ...]:
    stat = path.lstat()
    if path.is_symlink():
        return ("link", path.readlink(), stat.st_uid)
    content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    return (oct(stat.st_mode), stat.st_uid, stat.st_gid, content)


def changes(before: dict[str, tuple[object, ...]]) -> dict[str, object]:
    """What is otherwise than before."""
    now = tree()
    return {path: (before.get(path), now.get(path)) for path in before | now if before.get(path) != now.get(path)}


def command(*words: str) -> "subprocess.CompletedProcess[str]":
    """The command line, as an administrator types it; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "llm_router", *words], check=False, capture_output=True, text=True, cwd="/"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def units(*words: str) -> list[str]:
    said = subprocess.run(
        ["systemctl", "list-units", "--all", "--plain", "--no-legend", "--full", "llm-router*", *words],
        check=True,
        capture_output=True,
        text=True,
    )
    return [line.split()[0] for line in said.stdout.splitlines()]


def prepared(config: Path) -> list[Deed]:
    """The plan that the command makes from this configuration."""
    found = settings.prepare(config, THIS_HOST, PLACES, os.environ, PLACES.state)
    chosen = plan.Plan(PLACES, found, program.choose("present", PLACES, "llm-router"), "llm-router")
    return plan.deeds(chosen)


def ask(config: Path, model: str) -> Any:
    port = json.loads(config.read_text())["server"]["port"]
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
        answer = client.post("/v1/chat/completions", json=chat(model, stream=False))
    return answer.json()["choices"][0]["message"]["content"]


def test_install_use_uninstall(config: Path, nothing_left: dict[str, tuple[object, ...]]) -> None:
    said = command("install", "--yes", "--config", str(config)).stdout
    assert "In Open WebUI" in said
    assert "any word: this router asks for none" in said
    assert "I am alpha." in ask(config, "alpha")
    assert "I am beta." in ask(config, "beta")
    engines = units("--type=service", "--state=running")
    assert len(engines) == 2, "the router, and one engine in a unit of its own"
    assert any(unit.startswith("llm-router-model@") for unit in engines)
    examined = json.loads(command("doctor", "--json").stdout)
    bad = [finding for finding in examined["findings"] if finding["level"] != "ok" and finding["area"] != "clock"]
    assert bad == []
    command("uninstall", "--yes")
    assert units() == []
    left = changes(nothing_left)
    assert set(left) == {"/etc/llm-router", "/etc/llm-router/config.yml", "/etc/llm-router/install.json"}
    assert _what(Path("/etc/llm-router/config.yml"))[:3] == (oct(0o100640), 0, 0), "its group is gone"


def test_a_second_installation_does_nothing(config: Path) -> None:
    command("install", "--yes", "--config", str(config))
    before = tree()
    main_pid = subprocess.check_output(["systemctl", "show", "-P", "MainPID", layout.UNIT])
    assert "nothing is to be done" in command("install", "--yes", "--config", str(config)).stdout
    assert "nothing is to be done" in command("install", "--yes").stdout
    watched = {path: change for path, change in changes(before).items() if not path.startswith("/var/lib/llm-router/")}
    assert watched == {}
    assert subprocess.check_output(["systemctl", "show", "-P", "MainPID", layout.UNIT]) == main_pid


def test_a_dry_run_changes_nothing(config: Path, nothing_left: dict[str, tuple[object, ...]]) -> None:
    said = command("install", "--dry-run", "--config", str(config)).stdout
    assert "ProtectSystem=strict" in said
    assert changes(nothing_left) == {}
    command("install", "--yes", "--config", str(config))
    before = {path for path in tree() if not path.startswith("/var/lib/llm-router/")}
    assert "remove the account llm-router" in command("uninstall", "--dry-run", "--purge").stdout
    assert {path for path in tree() if not path.startswith("/var/lib/llm-router/")} == before
    assert "I am alpha." in ask(config, "alpha")


def test_the_unit_is_one_that_systemd_understands(config: Path) -> None:
    command("install", "--yes", "--config", str(config))
    done = subprocess.run(["systemd-analyze", "verify", str(PLACES.unit)], check=False, capture_output=True, text=True)
    assert "llm-router" not in done.stdout + done.stderr
    assert done.returncode == 0
    exposed = subprocess.check_output(["systemd-analyze", "security", "--no-pager", layout.UNIT], text=True)
    level = float(exposed.split("Overall exposure level for llm-router.service: ")[1].split()[0])
    assert level < 4.0, exposed


STEPS = [Account, Folder, File, File, File, File, Enabled, Running]


@pytest.mark.parametrize(
    ("step", "half"),
    [*((step, True) for step in range(len(STEPS) + 1)), (0, False), (4, False), (7, False)],
)
def test_a_failure_at_any_step_undoes_everything(
    step: int, half: bool, config: Path, nothing_left: dict[str, tuple[object, ...]], monkeypatch: pytest.MonkeyPatch
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


def test_a_router_that_cannot_start_is_not_left_installed(
    config: Path, nothing_left: dict[str, tuple[object, ...]]
) -> None:
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


def test_for_containers_it_listens_on_their_bridge_and_asks_for_the_key(config: Path) -> None:
    words = ("install", "--yes", "--json", "--config", str(config), "--open-webui", "container")
    told = json.loads(command(*words, "--bridge", "127.0.0.9").stdout)
    port = json.loads(config.read_text())["server"]["port"]
    assert f"http://127.0.0.9:{port}/v1" in told["connection"]
    with httpx2.Client(base_url=f"http://127.0.0.9:{port}", timeout=60, trust_env=False) as client:
        assert client.get("/v1/models").status_code == 401
        key = {"Authorization": f"Bearer {told['keys']['open-webui']}"}
        assert client.get("/v1/models", headers=key).status_code == 200
        assert client.post("/models/load", json={"model": "alpha"}, headers=key).status_code == 403, "not an admin's"


def test_engines_of_the_service_end_with_an_uninstall(config: Path) -> None:
    command("install", "--yes", "--config", str(config))
    ask(config, "alpha")
    engine = next(unit for unit in units("--type=service") if unit.startswith("llm-router-model@"))
    pid = int(subprocess.check_output(["systemctl", "show", "-P", "MainPID", engine]))
    assert Path(f"/proc/{pid}").exists()
    command("uninstall", "--yes", "--purge")
    until(lambda: not Path(f"/proc/{pid}").exists(), 5)


def test_what_an_operator_changed_is_put_aside_not_lost(config: Path) -> None:
    command("install", "--yes", "--config", str(config))
    text = PLACES.unit.read_text()
    PLACES.unit.write_text(text + "# mine\n")
    said = command("uninstall", "--yes", "--purge").stdout
    aside = PLACES.unit.with_name("llm-router.service.changed-by-you")
    assert f"it is now {aside}" in said
    assert aside.read_text().endswith("# mine\n")
    aside.unlink()


def test_a_new_unit_text_is_an_upgrade_and_a_failed_one_brings_the_old_router_back(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command("install", "--yes", "--config", str(config))
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
