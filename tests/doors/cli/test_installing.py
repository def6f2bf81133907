"""The commands install and uninstall, for one account, with a program in the place of systemctl."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from fakes.admin_api import AdminApi
from llm_router.config.values import hashed
from llm_router.host.install.deeds import Folder
from llm_router.host.install.ledger import Ledger
from llm_router.host.supervisors import choosing

Command = Callable[..., Any]

SYSTEMCTL = """\
#!/bin/sh
shift
[ "$1" = show ] && echo ActiveState=active NRestarts=0
case "$1" in
  enable) touch {folder}/enabled ;;
  disable) rm {folder}/enabled ;;
  restart) touch {folder}/active ;;
  stop) rm -f {folder}/active ;;
  is-enabled) test -e {folder}/enabled ;;
  is-active) test -e {folder}/active ;;
esac
"""


@pytest.fixture
def host(bare_home: Path, api: AdminApi, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose manager does as it is told, and a router that answers where the configuration says."""
    programs = bare_home.parent / f"{bare_home.name}-programs"
    programs.mkdir()
    program = programs / "systemctl"
    program.write_text(SYSTEMCTL.format(folder=programs))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setattr(choosing, "BOOTED", Path("/"))
    api.answers["/health"] = (200, {"status": "ok", "current_model": None, "loaded": []})
    told = {
        "server": {"port": urlsplit(api.url).port, "state_dir": str(bare_home / "s")},
        "models": {"a": {"command": ["sh", "{port}"]}},
    }
    (bare_home / "mine.yml").write_text(json.dumps(told))
    return bare_home


def everything(home: Path) -> set[str]:
    return {str(path.relative_to(home)) for path in home.rglob("*")}


def test_install_and_uninstall(host: Path, run: Command) -> None:
    before = everything(host)
    answer = run("install", "--user", "--yes", "--config", "mine.yml")
    assert answer.exit_code == 0, answer.stderr
    assert "In Open WebUI: Admin Panel" in answer.stdout
    assert "any word" in answer.stdout
    assert "Checked: " in answer.stdout
    assert (host / ".config/systemd/user/llm-router.service").is_file()
    assert "nothing is to be done" in run("install", "--user", "--yes").stdout
    answer = run("uninstall", "--user", "--yes")
    assert answer.exit_code == 0
    assert f"{host}/.config/llm-router/config.yml stays" in answer.stdout
    assert "only the configuration is left" in run("uninstall", "--user", "--yes").stdout
    assert run("uninstall", "--user", "--yes", "--purge").exit_code == 0
    assert everything(host) == before
    assert "it is not installed" in run("uninstall", "--user", "--yes").stdout


def test_a_dry_run_shows_everything_and_changes_nothing(host: Path, run: Command) -> None:
    before = everything(host)
    answer = run("install", "--user", "--dry-run", "--config", "mine.yml")
    assert "To be done:" in answer.stdout
    assert f"--- {host}/.config/systemd/user/llm-router.service\n# The router, for one account." in answer.stdout
    told = json.loads(run("install", "--user", "--dry-run", "--json", "--config", "mine.yml").stdout)
    assert told["changed"] is False
    assert any("llm-router.service" in step for step in told["steps"])
    assert list(told["files"]) == [f"{host}/.config/systemd/user/llm-router.service"]
    assert everything(host) == before
    run("install", "--user", "--yes", "--config", "mine.yml")
    before = everything(host)
    assert json.loads(run("uninstall", "--user", "--dry-run", "--json").stdout)["undone"]
    assert everything(host) == before


def test_asked_and_answered(host: Path, run: Command) -> None:
    answer = run("install", "--user", "--config", "mine.yml", stdin="2\n172.17.0.9\nn\n")
    assert "2  in a container on this host" in answer.stdout
    assert (answer.exit_code, answer.stderr) == (1, "cannot go on: you said no. Nothing was changed\n")
    assert not (host / ".config").exists()
    answer = run("install", "--user", "--config", "mine.yml", stdin="1\ny\n")
    assert answer.exit_code == 0


@pytest.mark.parametrize(
    ("stdin", "text"), [("", "nobody answers"), ("1\n", "nobody answers"), ("7\n", "it is 1, 2 or 3")]
)
def test_nobody_answers(host: Path, run: Command, stdin: str, text: str) -> None:
    answer = run("install", "--user", "--config", "mine.yml", stdin=stdin)
    assert answer.exit_code == 2
    assert text in answer.stderr
    assert not (host / ".config").exists()


def test_for_containers_keys_are_made_and_shown_once(host: Path, run: Command) -> None:
    words = ("install", "--user", "--yes", "--json", "--config", "mine.yml", "--open-webui", "container")
    told = json.loads(run(*words, "--bridge", "127.0.0.9").stdout)
    assert set(told["keys"]) == {"open-webui", "admin"}
    assert told["keys"]["open-webui"] in told["connection"]
    text = (host / ".config/llm-router/config.yml").read_text()
    assert hashed(told["keys"]["admin"]) in text
    assert told["keys"]["admin"] not in text
    again = json.loads(run(*words, "--bridge", "127.0.0.9").stdout)
    assert (again["changed"], again["keys"]) == (False, {})
    assert "one of those in your configuration" in again["connection"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("install", "--open-webui", "moon"), "it is host, container, remote"),
        (("install", "--venv", "old"), "it is auto, present or new"),
        (("install", "--json"), "add --yes or --dry-run"),
        (("uninstall", "--json"), "add --yes or --dry-run"),
    ],
)
def test_wrong_words(host: Path, run: Command, words: tuple[str, ...], text: str) -> None:
    answer = run(*words, "--user")
    assert answer.exit_code == 2
    assert text in answer.stdout + answer.stderr


def test_without_a_configuration_or_with_a_broken_one(host: Path, run: Command) -> None:
    answer = run("install", "--user", "--yes")
    assert (answer.exit_code, "llm-router init" in answer.stderr) == (1, True)
    (host / "bad.yml").write_text("servr: {}")
    answer = run("install", "--user", "--yes", "--config", "bad.yml")
    assert (answer.exit_code, "bad.yml:1:1" in answer.stderr) == (6, True)


def test_without_systemd_there_is_no_service(host: Path, run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "BOOTED", host / "none")
    answer = run("install", "--user", "--yes", "--config", "mine.yml")
    assert "was not booted by systemd; use `llm-router serve`" in answer.stderr


def test_sudo_is_not_for_one_account(host: Path, run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "me")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    answer = run("install", "--user", "--yes", "--config", "mine.yml")
    assert (answer.exit_code, "without sudo" in answer.stderr) == (2, True)


def test_the_whole_machine_needs_root(host: Path, run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    answer = run("install", "--yes", "--config", "mine.yml")
    assert (answer.exit_code, "use sudo, or --user" in answer.stderr) == (5, True)


def test_what_was_cut_off_is_undone_before_anything_else(host: Path, run: Command) -> None:
    folder = host / ".config" / "llm-router"
    half = Folder(str(host / "half"))
    Ledger(folder).add(half)
    half.do()
    answer = run("install", "--user", "--dry-run", "--config", "mine.yml")
    assert "an earlier installation was cut off" in answer.stderr
    answer = run("install", "--user", "--yes", "--config", "mine.yml")
    assert f"remove the folder {host}/half" in answer.stdout
    assert not (host / "half").exists()
    assert answer.exit_code == 0


def test_a_router_that_does_not_answer_is_not_left_installed(host: Path, api: AdminApi, run: Command) -> None:
    api.answers["/health"] = (500, {})
    systemctl = Path(os.environ["PATH"].split(":")[0], "systemctl")
    systemctl.write_text(systemctl.read_text().replace("NRestarts=0", "NRestarts=1"))
    before = everything(host)
    answer = run("install", "--user", "--yes", "--config", "mine.yml")
    assert answer.exit_code == 1
    assert "does not answer" in answer.stderr
    assert "What this installation had done is undone." in answer.stderr
    assert everything(host) == before
