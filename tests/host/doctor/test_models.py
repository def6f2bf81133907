"""What is said of the configuration, of programs, of models' files and of ports."""

import os
import socket
from pathlib import Path

import pytest

from llm_router.config.load import Config, parse
from llm_router.demo.tinymodel import write_model
from llm_router.host.doctor import models
from llm_router.host.doctor.findings import Finding, Level
from llm_router.host.install import machine
from llm_router.host.install.reach import Who


def config(text: str) -> Config:
    return parse(text, "c.yml", {}, lambda _path: "", folder="/")


def levels(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.area, finding.level.value) for finding in findings]


def test_mistakes_and_warnings_of_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "c.yml"
    file.write_text("models: {a: {command: x, pin: true, idle: 5}}")
    found, said = models.configuration(file, {})
    assert found is not None
    assert levels(said) == [("configuration", "ok"), ("configuration", "warn")]
    file.write_text("modls: {}\nservr: {}")
    found, said = models.configuration(file, {})
    assert found is None
    assert levels(said) == [("configuration", "fail")] * 2
    assert "Did you mean 'models'?" in said[0].remedy
    assert models.configuration(tmp_path / "none.yml", {})[0] is None


def test_an_older_file_that_is_open_is_told_with_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"router_port": 8002, "models": {"a": {"backend": "llamacpp", "model_path": "/a.gguf"}}}')
    found, said = models.configuration(file, {"HOME": "/home/me"})
    assert found is not None
    older, opened = (finding for finding in said if finding.level is Level.warn)
    assert "this is the older JSON layout" in older.text
    assert "config convert" in older.remedy
    assert opened.text.endswith("the router listens beyond this machine without keys")
    assert "Add `keys`" in opened.remedy


def program(folder: Path, name: str, text: str = "#!/bin/sh\n") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)
    return folder / name


def test_programs_with_their_versions(tmp_path: Path) -> None:
    vllm = program(tmp_path / "venv" / "bin", "vllm")
    (tmp_path / "venv/lib/python3.11/site-packages/vllm-0.33.1.dist-info").mkdir(parents=True)
    script = program(tmp_path, "serve.sh", "#!/bin/sh\ntouch was-run\n")
    (said, other, missing) = models.engines(
        config(f"""
backends:
  vllm: {{command: [{vllm}]}}
models:
  a: {{backend: vllm, path: /m/a}}
  b: {{backend: vllm, path: /m/b}}
  c: {{command: [{script}]}}
  d: {{command: [/no/such/program]}}
""")
    )
    assert said.text == f"vllm: {vllm}, version 0.33.1"
    assert other.text == f"command: {script}"
    assert (missing.level, "install it" in missing.remedy) == (Level.fail, True)
    assert not Path("was-run").exists(), "a script is never run to learn its version"


def test_a_compiled_program_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "llama-server"
    place.write_bytes(b"\x7fELF and more")
    asked = []

    def answer(words: tuple[str, ...], _limit_s: float) -> tuple[int, str]:
        asked.append(words)
        return 0, "ggml_init: no device\nversion: 11549 (c0ffee)\nbuilt with cc"

    monkeypatch.setattr(machine, "ask", answer)
    assert models._version(place) == "11549"
    assert asked == [(str(place), "--version")]
    place.write_bytes(b"#!/bin/sh")
    assert models._version(place) is None
    assert models._version(tmp_path / "none") is None
    assert len(asked) == 1


def test_models_whose_files_are_not_there_or_closed(tmp_path: Path) -> None:
    for part in (tmp_path, *tmp_path.parents):
        if part.stat().st_uid == os.getuid():
            part.chmod(part.stat().st_mode | 0o111)
    write_model(tmp_path / "a.gguf", "a", "I am a.", 0)
    (tmp_path / "a.gguf").chmod(0o600)
    (tmp_path / "b.gguf").write_bytes(b"nonsense")
    found = config(f"""
backends: {{llamacpp: {{command: [/bin/true]}}}}
models:
  a: {{backend: llamacpp, path: {tmp_path}/a.gguf}}
  b: {{backend: llamacpp, path: {tmp_path}/b.gguf}}
  c: {{backend: llamacpp, path: {tmp_path}/c.gguf}}
""")
    assert [finding.level.value for finding in models.models(found, None)] == ["ok", "fail", "fail"]
    (closed, *_) = models.models(found, Who("router", 4711, frozenset()))
    assert closed.text == f"a: {tmp_path}/a.gguf is closed to the account router"
    assert "setfacl -m u:router:rX" in closed.remedy


def test_ports_that_somebody_else_has() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ours = config(f"server: {{port: {port}}}\nmodels: {{a: {{command: x}}}}")
        (found,) = models.taken_ports(ours, router_answers=False)
        assert (found.level, str(os.getpid()) in found.text) == (Level.fail, True)
        assert list(models.taken_ports(ours, router_answers=True)) == []
        theirs = config(f"server: {{port: 0}}\nbackends: {{vllm: {{port: {port}}}}}\nmodels: {{a: {{command: x}}}}")
        assert [finding.level.value for finding in models.taken_ports(theirs, router_answers=False)] == ["ok", "warn"]


def test_engines_that_are_here_and_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    llama = program(tmp_path, "llama-server")
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    found = [finding for finding in models.unused(None, environment) if str(llama) in finding.text]
    assert [finding.text for finding in found] == [f"llamacpp: {llama} (not used by the configuration)"]
    used = config("backends: {llamacpp: {}}\nmodels: {a: {backend: llamacpp, path: /a.gguf}}")
    assert not [finding for finding in models.unused(used, environment) if str(llama) in finding.text]
