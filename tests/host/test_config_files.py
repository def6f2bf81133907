from pathlib import Path

import pytest

from llm_router.config.problems import ConfigError
from llm_router.host.config_files import find, load

MODEL = "models: {a: {command: x}}\n"


def test_the_first_that_is_there_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    env = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "cfg")}
    mine = tmp_path / "cfg" / "llm-router" / "config.yml"
    mine.parent.mkdir(parents=True)
    mine.write_text(MODEL)
    assert find(None, env) == mine
    (tmp_path / "llm-router.yml").write_text(MODEL)
    assert find(None, env) == tmp_path / "llm-router.yml"
    assert find("cfg/llm-router", env) == mine.parent
    assert find(None, {**env, "ROUTER_CONFIG": str(mine)}) == mine


def test_a_named_one_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\(\$LLM_ROUTER_CONFIG\): there is no such file"):
        find(None, {"LLM_ROUTER_CONFIG": str(tmp_path / "gone.yml")})
    with pytest.raises(ConfigError, match=r"\(--config\): the folder holds no config\.yml"):
        find(tmp_path, {})


def test_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "is_file", lambda self: False)
    with pytest.raises(ConfigError, match=r"looked for .*llm-router\.yml, .*/etc/llm-router, .*config\.json"):
        find(None, {"HOME": str(tmp_path)})


def test_a_file_with_its_secrets_beside_it(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    file = tmp_path / "my.yml"
    file.write_text("\ufeffmodels: {a: {command: ./x, env: {T: 'file:token', H: '${H}'}}}\n")
    found = load(file, {"H": "h"}, ["command"])
    assert found.models["a"].env == {"T": "s3cret", "H": "h"}
    assert found.folder == str(tmp_path)


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text("server: {port: 5}")
    assert load(tmp_path, {}, ["command"]).models == {}
    (tmp_path / "models.yml").write_text("a: {command: x}")
    assert list(load(tmp_path, {}, ["command"]).models) == ["a"]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "x.yml"
    with pytest.raises(ConfigError, match="cannot read the configuration: No such file"):
        load(file, {}, [])
    file.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ConfigError, match="it is not UTF-8 text"):
        load(file, {}, [])


def test_secrets_that_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "x.yml"
    file.write_text("models: {a: {command: x, env: {T: 'file:big'}}}")
    (tmp_path / "big").write_text("x" * 70_000)
    with pytest.raises(ConfigError, match="secret file 'big': it is larger than 64 KiB"):
        load(file, {}, ["command"])
    (tmp_path / "big").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="secret file 'big': "):
        load(file, {}, ["command"])
    (tmp_path / "big").unlink()
    (tmp_path / "big").mkdir()
    with pytest.raises(ConfigError, match="secret file 'big': Is a directory"):
        load(file, {}, ["command"])


def test_a_file_config_yml_brings_the_models_beside_it(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text("router_port: 5")
    (tmp_path / "models.yml").write_text("a: {backend: sglang, script: /s.sh}")
    assert list(load(tmp_path / "config.yml", {}).models) == ["a"]
    (tmp_path / "other.yml").write_text("models: {b: {command: x}}")
    assert list(load(tmp_path / "other.yml", {}).models) == ["b"]


def test_an_older_layout_finds_its_engines_here(tmp_path: Path) -> None:
    program = tmp_path / "llama.cpp" / "build" / "bin" / "llama-server"
    program.parent.mkdir(parents=True)
    program.touch(0o755)
    (tmp_path / "config.json").write_text('{"models": {"a": {"backend": "llamacpp", "model_path": "/a.gguf"}}}')
    found = load(tmp_path / "config.json", {"HOME": str(tmp_path), "PATH": ""})
    assert found.backends["llamacpp"].command == (str(program),)
