"""NVML is spoken to through a stand-in with the library's own names and shapes."""

from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from llm_router.core.words import HOST_DEVICE, Device, DeviceId
from llm_router.host.machine import gpus as module
from llm_router.host.machine.gpus import Gauge, Gpu, Holder

GIB = 2**30


class NVMLError(Exception):
    pass


class Nvml:
    """Two GPUs whose numbers are not in PCI order."""

    NVMLError = NVMLError

    def __init__(self) -> None:
        self.cards = {
            "GPU-fast": SimpleNamespace(bus="00000000:41:00.0", name="Fast", total=24 * GIB, used=3 * GIB),
            "GPU-slow": SimpleNamespace(bus="00000000:01:00.0", name="Slow", total=16 * GIB, used=1 * GIB),
        }
        self.broken = False

    def _ask(self) -> None:
        if self.broken:
            raise NVMLError("GPU is lost")

    def nvmlInit(self) -> None:  # noqa: N802
        self._ask()

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        self._ask()
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return list(self.cards)[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        self._ask()
        if uuid not in self.cards:
            raise NVMLError("not found")
        return uuid

    def nvmlDeviceGetPciInfo(self, handle: str) -> Any:  # noqa: N802
        return SimpleNamespace(busId=self.cards[handle].bus.encode())

    def nvmlDeviceGetUUID(self, handle: str) -> str:  # noqa: N802
        return handle

    def nvmlDeviceGetName(self, handle: str) -> bytes:  # noqa: N802
        return str(self.cards[handle].name).encode()

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:  # noqa: N802
        return self.cards[handle]

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> Any:  # noqa: N802
        return SimpleNamespace(gpu=97 if handle == "GPU-fast" else 3, memory=50)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[Any]:  # noqa: N802
        return [SimpleNamespace(pid=7, usedGpuMemory=2 * GIB), SimpleNamespace(pid=8, usedGpuMemory=None)]

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: str) -> list[Any]:  # noqa: N802
        return [SimpleNamespace(pid=7, usedGpuMemory=2 * GIB)]


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Nvml:
    nvml = Nvml()
    monkeypatch.setattr(module, "_load", lambda: nvml)
    monkeypatch.setattr(module, "_name", lambda pid: f"name-{pid}")
    return nvml


def test_gpus_are_in_pci_order_whatever_the_library_counts(nvml: Nvml) -> None:
    slow, fast = DeviceId("GPU-slow"), DeviceId("GPU-fast")
    gauge = Gauge()
    assert gauge.gpus == (Gpu(slow, 0, "Slow", 16 * GIB), Gpu(fast, 1, "Fast", 24 * GIB))
    assert gauge.devices() == (Device(slow, 16 * GIB), Device(fast, 24 * GIB))
    assert gauge.indices((fast, slow)) == (1, 0)
    assert gauge.used(fast) == 3 * GIB


def test_a_gpu_that_left_is_named(nvml: Nvml) -> None:
    gauge = Gauge()
    del nvml.cards["GPU-slow"]
    assert gauge.indices((DeviceId("GPU-fast"),)) == (0,)
    with pytest.raises(LookupError, match="cannot use GPU GPU-slow: the driver does not show it any more"):
        gauge.indices((DeviceId("GPU-slow"),))


def test_who_holds_what(nvml: Nvml) -> None:
    gauge, fast = Gauge(), DeviceId("GPU-fast")
    assert gauge.holders(fast) == (Holder(7, "name-7", 2 * GIB), Holder(8, "name-8", None))
    assert gauge.taken_by(frozenset({7}), fast) == 2 * GIB
    assert gauge.taken_by(frozenset({7, 8}), fast) is None
    assert gauge.taken_by(frozenset({9}), fast) is None


def test_a_driver_that_fails_answers_nothing(nvml: Nvml, caplog: pytest.LogCaptureFixture) -> None:
    gauge = Gauge()
    nvml.broken = True
    assert gauge.used(DeviceId("GPU-fast")) is None
    assert gauge.holders(DeviceId("GPU-fast")) == ()
    assert "cannot read the GPUs: GPU is lost" in caplog.text


def test_which_of_them_computes(nvml: Nvml, caplog: pytest.LogCaptureFixture) -> None:
    gauge = Gauge()
    assert gauge.computes(DeviceId("GPU-fast"))
    assert not gauge.computes(DeviceId("GPU-slow")), "a desktop is drawn"
    assert not gauge.computes(HOST_DEVICE)
    nvml.broken = True
    assert not gauge.computes(DeviceId("GPU-fast"))
    assert caplog.text == "", "a part of a GPU cannot tell, and is asked again and again"


def test_without_a_gpu_there_is_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_ROUTER_GPUS", "none")
    gauge = Gauge()
    assert gauge.gpus == ()
    assert gauge.devices() == (Device(HOST_DEVICE, psutil.virtual_memory().total),)
    assert gauge.indices((HOST_DEVICE,)) == ()
    assert gauge.used(HOST_DEVICE) is None
    assert gauge.holders(HOST_DEVICE) == ()
    assert not gauge.computes(HOST_DEVICE)


def test_this_machine_can_be_asked_whatever_it_has() -> None:
    assert Gauge().devices()
