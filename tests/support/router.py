"""A real router as a process of its own, in front of real tiny models on a real llama.cpp."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil

from llm_router.demo.shelf import ARGS, COMMAND
from llm_router.demo.tinymodel import write_model

Json = dict[str, Any]

#: A model that loads at once, and one whose load takes long enough to be seen and left.
QUICK_MB, SLOW_MB = 0, 120


def says(name: str) -> str:
    """What the model of this name answers to everything."""
    return f"I am {name}, and this is all I say."


def make_model(folder: Path, name: str, pad_mb: int = QUICK_MB) -> Path:
    """The model's file, written once per folder."""
    path = folder / f"{name}-{pad_mb}.gguf"
    if not path.exists():
        write_model(path, name, says(name), pad_mb)
    return path


def configuration(models: Mapping[str, Path], **server: object) -> Json:
    """One model at a time, each on the wheel's llama.cpp."""
    return {
        "server": {"port": free_port(), **server},
        # All test clients have one address, and would be lingered for as if they were one person.
        "scheduler": {"linger": 0.05, "quantum_min": 0.1, "quantum_max": 0.5, "backoff": 0.1},
        "backends": {"llamacpp": {"command": list(COMMAND), "args": dict(ARGS)}},
        "models": {name: {"backend": "llamacpp", "path": str(path), "context": 4096} for name, path in models.items()},
    }


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port


@dataclass
class RunningRouter:
    """A router that listens, with its configuration and its folder."""

    process: "subprocess.Popen[bytes]"
    url: str
    folder: Path

    @property
    def log(self) -> str:
        return (self.folder / "router.log").read_text(errors="replace")

    def client(self) -> httpx2.Client:
        # Loading the certificates that nobody needs here would take longer than most tests ask for.
        return httpx2.Client(base_url=self.url, timeout=60.0, trust_env=False, verify=False)

    def status(self) -> Json:
        with self.client() as client:
            told: Json = client.get("/api/status").json()
        return told

    def engines(self) -> list[psutil.Process]:
        """The living guards of this router (their command names its folder) and all that they started."""
        found: list[psutil.Process] = []
        for process in psutil.process_iter(["cmdline", "status"]):
            ours = str(self.folder) in " ".join(process.info["cmdline"] or ()) and process.pid != self.process.pid
            if ours and process.info["status"] != psutil.STATUS_ZOMBIE:
                with suppress(psutil.NoSuchProcess):
                    found += [process, *process.children(recursive=True)]
        return found

    def stop(self, number: int = signal.SIGTERM, within_s: float = 30.0) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(within_s)


@contextmanager
def running(
    folder: Path,
    config: Json,
    *,
    leave: bool = False,
    env: Mapping[str, str] | None = None,
    through: Sequence[str] = (),
) -> Iterator[RunningRouter]:
    """Start a router with this configuration and wait until it answers.

    Nothing of it is left afterwards, unless ``leave``: then what the test's router left behind stays.
    ``env`` is added to the router's environment. ``through`` is a command that runs the router's.
    """
    config["server"].setdefault("state_dir", str(folder / "state"))
    path = folder / "llm-router.json.yml"
    path.write_text(json.dumps(config))
    log = (folder / "router.log").open("ab")
    process = subprocess.Popen(
        [*through, sys.executable, "-m", "llm_router", "serve", "--config", str(path)],
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONWARNINGS": "error", **(env or {})},
        start_new_session=True,
    )
    router = RunningRouter(process, f"http://127.0.0.1:{config['server']['port']}", folder)
    try:
        _until_it_answers(router)
        yield router
        if process.poll() is None:
            code = router.stop()
            assert code == 0, router.log
            assert not router.engines(), "the router left an engine behind"
    finally:
        log.close()
        if process.poll() is None:
            process.kill()
            process.wait()
        if not leave:
            for engine in router.engines():
                engine.kill()


def _until_it_answers(router: RunningRouter) -> None:
    end = time.monotonic() + 20
    with router.client() as client:
        while True:
            try:
                client.get("/health").raise_for_status()
            except httpx2.HTTPError:
                assert router.process.poll() is None, router.log
                assert time.monotonic() < end, router.log
                time.sleep(0.02)
            else:
                return


def events(response: httpx2.Response) -> Iterator[Json | str]:
    """The stream's events as values, comments as texts that begin with a colon, ``[DONE]`` as it is."""
    for line in response.iter_lines():
        if line.startswith(":"):
            yield line
        elif line == "data: [DONE]":
            yield "[DONE]"
        elif line.startswith("data: "):
            value: Json = json.loads(line.removeprefix("data: "))
            yield value


def text_of(chunks: list[Json | str]) -> str:
    """The answer's text."""
    return "".join(
        chunk["choices"][0]["delta"].get("content") or ""
        for chunk in chunks
        if isinstance(chunk, dict) and chunk.get("choices")
    )


def first_text(chunks: Iterator[Json | str]) -> None:
    """Read up to the first piece of the answer's text."""
    while not text_of([next(chunks)]):
        pass


def statuses(chunks: list[Json | str]) -> list[Json]:
    """The status events, in order."""
    return [chunk["event"]["data"] for chunk in chunks if isinstance(chunk, dict) and "event" in chunk]


def chat(model: str, stream: bool = True, **more: object) -> Json:
    """The body of a chat request."""
    return {"model": model, "stream": stream, "messages": [{"role": "user", "content": "Who are you?"}], **more}


def ask(client: httpx2.Client, model: str, **more: Any) -> list[Json | str]:
    """Chat in a stream; gives all its events."""
    with client.stream("POST", "/v1/chat/completions", json=chat(model, True, **more)) as response:
        assert response.status_code == 200, response.read()
        return list(events(response))


def until(true: Callable[[], bool], within_s: float = 20.0) -> None:
    """Wait for something that happens in another process."""
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)
