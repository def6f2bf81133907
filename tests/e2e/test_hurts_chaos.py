"""Everything at once, by the dice of a seed: clients, operators, dying engines, reloads. Afterwards all is as if nothing had been."""

import json
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import httpx2
import psutil
import pytest

from support.router import Json, RunningRouter, events, running, text_of, until
from support.wild import CHAT, SAYS, answer, entry, lives, notes, quiet, state, wild, wish

pytestmark = pytest.mark.slow

MODELS: Final = ("one", "two", "three")
#: What a client may be told on such a day. "stalled" and the like are not among them: nothing hangs here.
EXPECTED: Final = {
    "model_load_failed",
    "model_unloaded",
    "model_not_found",
    "engine_broke_off",
    "engine_unreachable",
}


class Client:
    """Asks and leaves at random, and counts what it got; a broken answer that looks whole is an error."""

    def __init__(self, router: RunningRouter, seed: int) -> None:
        self._router = router
        self._chance = random.Random(seed)
        self.got: Counter[str] = Counter()

    def run(self, count: int) -> None:
        with self._router.client() as client:
            for _ in range(count):
                self.got[self._one(client)] += 1

    def _one(self, client: httpx2.Client) -> str:
        model = self._chance.choice(MODELS)
        if self._chance.random() < 0.4:
            response = client.post(CHAT, json=wish(model, stream=False))
            if response.status_code != 200:
                return str(response.json()["error"]["code"])
            assert response.json()["choices"][0]["message"]["content"] == SAYS
            return "whole"
        leaves_after = self._chance.choice((0, 1, 3, 99, 99, 99))
        chunks: list[Json | str] = []
        with client.stream("POST", CHAT, json=wish(model)) as response:
            if response.status_code != 200:
                response.read()
                return str(response.json()["error"]["code"])
            for chunk in events(response):
                chunks.append(chunk)
                if len(chunks) > leaves_after:
                    return "left"
        codes = [str(chunk["error"]["code"]) for chunk in chunks if isinstance(chunk, dict) and "error" in chunk]
        if codes:
            return codes[0]
        assert text_of(chunks) == SAYS, chunks
        assert chunks[-1] == "[DONE]", chunks
        return "whole"


class Operator:
    """Loads, unloads, pins, reloads, and kills engines and guards."""

    def __init__(self, router: RunningRouter, config: Json, seed: int) -> None:
        self._router = router
        self._config = config
        self._chance = random.Random(seed)
        self._deeds: list[Callable[[httpx2.Client], object]] = [
            self._load,
            self._unload,
            self._pin,
            self._reload,
            self._kill_engine,
            self._kill_guard,
        ]

    def run(self, count: int) -> None:
        with self._router.client() as client:
            for _ in range(count):
                self._chance.choice(self._deeds)(client)
                # The pace of the day: so that each deed meets others in the middle.
                answer_or_not = client.post(CHAT, json=wish(self._chance.choice(MODELS), stream=False))
                assert answer_or_not.status_code in {200, 404, 502, 503}, answer_or_not.text
            for model in MODELS:
                client.post("/api/models/pin", json={"model": model, "pin": False})

    def _load(self, client: httpx2.Client) -> None:
        client.post("/models/load", json={"model": self._chance.choice(MODELS)})

    def _unload(self, client: httpx2.Client) -> None:
        client.post("/models/unload", json={"model": self._chance.choice(MODELS)})

    def _pin(self, client: httpx2.Client) -> None:
        model = self._chance.choice(MODELS)
        for pin in (True, False):
            client.post("/api/models/pin", json={"model": model, "pin": pin})
            client.post(CHAT, json=wish(model, stream=False))

    def _reload(self, _: httpx2.Client) -> None:
        models = self._config["models"]
        if self._chance.random() < 0.3 and "three" in models:
            del models["three"]
        else:
            models["three"] = entry(self._router.folder, "three")
            models[self._chance.choice(MODELS)]["env"] = {"NUMBER": str(self._chance.random())}
        (self._router.folder / "llm-router.json.yml").write_text(json.dumps(self._config))
        self._router.process.send_signal(signal.SIGHUP)

    def _kill_engine(self, client: httpx2.Client) -> None:
        for one in client.get("/api/status").json()["instances"]:
            if one["pid"]:
                with suppress(ProcessLookupError):
                    os.kill(one["pid"], self._chance.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV)))

    def _kill_guard(self, _: httpx2.Client) -> None:
        for one in self._router.engines():
            with suppress(psutil.NoSuchProcess):
                if "guard.py" in " ".join(one.cmdline()):
                    one.kill()


def serves(client: httpx2.Client, model: str) -> bool:
    return client.post(CHAT, json=wish(model, stream=False)).status_code == 200


@pytest.mark.parametrize("seed", [1, 2])
def test_a_day_of_everything_leaves_no_trace(tmp_path: Path, seed: int) -> None:
    config = wild(tmp_path, {"one": (), "two": ("daemon",), "three": ()})
    config["scheduler"] |= {"cooldown": 0.2}
    with running(tmp_path, config) as router, ThreadPoolExecutor(7) as pool:
        clients = [Client(router, 100 * seed + number) for number in range(6)]
        operator = Operator(router, config, seed)
        for done in [pool.submit(operator.run, 12), *(pool.submit(client.run, 20) for client in clients)]:
            done.result()
        until(lambda: quiet(router), 5)
        got = sum((client.got for client in clients), Counter[str]())
        assert set(got) - {"whole", "left"} <= EXPECTED, got
        assert got["whole"] > 30, got
        config["models"]["three"] = entry(router.folder, "three")
        (router.folder / "llm-router.json.yml").write_text(json.dumps(config))
        with router.client() as client:
            assert client.post("/api/reload").status_code == 200
            for model in MODELS:
                # The last failure may be remembered for a moment.
                until(partial(serves, client, model), 5)
                assert answer(client, model) == SAYS
        until(lambda: [one["model"] for one in router.status()["instances"]] == ["three"], 5)
        assert state(router, "three") == "ready"
        births = [pid for model in MODELS for pid in notes(router, model).births]
        assert [pid for pid in births if lives(pid)] == [router.status()["instances"][0]["pid"]]
        status = router.status()
        assert status["queue"] == []
        assert all(instance["leases"] == 0 for instance in status["instances"])
        assert "Traceback" not in router.log
