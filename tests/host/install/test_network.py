"""What to type into Open WebUI, and the bridge of the containers."""

import json
from pathlib import Path
from socket import AF_INET, AF_INET6
from types import SimpleNamespace

import psutil
import pytest

from llm_router.host.install import network
from llm_router.host.install.network import Bridge, Network


def test_the_headers_are_those_of_the_guide() -> None:
    guide = Path(__file__).parents[3] / "docs" / "how-to" / "open-webui.md"
    assert f"`{json.dumps(network.HEADERS)}`" in guide.read_text(encoding="utf-8")


def test_what_to_enter_by_where_it_runs() -> None:
    def url(where: Network, key: str | None = None) -> str:
        return network.connection(where, 8002, host_name="gpu", key=key)

    assert "http://127.0.0.1:8002/v1" in url(Network())
    assert "any word" in url(Network())
    told = url(Network("container", "172.17.0.1"), "sk-1")
    assert "http://172.17.0.1:8002/v1" in told
    assert "host.docker.internal:8002" in told
    assert "Key      sk-1" in told
    assert "http://gpu:8002/v1" in url(Network("remote"))


def test_the_headers_are_json_that_open_webui_takes() -> None:
    line = next(line for line in network.connection(Network(), 1, host_name="").splitlines() if "Headers" in line)
    assert json.loads(line.split(maxsplit=1)[1])["X-Router-Task"] == "{{TASK}}"


def test_the_first_known_bridge_with_an_address_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def card(family: int, address: str) -> SimpleNamespace:
        return SimpleNamespace(family=family, address=address)

    cards = {"lo": [card(AF_INET, "127.0.0.1")], "podman0": [card(AF_INET6, "fe80::1"), card(AF_INET, "10.88.0.1")]}
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: cards)
    assert network.bridge() == Bridge("podman0", "10.88.0.1")
    cards["docker0"] = [card(AF_INET, "172.17.0.1")]
    assert network.bridge() == Bridge("docker0", "172.17.0.1")
    cards.clear()
    assert network.bridge() is None
