"""What the tests of an installation share: a shelf, the tree before and after, the command as typed. Inside only."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from llm_router.demo.shelf import ARGS, COMMAND
from llm_router.demo.tinymodel import write_model
from llm_router.host.install import layout, plan, program, settings
from llm_router.host.install.deeds import Deed
from llm_router.host.install.network import THIS_HOST
from support.router import chat, free_port

PLACES = layout.system()
Tree = dict[str, tuple[object, ...]]
"""What there is, by path: mode, owner and content, or where a link leads."""
#: Models and their configuration; the service has a /tmp and a /var/tmp of its own, so not there.
SHELF = Path("/var/lib/shelf")
#: Copies and locks that useradd itself leaves in /etc, and what systemd and polkit write for themselves.
NOT_OURS = ("/etc/passwd-", "/etc/shadow-", "/etc/group-", "/etc/gshadow-", "/etc/.pwd.lock", "/var/lib/polkit-1")
_read: dict[tuple[str, int, int, int], str] = {}
#: Thousands of files that no installation of ours comes near.
PACKAGES = ("/var/lib/dpkg", "/var/lib/apt")


@contextmanager
def shelf() -> Iterator[Path]:
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


def tree() -> Tree:
    """Everything in the places where an installation could leave something, with what it is."""
    found = {}
    for top in ("/etc", "/var/lib", "/run/systemd/system", "/opt/llm-router"):
        for folder, folders, files in os.walk(top):
            folders[:] = [name for name in folders if f"{folder}/{name}" not in PACKAGES]
            for path in (Path(folder, name) for name in (*folders, *files)):
                if not str(path).startswith(NOT_OURS):
                    found[str(path)] = what(path)
    return found


def what(path: Path) -> tuple[object, ...]:
    stat = path.lstat()
    if path.is_symlink():
        return ("link", path.readlink(), stat.st_uid)
    # Whoever writes into a file changes its ctime, which cannot be set back: what was read once is known.
    same = (str(path), stat.st_ino, stat.st_size, stat.st_ctime_ns)
    if path.is_file() and same not in _read:
        _read[same] = hashlib.sha256(path.read_bytes()).hexdigest()
    return (oct(stat.st_mode), stat.st_uid, stat.st_gid, _read.get(same, ""))


def changes(before: Tree) -> dict[str, object]:
    """What is otherwise than before."""
    now = tree()
    return {path: (before.get(path), now.get(path)) for path in before | now if before.get(path) != now.get(path)}


def command(*words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    """The command line, as an administrator types it; it must succeed, unless ``check`` is off."""
    done = subprocess.run(
        [sys.executable, "-m", "llm_router", *words], check=False, capture_output=True, text=True, cwd="/"
    )
    assert done.returncode == 0 or not check, done.stdout + done.stderr
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
