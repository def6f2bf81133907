"""Files of older routers that switched units of systemd: loaded unchanged, with the operator's units and scripts."""

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from support.router import ask, free_port, text_of
from support.services import FAKES, Host
from support.serving import serving

pytestmark = [pytest.mark.systemd, pytest.mark.slow]

UNITS = {"awq-a": "sglang", "awq-b": "sglang", "monstral": "tabbyapi", "behemoth": "tabbyapi", "gguf-c": "llamacpp"}


@pytest.fixture
def host(tmp_path: Path, shelf: Callable[..., Path]) -> Iterator[Host]:
    made = Host(tmp_path / "host", shelf("gguf-c"))
    words = [sys.executable, str(FAKES / "llamacpp.py"), "-m", str(made.gguf), "--port", str(made.llama_port)]
    made.script("start_gguf-c.sh", shlex.join(words))
    yield made
    made.stop_all()


def models(host: Host, tabby: str) -> dict[str, Any]:
    """As the older files have them: a script for each model, but TabbyAPI's by name."""
    return {
        name: {"backend": tabby, "script": None, "service": "tabbyapi.service", "model_name": f"exl3/{name.title()}"}
        if unit == "tabbyapi"
        else {"backend": unit, "script": str(host.folder / f"start_{name}.sh"), "service": f"{unit}.service"}
        for name, unit in UNITS.items()
    }


def serve_all(host: Host, home: Path, file: Path, port: int) -> str:
    """Ask each model; gives the router's log."""
    with serving(home, file, port, TABBY_CONFIG_PATH=str(host.config_yml)) as router, router.client() as client:
        for name, unit in [*UNITS.items(), ("awq-a", "sglang")]:
            assert text_of(ask(client, name)), router.log
            assert host.running() == {unit}
        assert host.config_yml.read_text().startswith("# My settings, do not lose them.")
        return router.log


def test_services_and_scripts_in_two_files(host: Host, tmp_path: Path) -> None:
    folder, port = tmp_path / "etc", free_port()
    folder.mkdir()
    ports = {"sglang": host.sglang_port, "tabbyapi": host.tabby_port, "llamacpp": host.llama_port}
    backends = {
        name: {"host": "localhost", "port": number, "service": f"{name}.service", "health_endpoint": "/health"}
        for name, number in ports.items()
    }
    head = {"title": "Router", "version": "1.0.0", "log_level": "INFO", "router_port": port, "model_load_timeout": 30}
    for name, content in (("config.yml", {**head, "backends": backends}), ("models.yml", models(host, "tabbyapi"))):
        with (folder / name).open("w") as file:
            YAML().dump(content, file)
    assert "the older layout with services and scripts" in serve_all(host, tmp_path, folder, port)


@pytest.mark.parametrize("form", ["json", "python"])
def test_a_models_mapping(host: Host, tmp_path: Path, form: str) -> None:
    port, mapping = free_port(), models(host, "tabby")
    ports = {"SGLANG": host.sglang_port, "TABBY": host.tabby_port, "LLAMACPP": host.llama_port}
    if form == "python":
        file = tmp_path / "router.py"
        lines = [f"{name}_PORT = {number}" for name, number in ports.items()]
        file.write_text("\n".join([*lines, f"MODELS = {mapping!r}", f"server.run(app, port={port})", ""]))
    else:
        file = tmp_path / "config.json"
        backends = {name.lower(): {"port": number} for name, number in ports.items()}
        file.write_text(json.dumps({"router_port": port, "backends": backends, "MODELS": mapping}))
    assert "the older layout with a MODELS mapping" in serve_all(host, tmp_path, file, port)
