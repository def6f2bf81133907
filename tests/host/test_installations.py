from pathlib import Path

import pytest

from llm_router.host.installations import Installation, find, find_all, model_folders


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("engine", "place"),
    [
        ("sglang", "opt/sglang/venv/bin/sglang"),
        ("sglang", "home/ann/sglang/sglang-env/bin/sglang"),
        ("vllm", "opt/vllm/.venv/bin/vllm"),
        ("llamacpp", "opt/llama.cpp/build/bin/llama-server"),
        ("llamacpp", "home/ann/llama.cpp/bin/llama-server"),
        ("transformers", "opt/transformers/venv/bin/transformers"),
    ],
)
def test_programs_in_the_usual_places(tmp_path: Path, engine: str, place: str) -> None:
    path = program(tmp_path / place)
    env = {"HOME": str(tmp_path / "home/ann"), "PATH": ""}
    found = find(engine, env, tmp_path)
    assert found == Installation(engine, (str(path),))
    assert found.backend() == {"command": (str(path),)}
    assert find_all(env, tmp_path) == [found]


def test_an_environment_with_the_package_alone(tmp_path: Path) -> None:
    python = program(tmp_path / "opt/sglang/venv/bin/python")
    assert find("sglang", {"PATH": ""}, tmp_path) is None
    (tmp_path / "opt/sglang/venv/lib/python3.12/site-packages/sglang").mkdir(parents=True)
    found = find("sglang", {"PATH": ""}, tmp_path)
    assert found == Installation("sglang", (str(python), "-m", "sglang.launch_server"))


@pytest.mark.parametrize(
    ("engine", "folder", "other"),
    [("tabbyapi", "tabbyAPI", "tabbyapi-exl2"), ("tabbyapi-exl2", "TabbyAPI-exl2", "tabbyapi")],
)
def test_tabbyapi_is_a_folder_of_one_branch(tmp_path: Path, engine: str, folder: str, other: str) -> None:
    program(tmp_path / "opt" / folder / "main.py")
    if engine.endswith("exl2"):
        program(tmp_path / "opt" / folder / "backends" / "exllamav2" / "model.py")
    found = find(engine, {"PATH": ""}, tmp_path)
    assert found == Installation(engine, folder=str(tmp_path / "opt" / folder))
    assert found.backend() == {"dir": found.place}
    assert find(other, {"PATH": ""}, tmp_path) is None
    assert find_all({"PATH": ""}, tmp_path) == [found]


def test_path_comes_last(tmp_path: Path) -> None:
    on_path = program(tmp_path / "bin/llama-server")
    env = {"PATH": str(on_path.parent)}
    assert find("llamacpp", env, tmp_path) == Installation("llamacpp", (str(on_path),))
    usual = program(tmp_path / "opt/llama.cpp/build/bin/llama-server")
    assert find("llamacpp", env, tmp_path) == Installation("llamacpp", (str(usual),))


def test_what_cannot_run_is_not_found(tmp_path: Path) -> None:
    program(tmp_path / "opt/vllm/venv/bin/vllm").chmod(0o644)
    assert find_all({"PATH": "", "HOME": str(tmp_path)}, tmp_path) == []
    assert find("command", {"PATH": ""}, tmp_path) is None


def test_folders_of_models_are_told_once(tmp_path: Path) -> None:
    (tmp_path / "opt/models").mkdir(parents=True)
    (tmp_path / "home").mkdir()
    (tmp_path / "home/models").symlink_to(tmp_path / "opt/models")
    assert model_folders({"HOME": str(tmp_path / "home")}, tmp_path) == [tmp_path / "opt/models"]
