"""Two GPUs behind one router: who is placed where, how engines see them, and memory that must be back (R13, R20, R25)."""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from support import stand_ins
from support.gpus import GIB, Machine
from support.router import Json, RunningRouter, ask, running, text_of, until

pytestmark = pytest.mark.slow


@contextmanager
def shelf_of(folder: Path, machine: Machine, models: Mapping[str, Json]) -> Iterator[RunningRouter]:
    """These models on stand-ins for transformers, each of which takes 16 of the 24 GiB of each of its cards."""
    entries = {name: stand_ins.entry(folder, "transformers", name, **more) for name, more in models.items()}
    config = stand_ins.configuration({"transformers": machine.backend("transformers")}, entries)
    with running(folder, config, env=machine.env) as router:
        yield router


def asked(router: RunningRouter, model: str) -> None:
    with router.client() as client:
        assert text_of(ask(client, model)) == f"I am {model}, a demo model."


def instances(router: RunningRouter) -> dict[str, Json]:
    return {one["model"]: one for one in router.status()["instances"]}


def seen_by(instance: Json) -> tuple[str, str]:
    """How the engine is told of its devices."""
    environment = psutil.Process(instance["pid"]).environ()
    return environment.get("CUDA_DEVICE_ORDER", ""), environment.get("CUDA_VISIBLE_DEVICES", "")


def test_two_models_live_side_by_side_and_a_third_makes_one_leave(tmp_path: Path) -> None:
    models = {name: {"gpus": 1, "memory": "16GiB"} for name in ("one", "two", "three")}
    with shelf_of(tmp_path, Machine(tmp_path / "gpus"), models) as router:
        asked(router, "one")
        asked(router, "two")
        both = instances(router)
        assert {one["state"] for one in both.values()} == {"ready"}
        assert sorted(one["devices"] for one in both.values()) == [["GPU-a"], ["GPU-b"]]
        for one in both.values():
            assert seen_by(one) == ("PCI_BUS_ID", {"GPU-a": "0", "GPU-b": "1"}[one["devices"][0]])
            assert one["memory"] == 16 * GIB
        assert [(card["name"], card["used"]) for card in router.status()["devices"]] == [
            ("GPU 0 Card", 16 * GIB),
            ("GPU 1 Card", 16 * GIB),
        ]
        asked(router, "three")
        left = instances(router)
        assert set(left) == {"two", "three"}, "who was idle the longest leaves"
        assert left["two"]["pid"] == both["two"]["pid"]


@pytest.mark.parametrize(
    ("gpus", "visible"), [(2, "0,1"), ("all", "0,1"), ([1], "1"), (["GPU-b"], "1"), ([1, 0], "1,0"), (None, "0,1")]
)
def test_each_way_to_say_which_gpus(tmp_path: Path, gpus: object, visible: str) -> None:
    with shelf_of(tmp_path, Machine(tmp_path / "gpus"), {"one": {"gpus": gpus} if gpus else {}}) as router:
        asked(router, "one")
        assert seen_by(instances(router)["one"]) == ("PCI_BUS_ID", visible)


def test_what_is_not_known_is_learnt_and_then_shared(tmp_path: Path) -> None:
    """Without `memory` a model is alone on the machine once; after that its measure counts."""
    with shelf_of(tmp_path, Machine(tmp_path / "gpus"), {name: {"gpus": 1} for name in ("one", "two")}) as router:
        asked(router, "one")
        asked(router, "two")
        assert set(instances(router)) == {"two"}
        asked(router, "one")
        assert set(instances(router)) == {"one", "two"}


def test_the_next_start_waits_until_the_memory_is_back(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "gpus", ("GPU-a",))
    models = {name: {"gpus": 1, "memory": "16GiB"} for name in ("one", "two")}
    with shelf_of(tmp_path, machine, models) as router, ThreadPoolExecutor(1) as pool:
        asked(router, "one")
        pid = instances(router)["one"]["pid"]
        machine.keep_memory(True)
        waiting = pool.submit(asked, router, "two")
        until(lambda: not psutil.pid_exists(pid))
        still = instances(router)
        assert still["one"]["state"] == "stopping", "it is not gone before its memory is"
        assert "two" not in still or still["two"]["state"] in {"planned", "cleared"}
        assert not waiting.done()
        assert router.status()["devices"][0]["used"] == 16 * GIB
        machine.keep_memory(False)
        waiting.result(timeout=20)
        assert set(instances(router)) == {"two"}


def test_what_only_an_estimate_speaks_against_is_tried_and_said(tmp_path: Path) -> None:
    with shelf_of(tmp_path, Machine(tmp_path / "gpus"), {"one": {"gpus": 1}}) as router:
        config = tmp_path / "weights" / "one" / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 500_000_000}))
        asked(router, "one")
        assert "one may not fit on its devices: weights " in router.log
