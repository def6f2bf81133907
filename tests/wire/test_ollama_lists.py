"""Lists in Ollama's form hold every field that its clients read."""

import json

from llm_router.wire import ollama_lists
from llm_router.wire.ollama_lists import Listed

QWEN = Listed(
    "qwen",
    4_000,
    1_790_000_000.0,
    "gguf",
    "qwen2",
    "32B",
    "Q4_K_M",
    8192,
    ("completion", "tools"),
    True,
    5_000,
    1_790_000_060.5,
)
BARE = Listed("bare")
DETAILS = {
    "parent_model": "",
    "format": "gguf",
    "family": "qwen2",
    "families": ["qwen2"],
    "parameter_size": "32B",
    "quantization_level": "Q4_K_M",
}


def test_the_version_is_one_that_clients_accept() -> None:
    version = json.loads(ollama_lists.version())["version"]
    assert [int(part) for part in version.split(".")] >= [0, 6, 4], "the least that the editors' plug-ins want"


def test_tags() -> None:
    listed = json.loads(ollama_lists.tags([QWEN, BARE]))["models"]
    assert [model["name"] for model in listed] == ["qwen", "bare"]
    digest = listed[0].pop("digest")
    assert len(digest) == 64
    assert digest != listed[1]["digest"]
    assert listed[0] == {
        "name": "qwen",
        "model": "qwen",
        "size": 4_000,
        "details": DETAILS,
        "modified_at": "2026-09-21T14:13:20Z",
    }
    assert (listed[1]["details"]["families"], listed[1]["modified_at"]) == ([], "1970-01-01T00:00:00Z")


def test_only_loaded_models_run() -> None:
    forever = Listed("kept", loaded=True)
    running = json.loads(ollama_lists.running([QWEN, BARE, forever]))["models"]
    assert [model["name"] for model in running] == ["qwen", "kept"]
    assert (running[0]["size_vram"], running[0]["context_length"]) == (5_000, 8192)
    assert running[0]["expires_at"] == "2026-09-21T14:14:20.500000Z"
    assert running[1]["expires_at"].startswith("9999-")
    assert "context_length" not in running[1]


def test_show() -> None:
    shown = json.loads(ollama_lists.show(QWEN))
    assert shown["details"] == DETAILS
    assert shown["model_info"] == {
        "general.architecture": "qwen2",
        "general.basename": "qwen",
        "qwen2.context_length": 8192,
    }
    assert shown["capabilities"] == ["completion", "tools"]
    assert shown["parameters"] == "num_ctx 8192"
    bare = json.loads(ollama_lists.show(BARE))
    assert bare["model_info"] == {"general.architecture": "unknown", "general.basename": "bare"}
    assert bare["parameters"] == ""
