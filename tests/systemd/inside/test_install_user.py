"""Installing for one account, by its own systemd manager, without root."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from llm_router.demo.shelf import ARGS, COMMAND
from llm_router.demo.tinymodel import write_model
from support.router import chat, free_port

pytestmark = [pytest.mark.systemd, pytest.mark.slow]

NAME, UID = "somebody", 4712
HOME = Path("/var/lib/somebody")


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """The account's home, with a model and a configuration in the place where `serve` finds it, and its manager."""
    subprocess.run(["useradd", "--uid", str(UID), "--home-dir", str(HOME), "--create-home", NAME], check=True)
    subprocess.run(["systemctl", "start", f"user@{UID}.service"], check=True)
    write_model(HOME / "alpha.gguf", "alpha", "I am alpha.", 0)
    models = {"alpha": {"backend": "llamacpp", "path": str(HOME / "alpha.gguf")}}
    told = {
        "server": {"port": free_port()},
        "backends": {"llamacpp": {"command": list(COMMAND), "args": dict(ARGS)}},
        "models": models,
    }
    (HOME / "mine.yml").write_text(json.dumps(told))
    subprocess.run(["chown", "-R", f"{NAME}:", str(HOME)], check=True)
    yield HOME
    subprocess.run(["systemctl", "stop", f"user@{UID}.service"], check=True)
    shutil.rmtree(HOME)


def run(*words: str) -> "subprocess.CompletedProcess[str]":
    """A command as this account."""
    environment = {"HOME": str(HOME), "XDG_RUNTIME_DIR": f"/run/user/{UID}", "PATH": os.environ["PATH"]}
    return subprocess.run(
        ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--init-groups", *words],
        check=False,
        capture_output=True,
        text=True,
        cwd=HOME,
        env=environment,
    )


def router(*words: str) -> str:
    done = run(sys.executable, "-m", "llm_router", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def everything() -> set[str]:
    """The account's files, but for what its own systemd and message bus write."""
    return {str(path) for path in HOME.rglob("*") if "dconf" not in path.parts}


def test_install_use_uninstall_without_root(home: Path) -> None:
    before = everything()
    said = router("install", "--user", "--yes", "--config", str(home / "mine.yml"))
    assert "sudo loginctl enable-linger" in said
    config = home / ".config/llm-router/config.yml"
    assert config.stat().st_mode & 0o777 == 0o600
    assert "nothing is to be done" in router("install", "--user", "--yes")
    port = json.loads(config.read_text())["server"]["port"]
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
        answer = client.post("/v1/chat/completions", json=chat("alpha", stream=False)).json()
    assert "I am alpha." in answer["choices"][0]["message"]["content"]
    units = run("systemctl", "--user", "list-units", "--plain", "--no-legend", "llm-router*.service").stdout
    assert len(units.splitlines()) == 2, "the router, and one engine in a unit of its own"
    doctor = run(sys.executable, "-m", "llm_router", "doctor", "--json")
    findings = {finding["text"]: finding["level"] for finding in json.loads(doctor.stdout)["findings"]}
    assert findings["llm-router.service runs"] == "ok"
    assert findings[f"the router ends when {NAME} logs out, and does not start at boot"] == "warn"
    assert "fail" not in findings.values(), findings
    router("uninstall", "--user", "--yes", "--purge")
    assert run("systemctl", "--user", "list-units", "--plain", "--no-legend", "llm-router*").stdout == ""
    assert everything() == before


def test_a_plain_account_is_told_what_it_lacks(home: Path) -> None:
    done = run(sys.executable, "-m", "llm_router", "install", "--yes", "--config", str(home / "mine.yml"))
    assert done.returncode == 5
    assert done.stderr.startswith("cannot change the whole machine without root: use sudo, or --user")
