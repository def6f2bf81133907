"""The lists as Ollama's clients read them."""

from dataclasses import replace

import pytest
from starlette.testclient import TestClient

from doors.test_api import STATE, House, config
from llm_router.doors import api, ollama
from llm_router.doors.views import Views
from llm_router.formats.recognise import Recognised
from llm_router.formats.words import Format, Kind
from llm_router.host.machine.gpus import Gauge

ABOUT = Recognised(
    "alpha", "/a.gguf", Format.gguf, Kind.vision, 7_241_732_096, context=32768, size=123, quantisation="Q4_K_M",
    architecture="llama",
)  # fmt: skip


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> TestClient:
    monkeypatch.setenv("LLM_ROUTER_GPUS", "none")
    house, gauge = House(), Gauge()
    alpha = replace(STATE.instances[0], taken=5 * 2**30, leaves_in_s=60.0)
    state = replace(STATE, instances=(alpha, *STATE.instances[1:]))

    def views() -> Views:
        return Views(
            config(), lambda: state, lambda name: None, gauge, "http://x", 1000.0, lambda: 2000.0, {"alpha": ABOUT}
        )

    app = api.build(api.Door(house, views, lambda: house.guard, lambda: (), house.reload))
    return TestClient(app, base_url="http://127.0.0.1:8002", client=("127.0.0.1", 5))


def test_all_models_that_are_not_hidden(client: TestClient) -> None:
    alpha, beta = client.get("/api/tags").json()["models"]
    assert (alpha["name"], alpha["size"], beta["name"]) == ("alpha", 123, "beta")
    assert alpha["details"] == {
        "parent_model": "",
        "format": "gguf",
        "family": "llama",
        "families": ["llama"],
        "parameter_size": "7.2B",
        "quantization_level": "Q4_K_M",
    }
    assert alpha["modified_at"] == "1970-01-01T00:16:40Z"


def test_what_is_loaded_and_until_when(client: TestClient) -> None:
    (alpha,) = client.get("/api/ps").json()["models"]
    assert (alpha["name"], alpha["size_vram"], alpha["context_length"]) == ("alpha", 5 * 2**30, 8192)
    assert alpha["expires_at"] == "1970-01-01T00:34:20Z"


@pytest.mark.parametrize("name", ["alpha", "a", "gpt-4:latest"])
@pytest.mark.parametrize("key", ["model", "name"])
def test_one_model_in_detail(client: TestClient, name: str, key: str) -> None:
    shown = client.post("/api/show", json={key: name}).json()
    assert shown["model_info"]["llama.context_length"] == 8192
    assert shown["capabilities"] == ["completion", "tools", "vision"]


def test_a_hidden_model_can_be_shown_and_an_unknown_one_not(client: TestClient) -> None:
    assert client.post("/api/show", json={"model": "org/gamma"}).status_code == 200
    for body in (b'{"model":"nobody"}', b"{}", b"{", b'{"model":"' + b"x" * 70_000 + b'"}'):
        missing = client.post("/api/show", content=body)
        assert (missing.status_code, "not found" in missing.json()["error"]) == (404, True)


def test_the_version_is_new_enough_for_clients(client: TestClient) -> None:
    assert client.get("/api/version").json()["version"] >= "0.12"


def test_what_the_configuration_says_of_a_model_counts() -> None:
    assert ollama._capabilities(ABOUT, {"tools": False, "thinking": True}) == ("completion", "vision", "thinking")
    vectors = replace(ABOUT, kind=Kind.embedding)
    assert ollama._capabilities(vectors, {}) == ("embedding",)
    assert ollama._capabilities(None, {}) == ("completion", "tools")
