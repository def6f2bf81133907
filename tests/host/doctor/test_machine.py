"""What is said of clock, disk and GPUs."""

import ctypes
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from llm_router.core.words import DeviceId
from llm_router.host.doctor import machine
from llm_router.host.doctor.findings import Level
from llm_router.host.machine.gpus import Gauge, Gpu


class Card:
    """A gauge with these GPUs and 1 GiB in use on each."""

    def __init__(self, *gpus: Gpu) -> None:
        self.gpus = gpus

    def used(self, device: DeviceId) -> int | None:
        return None if device == "GPU-b" else 1024**3

    def driver(self) -> str | None:
        return "570.1"


def gauge(*gpus: Gpu) -> Gauge:
    return cast("Gauge", Card(*gpus))


def test_the_router_itself() -> None:
    (found,) = machine.python()
    assert "Python 3." in found.text


@pytest.mark.parametrize(("state", "level"), [(0, Level.ok), (5, Level.warn), (-1, None)])
def test_the_clock(state: int, level: Level | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: SimpleNamespace(adjtimex=lambda _buffer: state))
    assert [finding.level for finding in machine.clock()] == ([level] if level else [])


def test_the_real_clock_is_only_read() -> None:
    assert len(list(machine.clock())) <= 1


def test_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = machine.disk(tmp_path / "not" / "yet")
    assert found.level in Level
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=1024**2))
    (found,) = machine.disk(tmp_path)
    assert (found.level, "state_dir" in found.remedy) == (Level.fail, True)


def test_gpus_with_what_they_hold() -> None:
    found = list(machine.gpus(gauge(Gpu(DeviceId("GPU-a"), 0, "H", 24 * 1024**3), Gpu(DeviceId("GPU-b"), 1, "H", 0))))
    assert [finding.text for finding in found[:3]] == [
        "GPU 0: H, 24 GiB, 1.0 GiB in use",
        "GPU 1: H, 0 GiB",
        "NVIDIA driver 570.1",
    ]
    missing = not Path("/dev/nvidia-uvm").exists()
    assert [finding.level for finding in found[3:]] == ([Level.warn] if missing else [])


def test_no_gpu_is_well_but_a_driver_that_does_not_answer_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda _self: False)
    (found,) = machine.gpus(gauge())
    assert (found.level, "on the processor" in found.text) == (Level.ok, True)
    monkeypatch.setattr(Path, "exists", lambda _self: True)
    (found,) = machine.gpus(gauge())
    assert (found.level, "nvidia-smi" in found.remedy) == (Level.fail, True)
