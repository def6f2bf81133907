"""A start that must fail costs the resident nothing (R14): everything that can be checked is checked before."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import stand_ins
from support.gpus import GIB, Machine
from support.router import Json, RunningRouter, ask, running, text_of

pytestmark = pytest.mark.slow

Case = tuple[str, Json, Json, str]


def quantised(path: str, method: str) -> str:
    """The folder, as if its weights were of another format."""
    config = Path(path, "config.json")
    config.write_text(json.dumps(json.loads(config.read_text()) | {"quantization_config": {"quant_method": method}}))
    return path


def swollen(path: str, gib: int) -> str:
    """The folder, as if its weights were so large; the file has holes."""
    with Path(path, "model-extra.safetensors").open("wb") as file:
        file.truncate(gib * GIB)
    return path


def three_heads(path: str) -> str:
    config = Path(path, "config.json")
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_attention_heads": 3}))
    return path


def script(folder: Path, text: str) -> str:
    path = folder / f"program-{len(list(folder.iterdir()))}"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def cases(folder: Path, taken: int) -> Iterator[Case]:
    """Name, backend, what is changed in the entry, and the cause that is told."""
    sglang, vllm, tabby = (stand_ins.backend(engine) for engine in ("sglang", "vllm", "tabbyapi"))

    def weights(name: str) -> str:
        return str(stand_ins.weights(folder, "sglang", name))

    yield ("exl3-on-sglang", sglang, {"path": quantised(weights("exl3-on-sglang"), "exl3")},
           "cannot serve exl3 weights with SGLang: use tabbyapi")  # fmt: skip
    yield ("exl2-on-tabby", tabby, {"path": quantised(weights("exl2-on-tabby"), "exl2")}, "use tabbyapi-exl2")
    yield "no-folder", vllm, {"path": "/no/such/folder"}, "cannot find the folder /no/such/folder"
    yield ("uneven", vllm, {"path": three_heads(weights("uneven")), "gpus": 2},
           "cannot divide 3 attention heads by 2 devices")  # fmt: skip
    yield ("too-large", sglang, {"path": swollen(weights("too-large"), 90)},
           "its weights are 90.0 GiB, its 2 devices have together 48.0 GiB")  # fmt: skip
    yield "no-program", {**vllm, "command": ["/no/such/vllm"]}, {}, "cannot find the program /no/such/vllm"
    lacking = script(folder, "echo \"ModuleNotFoundError: No module named 'vllm'\"; exit 1")
    yield "half-installed", {**vllm, "command": [lacking]}, {}, "No module named 'vllm'"
    yield "port-taken", {**tabby, "port": taken}, {"path": weights("port-taken")}, f"port {taken} is in use by"
    yield "bad-option", vllm, {"args": {"no-such-option": 1}}, "no-such-option"
    yield "no-such-gpu", vllm, {"gpus": [7]}, "GPU 7"


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningRouter, list[Case]]]:
    folder = tmp_path_factory.mktemp("router")
    machine = Machine(folder / "gpus")
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        listed = list(cases(folder, stranger.getsockname()[1]))
        backends = {f"by-{name}": {"engine": _engine(told), **told} for name, told, _, _ in listed}
        models = {
            name: {**stand_ins.entry(folder, "vllm", name), "backend": f"by-{name}", **changes}
            if "path" not in changes
            else {"backend": f"by-{name}", "context": 2048, **changes}
            for name, _, changes, _ in listed
        }
        models["resident"] = stand_ins.entry(folder, "transformers", "resident")
        config = stand_ins.configuration({**backends, "transformers": machine.backend("transformers")}, models)
        with running(folder, config, env=machine.env) as router:
            yield router, listed


def _engine(backend: Json) -> str:
    words = " ".join(backend["command"])
    return next((name for name in ("sglang", "tabbyapi") if name in words), "vllm")


def test_each_is_told_and_nobody_was_stopped(router: tuple[RunningRouter, list[Case]]) -> None:
    running_router, listed = router
    with running_router.client() as client:
        assert text_of(ask(client, "resident")) == "I am resident, a demo model."
        (before,) = running_router.status()["instances"]
        told = {}
        for name, _, _, cause in listed:
            body = {"model": name, "messages": [{"role": "user", "content": "hi"}]}
            answer = client.post("/v1/chat/completions", json=body)
            assert answer.status_code >= 400, name
            if cause not in answer.text.replace('\\"', '"'):
                told[name] = (cause, answer.text)
            assert answer.headers.get("x-should-retry") == (None if name == "port-taken" else "false"), name
        assert told == {}
        (after,) = running_router.status()["instances"]
    assert (after["id"], after["state"]) == (before["id"], "ready")
    starts = [line for line in running_router.log.splitlines() if " Started " in line]
    assert len(starts) == 1
