"""Which configuration is put in place, what is added to it, and what is refused before anything is done."""

import json
from pathlib import Path

import pytest

from llm_router.config.problems import ConfigError
from llm_router.config.values import hashed
from llm_router.host.install import settings
from llm_router.host.install.layout import Layout
from llm_router.host.install.machine import InstallError
from llm_router.host.install.network import Network

TEXT = """\
# mine
server: {port: 8100}   # the one in the firewall
backends:
  llamacpp: {command: [/opt/llama-server]}
models:
  # the good one
  a: {backend: llamacpp, path: /models/a.gguf}
"""
ENVIRONMENT = {"HOME": "/nowhere"}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout("system", tmp_path / "etc", tmp_path / "state", tmp_path / "unit", tmp_path / "opt")


def written(folder: Path, text: str = TEXT, name: str = "mine.yml") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def prepare(origin: Path, layout: Layout, network: Network | None = None) -> settings.Settings:
    return settings.prepare(origin, network or Network(), layout, ENVIRONMENT, layout.state)


def test_without_wishes_the_text_is_copied_as_it_is(tmp_path: Path, layout: Layout) -> None:
    found = prepare(written(tmp_path / "home"), layout)
    assert found.files == {"config.yml": TEXT}
    assert found.fresh_keys == {}
    assert found.config.server.port == 8100


def test_the_source_of_an_older_router_is_converted(tmp_path: Path, layout: Layout) -> None:
    text = 'import os\nMODELS = {"a": {"backend": "sglang", "script": "/opt/a.sh", "service": "sglang.service"}}\nROUTER_PORT = 8123\n'
    source = written(tmp_path / "home", text, "router.py")
    found = prepare(source, layout)
    assert "import os" not in found.files["config.yml"]
    assert (found.config.server.port, list(found.config.models)) == (8123, ["a"])
    layout.config.mkdir()
    (layout.config / "config.yml").write_text(found.files["config.yml"])
    assert prepare(source, layout).files == {}, "it is in place already"


def test_an_older_file_is_copied_and_converted_only_to_change_it(tmp_path: Path, layout: Layout) -> None:
    text = '{"router_port": 8123, "models": {"a": {"backend": "llamacpp", "model_path": "/a.gguf"}}}'
    source = written(tmp_path / "home", text, "config.json")
    assert prepare(source, layout).files == {"config.yml": text}
    assert prepare(source, layout, Network(port=8123)).files == {"config.yml": text}
    found = prepare(source, layout, Network(port=8200))
    assert (found.config.server.port, list(found.config.models)) == (8200, ["a"])
    assert "router_port" in found.files["config.yml"], "as a comment"


def test_a_folder_is_copied_with_its_models(tmp_path: Path, layout: Layout) -> None:
    written(tmp_path / "home", "server: {port: 1}\nbackends: {llamacpp: {}}\n", "config.yml")
    written(tmp_path / "home", "a: {backend: llamacpp, path: /a.gguf}\n", "models.yml")
    assert set(prepare(tmp_path / "home", layout).files) == {"config.yml", "models.yml"}


def test_for_a_container_the_bridge_is_listened_on_and_keys_are_made(tmp_path: Path, layout: Layout) -> None:
    found = prepare(written(tmp_path / "home"), layout, Network("container", "172.17.0.1", 8200))
    server, text = found.config.server, found.files["config.yml"]
    assert (server.host, server.also_listen, server.port) == ("127.0.0.1", ("172.17.0.1",), 8200)
    assert set(found.fresh_keys) == {"open-webui", "admin"}
    assert {key.name: (key.key, key.admin) for key in server.keys} == {
        "open-webui": (hashed(found.fresh_keys["open-webui"]), False),
        "admin": (hashed(found.fresh_keys["admin"]), True),
    }
    assert not any(key in text for key in found.fresh_keys.values()), "only hashes are kept"
    for line in TEXT.splitlines()[2:]:
        assert line in text, "comments and order stay"
    assert "# the one in the firewall" in text


def test_for_another_machine_all_addresses_are_listened_on_with_keys(tmp_path: Path, layout: Layout) -> None:
    found = prepare(written(tmp_path / "home", TEXT.replace("server:", "x-server:")), layout, Network("remote"))
    assert found.config.server.host == "0.0.0.0"
    assert len(found.config.server.keys) == 2


def test_keys_that_are_there_are_enough(tmp_path: Path, layout: Layout) -> None:
    text = TEXT.replace("port: 8100", f"port: 8100, keys: ['{hashed('k')}']")
    found = prepare(written(tmp_path / "home", text), layout, Network("container", "172.17.0.1"))
    assert found.fresh_keys == {}
    assert found.config.server.also_listen == ("172.17.0.1",)


def test_what_is_there_already_stays_and_is_not_made_anew(tmp_path: Path, layout: Layout) -> None:
    origin, network = written(tmp_path / "home"), Network("container", "172.17.0.1")
    first = prepare(origin, layout, network)
    written(layout.config, first.files["config.yml"], "config.yml")
    again = prepare(origin, layout, network)
    assert (again.files, again.fresh_keys) == ({}, {})
    assert again.config.server.keys == first.config.server.keys
    kept = prepare(layout.config, layout)
    assert (kept.files, kept.config) == ({}, again.config)


def test_another_configuration_is_not_written_over(tmp_path: Path, layout: Layout) -> None:
    written(layout.config, TEXT.replace("8100", "8101"), "config.yml")
    with pytest.raises(InstallError, match=r"etc/config\.yml is there already and says something else"):
        prepare(written(tmp_path / "home"), layout)


@pytest.mark.parametrize(
    ("before", "after", "word"),
    [
        ("/models/a.gguf", "./a.gguf", "a.gguf"),
        ("/models/a.gguf", "~/a.gguf", "a.gguf"),
        ("/opt/llama-server", "./serve.sh", "serve.sh"),
    ],
)
def test_relative_paths_would_lead_elsewhere(
    tmp_path: Path, layout: Layout, before: str, after: str, word: str
) -> None:
    with pytest.raises(InstallError, match=f"the model 'a' would use .*{word} instead of .*; write absolute paths"):
        prepare(written(tmp_path / "home", TEXT.replace(before, after)), layout)


def test_variables_of_this_shell_are_not_there_in_the_service(tmp_path: Path, layout: Layout) -> None:
    origin = written(tmp_path / "home", TEXT.replace("/models/a.gguf", '"${MODELS}/a.gguf"'))
    with pytest.raises(ConfigError, match="MODELS"):
        settings.prepare(origin, Network(), layout, {**ENVIRONMENT, "MODELS": "/m"}, layout.state)


def test_a_broken_configuration_is_refused(tmp_path: Path, layout: Layout) -> None:
    with pytest.raises(ConfigError, match=r"mine\.yml:1"):
        prepare(written(tmp_path / "home", "servr: {}"), layout)


def test_it_is_looked_for_as_serve_looks_for_it(
    tmp_path: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here = {"HOME": str(tmp_path / "home")}
    with pytest.raises(InstallError, match="cannot install without a configuration"):
        settings.find(None, layout, here)
    (tmp_path / "home" / ".config" / "llm-router").mkdir(parents=True)
    mine = written(tmp_path / "home" / ".config" / "llm-router", TEXT, "config.yml")
    assert settings.find(None, layout, here) == mine
    written(layout.config, TEXT, "config.yml")
    assert settings.find(None, layout, here) == layout.config, "an installed one is kept"
    assert settings.find(Path("other.yml"), layout, here) == tmp_path / "other.yml"


def test_a_json_file_can_be_given_too(tmp_path: Path, layout: Layout) -> None:
    told = {"server": {"port": 1}, "models": {"a": {"command": ["/serve", "{port}"]}}}
    found = prepare(written(tmp_path / "home", json.dumps(told), "c.json"), layout, Network("remote"))
    assert found.config.server.host == "0.0.0.0"
