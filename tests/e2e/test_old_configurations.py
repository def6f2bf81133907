"""Files of older routers, unchanged, in front of engines in the places where those routers' installers put them.

The layouts that use units of systemd are met in tests/systemd, where there is one.
"""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.hf_model import write_folder
from llm_router.demo.tinymodel import TinyModel
from support.router import Json, ask, free_port, says, text_of
from support.serving import serving

pytestmark = [pytest.mark.slow, pytest.mark.real]

Shelf = Callable[..., Path]
FAKES = Path(__file__).parents[1] / "fakes"
QUICK = {"FAKE_SPEED": "200", "FAKE_TOKENS_PER_S": "20"}


def program(path: Path, *words: str, **env: str) -> None:
    """An executable that runs something else, whatever it is told."""
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = " ".join(f"{name}={shlex.quote(value)}" for name, value in env.items())
    path.write_text(f'#!/bin/sh\n{settings} exec {shlex.join(words)} "$@"\n')
    path.chmod(0o755)


def safetensors(folder: Path, method: str) -> Path:
    """A model's folder that says how it is quantised."""
    write_folder(folder, TinyModel(folder.name, "nobody reads this"))
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": method, "bits": 4}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def home(tmp_path: Path, shelf: Shelf) -> Path:
    """A home with SGLang, TabbyAPI of the EXL2 branch, llama.cpp, and models for them."""
    program(tmp_path / "sglang/sglang-env/bin/sglang", sys.executable, str(FAKES / "sglang.py"), **QUICK)
    program(tmp_path / "llama.cpp/build/bin/llama-server", sys.executable, "-m", "llm_router.demo.llama_server")
    program(
        tmp_path / "TabbyAPI/venv/bin/python", sys.executable, str(FAKES / "tabbyapi.py"), FAKE_BRANCH="exl2", **QUICK
    )
    (tmp_path / "TabbyAPI/main.py").touch()
    for name in ("Mistral-AWQ", "Llama-AWQ"):
        safetensors(tmp_path / "models/awq" / name, "awq")
    safetensors(tmp_path / "models/exl2/Monstral-4.0bpw", "exl2")
    for name in ("alpha", "beta"):
        (tmp_path / "models" / f"{name}.gguf").symlink_to(shelf(name))
    return tmp_path


def tabby(home: Path) -> dict[str, str]:
    """The environment that the older router's unit had."""
    return {"TABBY_CONFIG_PATH": str(home / "TabbyAPI/config.yml"), "TABBY_MODEL_DIR": str(home / "models")}


def old_json(home: Path) -> Json:
    """What an installer of the older router wrote, with ports that are free."""
    models = home / "models"
    backend = {"host": "localhost", "health_endpoint": "/health"}
    return {
        "router_port": free_port(),
        "model_load_timeout": 60,
        "backends": {name: {"port": free_port(), **backend} for name in ("sglang", "tabbyapi", "llamacpp")},
        "models": {
            "mistral-awq": {"backend": "sglang", "model_path": str(models / "awq/Mistral-AWQ")},
            "llama-awq": {"backend": "sglang", "model_path": str(models / "awq/Llama-AWQ")},
            "monstral-exl2": {"backend": "tabbyapi", "model_path": "exl2/Monstral-4.0bpw"},
            "alpha": {"backend": "llamacpp", "model_path": str(models / "alpha.gguf")},
            "beta": {"backend": "llamacpp", "model_path": str(models / "beta.gguf")},
        },
    }


def test_the_json_layout_serves_every_model_with_its_own_command(home: Path) -> None:
    config = old_json(home)
    file = home / "config.json"
    file.write_text(json.dumps(config, indent=2))
    before = file.read_bytes()
    # TabbyAPI calls a model by its folder.
    served = {"monstral-exl2": "Monstral-4.0bpw"}
    with serving(home, file, config["router_port"], **tabby(home)) as router, router.client() as client:
        assert [model["id"] for model in client.get("/v1/models").json()["data"]] == list(config["models"])
        for name in config["models"]:
            text = text_of(ask(client, name))
            (instance,) = [row for row in router.status()["instances"] if row["state"] == "ready"]
            assert instance["model"] == name
            assert instance["port"] == config["backends"][config["models"][name]["backend"]]["port"]
            assert text == (
                says(name) if name in ("alpha", "beta") else f"I am {served.get(name, name)}, a demo model."
            )
        assert "this is the older JSON layout, and is read as it was meant then" in router.log
        assert "the router listens beyond this machine without keys" in router.log
    assert file.read_bytes() == before


def test_what_convert_writes_serves_the_same(home: Path) -> None:
    config = old_json(home)
    (home / "config.json").write_text(json.dumps(config))
    words = [sys.executable, "-m", "llm_router", "config", "convert", "config.json", "-o", "new.yml"]
    env = {**os.environ, "HOME": str(home), **tabby(home)}
    subprocess.run(words, check=True, env=env, cwd=home, capture_output=True)
    with serving(home, home / "new.yml", config["router_port"]) as router, router.client() as client:
        assert text_of(ask(client, "beta")) == says("beta")
        assert text_of(ask(client, "mistral-awq"))
        assert "older JSON layout" not in router.log
