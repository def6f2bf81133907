"""Installing on a real systemd, as root: used, repeated, and taken away without a trace."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from llm_router.host.install import layout
from support.installing import PLACES, Tree, ask, changes, command, tree, units, what
from support.router import free_port, until

pytestmark = [pytest.mark.systemd, pytest.mark.slow]


@pytest.fixture(autouse=True)
def nothing_left(config: Path) -> Iterator[Tree]:
    """The tree before; afterwards it must be the same, whatever the test did."""
    before = tree()
    yield before
    command("uninstall", "--yes", "--purge")
    assert changes(before) == {}


def main_pid(unit: str) -> str:
    return subprocess.check_output(["systemctl", "show", "-P", "MainPID", unit], text=True).strip()


def without_state(found: Tree) -> Tree:
    """What there is but for the state of the router, which runs."""
    return {path: one for path, one in found.items() if not path.startswith("/var/lib/llm-router/")}


def test_install_use_uninstall(config: Path, nothing_left: Tree) -> None:
    said = command("install", "--yes", "--config", str(config)).stdout
    assert "In Open WebUI" in said
    assert "any word: this router asks for none" in said
    assert "I am alpha." in ask(config, "alpha")
    assert "I am beta." in ask(config, "beta")
    running = units("--type=service", "--state=running")
    assert len(running) == 2, "the router, and one engine in a unit of its own"
    (engine,) = (unit for unit in running if unit.startswith("llm-router-model@"))
    pid = int(main_pid(engine))
    assert Path(f"/proc/{pid}").exists()
    examined = json.loads(command("doctor", "--json").stdout)
    bad = [finding for finding in examined["findings"] if finding["level"] != "ok" and finding["area"] != "clock"]
    assert bad == []
    command("uninstall", "--yes")
    until(lambda: not Path(f"/proc/{pid}").exists())
    assert units() == []
    left = changes(nothing_left)
    assert set(left) == {"/etc/llm-router", "/etc/llm-router/config.yml", "/etc/llm-router/install.json"}
    assert what(Path("/etc/llm-router/config.yml"))[:3] == (oct(0o100640), 0, 0), "its group is gone"


def test_what_may_be_done_again_and_by_way_of_trial_changes_nothing(config: Path, nothing_left: Tree) -> None:
    said = command("install", "--dry-run", "--config", str(config)).stdout
    assert "ProtectSystem=strict" in said
    assert changes(nothing_left) == {}
    command("install", "--yes", "--config", str(config))
    before, pid = without_state(tree()), main_pid(layout.UNIT)
    assert "nothing is to be done" in command("install", "--yes", "--config", str(config)).stdout
    assert "nothing is to be done" in command("install", "--yes").stdout
    assert "remove the account llm-router" in command("uninstall", "--dry-run", "--purge").stdout
    assert without_state(tree()) == before
    assert main_pid(layout.UNIT) == pid
    assert "I am alpha." in ask(config, "alpha")


def test_a_unit_that_is_configured_later_is_missed_by_the_doctor_and_added_by_what_it_says(config: Path) -> None:
    command("install", "--yes", "--config", str(config))
    installed = PLACES.config / "config.yml"
    wanted = json.loads(installed.read_text())
    wanted["backends"]["own"] = {"engine": "command", "service": "own", "port": free_port()}
    wanted["models"]["mine"] = {"backend": "own"}
    installed.write_text(json.dumps(wanted))

    def polkit() -> dict[str, str]:
        findings: list[dict[str, str]] = json.loads(command("doctor", "--json", check=False).stdout)["findings"]
        return next(finding for finding in findings if finding["area"] == "polkit")

    found = polkit()
    assert "50-llm-router.rules does not name own.service" in found["text"]
    typed = found["remedy"].removeprefix("type: sudo ").split()
    subprocess.run([*typed, "--yes"], check=True, capture_output=True)
    assert polkit()["level"] == "ok"
    assert "own.service" in polkit()["text"]


def test_the_unit_is_one_that_systemd_understands_and_that_an_operator_may_change(config: Path) -> None:
    command("install", "--yes", "--config", str(config))
    done = subprocess.run(["systemd-analyze", "verify", str(PLACES.unit)], check=False, capture_output=True, text=True)
    assert "llm-router" not in done.stdout + done.stderr
    assert done.returncode == 0
    exposed = subprocess.check_output(["systemd-analyze", "security", "--no-pager", layout.UNIT], text=True)
    level = float(exposed.split("Overall exposure level for llm-router.service: ")[1].split()[0])
    assert level < 4.0, exposed
    PLACES.unit.write_text(PLACES.unit.read_text() + "# mine\n")
    said = command("uninstall", "--yes", "--purge").stdout
    aside = PLACES.unit.with_name("llm-router.service.changed-by-you")
    assert f"it is now {aside}" in said, "what an operator changed is put aside, not lost"
    assert aside.read_text().endswith("# mine\n")
    aside.unlink()


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


def test_the_unit_and_the_configuration_of_an_older_router_are_put_back(config: Path) -> None:
    PLACES.config.mkdir(mode=0o755)
    shutil.copy(config, PLACES.config / "config.yml")
    PLACES.unit.write_text("[Service]\nExecStart=/bin/sleep 1000\n")
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    subprocess.run(["systemctl", "start", layout.UNIT], check=True)
    before = tree()
    assert "stays as it is" in command("install", "--yes").stdout
    assert "I am alpha." in ask(config, "alpha")
    command("uninstall", "--yes", "--purge")
    assert changes(before) == {}
    assert units() == []
    PLACES.unit.unlink()
    shutil.rmtree(PLACES.config)
    subprocess.run(["systemctl", "daemon-reload"], check=True)
