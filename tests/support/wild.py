"""Routers in front of wild engines (wild_engine.py): their configuration, their notes, what is left of them."""

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
import psutil

from support.router import Json, RunningRouter, chat, free_port

ENGINE: Final = Path(__file__).with_name("wild_engine.py")
SAYS: Final = "I am wild."
CHAT: Final = "/v1/chat/completions"
#: Rules under which nothing takes long: one client's linger, a quantum, a pause after a failure.
QUICK: Final[Json] = {"linger": 0.05, "quantum_min": 0.1, "quantum_max": 0.5, "backoff": 0.05}


def wild(folder: Path, models: Mapping[str, Sequence[str]], **server: object) -> Json:
    """A configuration of wild engines: the words of each model by its name. One lives at a time."""
    return {
        "server": {"port": free_port(), "status": "event", **server},
        "scheduler": dict(QUICK),
        "backends": {"wild": {"engine": "command", "grace": 5.0}},
        "models": {name: entry(folder, name, *words) for name, words in models.items()},
    }


def entry(folder: Path, name: str, *words: str) -> Json:
    """One model's entry."""
    command = [sys.executable, "-I", "-S", str(ENGINE), str(folder / f"{name}.notes"), "{port}", *words]
    return {"backend": "wild", "command": command, "health": "/health"}


@dataclass(frozen=True)
class Notes:
    """What the engines of one model wrote down."""

    folder: Path
    name: str

    @property
    def lines(self) -> list[str]:
        with suppress(FileNotFoundError):
            return (self.folder / f"{self.name}.notes").read_text().splitlines()
        return []

    @property
    def births(self) -> list[int]:
        """The main process of each start, in order."""
        return [int(line.split()[1]) for line in self.lines if line.startswith("born ")]

    def count(self, line: str) -> int:
        return self.lines.count(line)


def notes(router: RunningRouter, name: str) -> Notes:
    return Notes(router.folder, name)


def wish(model: str, text: str = "hello", **more: Any) -> Json:
    """The body of a chat that asks a wild engine for something."""
    return chat(model, **more) | {"messages": [{"role": "user", "content": text}]}


def answer(client: httpx2.Client, model: str, text: str = "hello") -> str:
    """What the model says, as a whole."""
    response = client.post(CHAT, json=wish(model, text, stream=False))
    assert response.status_code == 200, response.text
    said: str = response.json()["choices"][0]["message"]["content"]
    return said


def state(router: RunningRouter, model: str) -> str:
    """The state of the model as the router tells it."""
    found: str = next(entry["state"] for entry in router.status()["models"] if entry["name"] == model)
    return found


def quiet(router: RunningRouter) -> bool:
    """Nobody waits, nobody is answered, no lease is held."""
    with router.client() as client:
        health = client.get("/health").json()
    return bool(health["waiting"] == 0 and health["running"] == 0)


def files_open(router: RunningRouter) -> int:
    """How many file descriptors the router has."""
    return psutil.Process(router.process.pid).num_fds()


def memory(router: RunningRouter) -> int:
    """Main memory of the router in bytes."""
    used: int = psutil.Process(router.process.pid).memory_info().rss
    return used


def lives(pid: int) -> bool:
    """Whether the process runs; one that nobody has reaped does not."""
    with suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


def say_so(path: Path) -> None:
    """Open a gate."""
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
