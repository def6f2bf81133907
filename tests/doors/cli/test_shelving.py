import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fakes.admin_api import AdminApi, status

Command = Callable[..., Any]
Shelf = Callable[..., Path]
#: What follows a change that was not told to the router.
HINT = " A running router reads it with `llm-router reload`.\n"

TEXT = """\
# my shelf
backends: {llamacpp: {command: [llama-server]}}
models:
  # the first
  old: {backend: llamacpp, path: /gone.gguf}
"""


@pytest.fixture(autouse=True)
def quiet_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_ROUTER_GPUS", "none")
    monkeypatch.setenv("PATH", "")
    # Nothing listens there: no router answers.
    monkeypatch.setenv("LLM_ROUTER_URL", "http://127.0.0.1:9")


@pytest.fixture
def file(bare_home: Path) -> Path:
    path = bare_home / "llm-router.yml"
    path.write_text(TEXT)
    return path


@pytest.fixture
def folder(bare_home: Path, shelf: Shelf) -> Path:
    folder = bare_home / "models"
    folder.mkdir()
    for name in ("alpha", "beta"):
        (folder / f"{name}.gguf").symlink_to(shelf(name))
    (folder / "broken.gguf").write_bytes(b"GGUF")
    return folder


def test_a_model_is_added_with_what_was_said(file: Path, folder: Path, run: Command) -> None:
    words = (
        "--path",
        "models/alpha.gguf",
        "--alias",
        "a",
        "--alias",
        "b",
        "--context",
        "4096",
        "--gpus",
        "0,1",
        "--idle",
        "30m",
    )
    answer = run("models", "add", "alpha", *words, "--pin", "--default")
    assert (answer.exit_code, answer.stdout, answer.stderr) == (0, f"alpha stands in {file}.{HINT}", "")
    assert file.read_text() == TEXT + (
        f"  alpha:\n    backend: llamacpp\n    path: {folder}/alpha.gguf\n    aliases: [a, b]\n    context: 4096\n"
        "    gpus: [0, 1]\n    idle: 30m\n    pin: true\n    default: true\n"
    )
    assert file.with_name("llm-router.yml.bak").read_text() == TEXT


def test_a_command_of_its_own(file: Path, run: Command) -> None:
    told = json.loads(run("models", "add", "own", "--command", "./serve {port}", "--gpus", "2", "--json").stdout)
    assert told == {"model": "own", "file": str(file), "entry": {"command": "./serve {port}", "gpus": 2}}


def test_what_cannot_be_served_is_not_added_unasked(file: Path, folder: Path, run: Command) -> None:
    answer = run("models", "add", "x", "--path", "models/broken.gguf")
    assert answer.exit_code == 1
    assert answer.stderr.startswith("cannot ")
    assert "--force" in answer.stderr
    assert file.read_text() == TEXT
    assert run("models", "add", "x", "--path", "models/broken.gguf", "--backend", "llamacpp", "--force").exit_code == 0


def test_a_wrong_engine_is_warned_of(file: Path, folder: Path, run: Command) -> None:
    answer = run("models", "add", "x", "--path", "models/alpha.gguf", "--backend", "vllm")
    assert answer.exit_code == 0
    assert answer.stderr.startswith("warning: cannot serve gguf weights with vLLM")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("add", "old", "--path", "/x", "--backend", "llamacpp"), 1, "cannot add the model 'old': there is one"),
        (
            ("add", "x", "--path", "/x", "--backend", "lamacpp"),
            6,
            "there is no backend 'lamacpp'. Did you mean 'llamacpp'?",
        ),
        (("add", "x", "--path", "/x", "--backend", "llamacpp", "--idle", "soon"), 6, "'soon' is no duration"),
        (("add", "x", "--config", "gone.yml"), 6, "there is no such file"),
        (("remove", "odl"), 4, "cannot find the model 'odl'. Did you mean 'old'?"),
        (("scan", "gone"), 2, "cannot scan gone: there is no such folder"),
    ],
)
def test_what_cannot_be_done(file: Path, run: Command, words: tuple[str, ...], code: int, said: str) -> None:
    answer = run("models", *words)
    assert (answer.exit_code, said in answer.stderr) == (code, True), answer.stderr
    assert file.read_text() == TEXT


def test_a_model_is_removed(file: Path, run: Command) -> None:
    assert run("models", "remove", "old").stdout == f"old is no longer in {file}.{HINT}"
    assert "old" not in file.read_text()
    assert "# my shelf" in file.read_text()


def test_a_running_router_reads_it_at_once(file: Path, api: AdminApi, at: Command) -> None:
    api.answers["/api/reload"] = (200, {"summary": "removed old"})
    assert at("models", "remove", "old", "--reload").stdout == f"old is no longer in {file}. Reloaded: removed old.\n"


def test_a_folder_is_looked_through(folder: Path, run: Command) -> None:
    answer = run("models", "scan", "models")
    for words in ("alpha", "llamacpp", "F16, chat", "GiB with its whole context", "broken.gguf: cannot"):
        assert words in answer.stdout
    told = json.loads(run("models", "scan", "models", "--json").stdout)
    assert [model["name"] for model in told["models"]] == ["alpha", "beta"]
    assert told["models"][0]["engines"][0] == "llamacpp"
    assert told["others"][0]["path"] == str(folder / "broken.gguf")


def test_an_empty_folder(bare_home: Path, run: Command) -> None:
    (bare_home / "empty").mkdir()
    assert run("models", "scan", "empty").stdout == "No models were found.\n"


def test_what_was_found_is_added_once(file: Path, folder: Path, run: Command) -> None:
    answer = run("models", "scan", "models", "--write")
    assert answer.stdout.endswith(f"2 models added to {file}, 0 were there already.{HINT}")
    assert file.read_text().startswith(TEXT)
    told = json.loads(run("models", "scan", "models", "--write", "--json").stdout)
    assert (told["added"], told["known"]) == ([], 2)


def test_a_model_is_shown_without_a_router(file: Path, folder: Path, run: Command) -> None:
    run("models", "add", "alpha", "--path", "models/alpha.gguf", "--context", "2048")
    shown = run("models", "show", "alpha").stdout
    for words in (
        "not known: no router answers",
        "is         F16, chat",
        "takes      weights",
        "runs       llama-server -m",
        "***",
    ):
        assert words in shown
    told = json.loads(run("models", "show", "alpha", "--json").stdout)["configured"]
    assert told["entry"] == {"backend": "llamacpp", "path": str(folder / "alpha.gguf"), "context": 2048}
    assert told["argv"][0] == "llama-server"


def test_a_model_is_shown_with_what_the_router_tells(file: Path, api: AdminApi, at: Command) -> None:
    api.statuses = [status({"name": "old", "state": "ready", "loaded": True})]
    told = json.loads(at("models", "show", "old", "--json").stdout)
    assert (told["state"], told["configured"]["backend"]) == ("ready", "llamacpp")


def test_a_model_that_nobody_has(file: Path, run: Command) -> None:
    answer = run("models", "show", "odl")
    assert (answer.exit_code, answer.stderr) == (4, "cannot find the model 'odl'. Did you mean 'old'?\n")


def test_a_list_without_a_router(file: Path, run: Command) -> None:
    answer = run("models")
    assert (answer.exit_code, "old" in answer.stdout) == (0, True)
    assert answer.stderr == "No router answers; these are the models of the configuration.\n"


def test_a_list_with_neither(run: Command) -> None:
    assert run("models").exit_code == 3
    assert run("models", "show", "x").exit_code == 3
