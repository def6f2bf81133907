"""Engines that sleep instead of ending: their memory is seen to be free, and they come back without a load."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support import stand_ins
from support.gpus import GIB, Machine
from support.router import Json, RunningRouter, ask, running, statuses, text_of, until

pytestmark = pytest.mark.slow

ENGINES = ("vllm", "sglang")


@contextmanager
def two_on_one_card(folder: Path, engine: str, *traps: str, **server: object) -> Iterator[RunningRouter]:
    """``sleeper`` can be parked; ``other`` takes so much of the only card that both cannot be awake."""
    machine = Machine(folder / "gpus", ("GPU-a",))
    models = {
        "sleeper": stand_ins.entry(folder, engine, "sleeper", gpus=1, memory="16GiB", park=True, parked_memory="2GiB"),
        "other": {**stand_ins.entry(folder, "transformers", "other", gpus=1, memory="16GiB")},
    }
    backends = {
        engine: {**machine.backend(engine, *traps), "grace": "1s"},
        "transformers": machine.backend("transformers"),
    }
    with running(folder, stand_ins.configuration(backends, models, **server), env=machine.env) as router:
        yield router


def instances(router: RunningRouter) -> dict[str, Json]:
    return {one["model"]: one for one in router.status()["instances"]}


def asked(router: RunningRouter, model: str) -> list[Json | str]:
    with router.client() as client:
        chunks = ask(client, model)
    assert text_of(chunks) == f"I am {model}, a demo model."
    return chunks


@pytest.mark.parametrize("engine", ENGINES)
def test_a_parked_engine_wakes_in_its_own_process(tmp_path: Path, engine: str) -> None:
    with two_on_one_card(tmp_path, engine) as router:
        asked(router, "sleeper")
        pid = instances(router)["sleeper"]["pid"]
        asked(router, "other")
        parked = instances(router)["sleeper"]
        assert (parked["state"], parked["pid"]) == ("parked", pid)
        (card,) = router.status()["devices"]
        assert card["used"] == 17 * GIB
        told = statuses(asked(router, "sleeper"))
        assert any("aking sleeper" in status["description"] for status in told), told
        path = {"vllm": "sleep", "sglang": "release_memory_occupation"}[engine]
        with router.client() as client:
            refused = client.post(f"/upstream/sleeper/{path}", json={})
        assert refused.status_code == 403, "behind the router's back it would sleep, and be taken for awake"
        awake = instances(router)["sleeper"]
        assert (awake["state"], awake["pid"]) == ("ready", pid)
        with sqlite3.connect(tmp_path / "state" / "history.db") as history:
            until(lambda: history.execute("SELECT count(*) FROM loads WHERE kind = 'wake'").fetchone() == (1,))
        history.close()


def test_one_that_hangs_when_put_to_sleep_is_stopped(tmp_path: Path) -> None:
    with two_on_one_card(tmp_path, "vllm", "hang-sleep", load_timeout=3) as router:
        asked(router, "sleeper")
        asked(router, "other")
        assert "sleeper" not in instances(router)
        assert "sleeper#1 is stopped instead of parked: cannot park sleeper" in router.log


def test_one_that_does_not_wake_is_started_anew(tmp_path: Path) -> None:
    with two_on_one_card(tmp_path, "vllm", "no-wake") as router:
        asked(router, "sleeper")
        pid = instances(router)["sleeper"]["pid"]
        asked(router, "other")
        assert instances(router)["sleeper"]["state"] == "parked"
        asked(router, "sleeper")
        assert instances(router)["sleeper"]["pid"] != pid


def test_a_sleeper_is_adopted_and_woken_by_the_next_router(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "gpus", ("GPU-a",))
    models = {"sleeper": stand_ins.entry(tmp_path, "vllm", "sleeper", gpus=1, memory="16GiB", park=True, idle="200ms")}
    config = stand_ins.configuration({"vllm": machine.backend("vllm")}, models, engines_on_exit="keep")
    with running(tmp_path, config, env=machine.env, leave=True) as router:
        asked(router, "sleeper")
        until(lambda: instances(router)["sleeper"]["state"] == "parked")
        pid = instances(router)["sleeper"]["pid"]
        router.process.kill()
        router.process.wait()
    config["server"]["engines_on_exit"] = "stop"
    with running(tmp_path, config, env=machine.env) as router:
        asked(router, "sleeper")
        assert instances(router)["sleeper"]["pid"] == pid
