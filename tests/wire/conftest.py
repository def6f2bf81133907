"""A real llama.cpp server with a tiny model, for the translations that are compared with the real thing."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

SAYS = "I am alpha, a demo model, é 🙂 done."

#: Prints where it listens once the model is loaded; ends when its input does, so it cannot be left behind.
SERVER = """
import sys
import xllamacpp
params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.model_alias = {"alpha"}
params.hostnames = ["127.0.0.1"]
params.port = 0
params.n_parallel = 2
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
"""

Ask = Callable[[str, dict[str, Any]], bytes]


@contextlib.contextmanager
def serve(model: Path) -> Iterator[str]:
    """Run the server; gives its address."""
    command = [sys.executable, "-c", SERVER, str(model)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture(scope="session")
def ask_llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Posts a JSON body to a real llama.cpp and gives the body of its answer."""
    pytest.importorskip("xllamacpp")
    from llm_router.demo.tinymodel import write_model

    model = tmp_path_factory.mktemp("model") / "alpha.gguf"
    write_model(model, "alpha", SAYS)
    with serve(model) as address:

        def ask(path: str, body: dict[str, Any]) -> bytes:
            request = Request(address + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
            with urlopen(request, timeout=20) as answer:
                content: bytes = answer.read()
                return content

        yield ask


def payloads(stream: bytes) -> list[bytes]:
    """The ``data:`` payloads of a recorded stream of events."""
    return [line.removeprefix(b"data: ") for line in stream.splitlines() if line.startswith(b"data: ")]


@pytest.fixture(scope="session")
def split_stream() -> Callable[[bytes], list[bytes]]:
    """Cuts a recorded stream of events into its payloads."""
    return payloads
