import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_router.config.load import parse
from llm_router.doors.cli import beginning
from llm_router.host import installations

Command = Callable[..., Any]
Shelf = Callable[..., Path]


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, bare_home: Path, shelf: Shelf) -> Path:
    """A home with llama.cpp and two models; nothing of the real machine."""
    monkeypatch.setenv("LLM_ROUTER_GPUS", "none")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    usual = installations.find_all
    monkeypatch.setattr(installations, "find_all", lambda env: usual(env, bare_home / "nowhere"))
    folders = installations.model_folders
    monkeypatch.setattr(installations, "model_folders", lambda env: folders(env, bare_home / "nowhere"))
    program = bare_home / "llama.cpp" / "build" / "bin" / "llama-server"
    program.parent.mkdir(parents=True)
    program.touch(0o755)
    (bare_home / "models").mkdir()
    for name in ("alpha", "beta"):
        (bare_home / "models" / f"{name}.gguf").symlink_to(shelf(name))
    return bare_home


def test_what_is_found_is_written(machine: Path, run: Command) -> None:
    answer = run("init", "--yes")
    place = machine / ".config" / "llm-router" / "config.yml"
    assert (answer.exit_code, answer.stderr) == (0, "")
    assert answer.stdout.startswith(f"{place} holds the configuration: 2 models on 1 engine. Start the router with")
    found = parse(place.read_text(), "x.yml", {}, lambda name: name)
    assert list(found.models) == ["alpha", "beta"]
    assert found.backends["llamacpp"].command == (str(machine / "llama.cpp/build/bin/llama-server"),)
    assert f"# Models were looked for in: {machine}/models." in place.read_text()
    assert run("config", "check").exit_code == 0


def test_a_file_that_is_there_stays(machine: Path, run: Command) -> None:
    (machine / "x.yml").write_text("mine")
    answer = run("init", "--yes", "-o", "x.yml")
    assert (answer.exit_code, "there is a file of this name" in answer.stderr) == (1, True)
    told = json.loads(run("init", "-o", "x.yml", "--force", "--port", "9", "--json").stdout)
    assert (told["models"], told["backends"]) == (["alpha", "beta"], ["llamacpp"])
    assert Path(told["kept"]).read_text() == "mine"
    assert "port: 9\n" in (machine / "x.yml").read_text()


def test_without_an_engine_models_are_named_as_left(
    machine: Path, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    (machine / "llama.cpp/build/bin/llama-server").unlink()
    monkeypatch.setattr(beginning, "_has_wheel", lambda: False)
    answer = run("init", "--yes", "-o", "x.yml")
    assert "no models are configured" in answer.stderr
    text = (machine / "x.yml").read_text()
    assert f"# - {machine}/models/alpha.gguf: needs llama.cpp or SGLang, which was not found here\n" in text


def test_the_llama_cpp_of_the_demo_will_do(machine: Path, run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine / "llama.cpp/build/bin/llama-server").unlink()
    monkeypatch.setattr(beginning, "_has_wheel", lambda: True)
    run("init", "--yes", "-o", "x.yml")
    assert "llm_router.demo.llama_server" in (machine / "x.yml").read_text()


def test_questions_need_somebody_to_answer(run: Command) -> None:
    answer = run("init")
    assert (answer.exit_code, "say --yes to take what is found" in answer.stderr) == (2, True)


def test_questions(machine: Path, run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beginning, "_is_somebody_there", lambda: True)
    answer = run("init", "-o", "x.yml", stdin=f"{machine}/models\n8010\nn\ny\nn\n")
    assert answer.exit_code == 0, answer.stderr
    for words in (
        "GPUs: none.",
        "Engine: llamacpp at ",
        "Folders with models",
        "Port of the router [8002]",
        "Serve alpha?",
    ):
        assert words in answer.stdout
    found = parse((machine / "x.yml").read_text(), "x.yml", {}, lambda name: name)
    assert (found.server.port, list(found.models)) == (8010, ["alpha"])


def test_a_folder_that_is_not_there(run: Command) -> None:
    answer = run("init", "--yes", "--models", "gone")
    assert (answer.exit_code, "cannot look for models in gone: there is no such folder" in answer.stderr) == (2, True)


def test_root_writes_for_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert beginning._usual_place() == Path("/etc/llm-router/config.yml")
