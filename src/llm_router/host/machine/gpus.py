"""The machine's memory that models share: NVIDIA's GPUs by NVML, else AMD's, or the host's own where there is none.

It measures and names; whether what it measures is enough is decided in the core. GPUs are known by UUID and
given to engines as PCI-order indices, read anew at each start (indices may change, UUIDs do not).
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import psutil

from llm_router.core.words import AMD, HOST_DEVICE, Device, DeviceId
from llm_router.host.machine.amd import Amd

#: A GPU that computes for less of its time shows no more than a desktop, in percent.
BUSY: Final = 10

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU. ``index`` is its place in PCI order, memory in bytes."""

    id: DeviceId
    index: int
    name: str
    total: int


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds memory of a device, in bytes; ``used`` is ``None`` where the driver hides it."""

    pid: int
    name: str
    used: int | None


class Gauge:
    """Reads the devices. Without the library, the driver or a GPU there is one device: the host's memory."""

    def __init__(self) -> None:
        self._nvml = _load()
        self._amd = Amd()
        self._gpus = self._inventory()

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs in PCI order; empty on a machine without."""
        return self._gpus

    def devices(self) -> tuple[Device, ...]:
        """What the scheduler is told there is."""
        if self._gpus:
            return tuple(Device(gpu.id, gpu.total) for gpu in self._gpus)
        return (Device(HOST_DEVICE, psutil.virtual_memory().total),)

    def indices(self, devices: tuple[DeviceId, ...]) -> tuple[int, ...]:
        """The present PCI-order indices of these devices; empty for the host. Raises ``LookupError``."""
        wanted = [device for device in devices if device != HOST_DEVICE]
        if not wanted:
            return ()
        known = {gpu.id: gpu.index for gpu in self._inventory()}
        missing = [device for device in wanted if device not in known]
        if missing:
            raise LookupError(
                f"cannot use GPU {missing[0]}: the driver does not show it any more; look at nvidia-smi or rocm-smi, then reload"
            )
        return tuple(known[device] for device in wanted)

    def used(self, device: DeviceId) -> int | None:
        """Bytes in use on the device, by anybody; ``None`` if it cannot be read. The host's is never read: a
        process that is gone has given its memory back, and the rest of the machine is not ours to judge."""
        if device == HOST_DEVICE:
            return None
        if device.startswith(AMD):
            return self._amd.used(device)
        return self._ask(lambda nvml: int(nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetHandleByUUID(device)).used))

    def computes(self, device: DeviceId) -> bool:
        """Whether the device computed within the last second, whoever for; False where nobody can tell."""
        if device.startswith(AMD):
            return (self._amd.busy(device) or 0) > BUSY
        if device == HOST_DEVICE or self._nvml is None:
            return False
        try:
            rates = self._nvml.nvmlDeviceGetUtilizationRates(self._nvml.nvmlDeviceGetHandleByUUID(device))
        except self._nvml.NVMLError:
            # The parts of a divided GPU (MIG) do not tell; that is no news.
            return False
        return int(rates.gpu) > BUSY

    def driver(self) -> str | None:
        """The version of the driver, as the library tells it; ``None`` without one."""
        return self._ask(lambda nvml: _text(nvml.nvmlSystemGetDriverVersion()))

    def holders(self, device: DeviceId) -> tuple[Holder, ...]:
        """The processes on the device, as far as the driver tells."""
        if device == HOST_DEVICE or device.startswith(AMD):
            return ()
        return self._ask(lambda nvml: _holders(nvml, device)) or ()

    def taken_by(self, pids: frozenset[int], device: DeviceId) -> int | None:
        """Bytes that these processes hold on the device; ``None`` if the driver does not tell."""
        ours = [holder.used for holder in self.holders(device) if holder.pid in pids]
        if not ours:
            return None
        known = [used for used in ours if used is not None]
        return sum(known) if len(known) == len(ours) else None

    def _inventory(self) -> tuple[Gpu, ...]:
        if _forbidden():
            return ()
        cards = enumerate(self._amd.cards())
        return self._ask(_gpus) or tuple(Gpu(id_, index, name, total) for index, (_, id_, name, total) in cards)

    def _ask(self, question: Callable[[Any], T]) -> T | None:
        """A driver that fails a question answers nothing; it must not take the router with it."""
        if self._nvml is None:
            return None
        try:
            return question(self._nvml)
        except self._nvml.NVMLError as error:
            log.warning("cannot read the GPUs: %s; what is not known is treated as such", error)
            return None


def _gpus(nvml: Any) -> tuple[Gpu, ...]:
    found = []
    for number in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(number)
        found.append(
            (
                _text(nvml.nvmlDeviceGetPciInfo(handle).busId),
                _text(nvml.nvmlDeviceGetUUID(handle)),
                _text(nvml.nvmlDeviceGetName(handle)),
                int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
            )
        )
    return tuple(Gpu(DeviceId(uuid), index, name, total) for index, (_, uuid, name, total) in enumerate(sorted(found)))


def _holders(nvml: Any, device: DeviceId) -> tuple[Holder, ...]:
    handle = nvml.nvmlDeviceGetHandleByUUID(device)
    processes = {
        process.pid: process.usedGpuMemory
        for process in (
            *nvml.nvmlDeviceGetGraphicsRunningProcesses(handle),
            *nvml.nvmlDeviceGetComputeRunningProcesses(handle),
        )
    }
    return tuple(Holder(pid, _name(pid), used) for pid, used in processes.items())


def _forbidden() -> bool:
    """Whether the router is told to see no GPU."""
    return os.environ.get("LLM_ROUTER_GPUS") == "none"


def _load() -> Any:
    """NVML, started; ``None`` without library, driver or GPU, which is normal."""
    if _forbidden():
        return None
    try:
        import pynvml  # noqa: PLC0415 - optional
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        log.info("no GPU by NVML: %s", error)
        return None
    return pynvml


def _name(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return "?"


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
