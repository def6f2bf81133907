"""A stand-in for NVIDIA's NVML with the library's own names and shapes, for a router in a process of its own.

It is found by ``PYTHONPATH``. The folder ``FAKE_GPUS`` holds the machine: ``cards.json`` with a list of UUIDs in the
library's order, each with its PCI bus, its name and its total bytes; a file for each process that holds memory,
named by its pid, with bytes by PCI-order index (``hold`` in engine_base writes it); while there is a file ``slow``,
what processes held that are gone is not back; and while there is a file ``busy``, all cards compute.
"""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

NVMLError = type("NVMLError", (Exception,), {})
FOLDER = Path(os.environ.get("FAKE_GPUS", "/nonexistent"))


def _cards() -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = json.loads((FOLDER / "cards.json").read_text())
    except OSError as error:
        raise NVMLError("Driver Not Loaded") from error
    return found


def _index(uuid: str) -> int:
    return sorted(card["bus"] for card in _cards()).index(next(c["bus"] for c in _cards() if c["uuid"] == uuid))


def _taken(uuid: str) -> dict[int, int]:
    """Bytes on the card by process, dead or alive."""
    index = str(_index(uuid))
    files = [file for file in FOLDER.iterdir() if file.name.isdigit()]
    found = {int(file.name): int(json.loads(file.read_text()).get(index, 0)) for file in files}
    return {pid: size for pid, size in found.items() if size}


def _held(uuid: str) -> dict[int, int]:
    """Bytes on the card by living process."""
    return {pid: size for pid, size in _taken(uuid).items() if Path("/proc", str(pid)).exists()}


def nvmlInit() -> None:  # noqa: N802
    _cards()


def nvmlSystemGetDriverVersion() -> str:  # noqa: N802
    return "600.1"


def nvmlDeviceGetCount() -> int:  # noqa: N802
    return len(_cards())


def nvmlDeviceGetHandleByIndex(index: int) -> str:  # noqa: N802
    return str(_cards()[index]["uuid"])


def nvmlDeviceGetHandleByUUID(uuid: str) -> str:  # noqa: N802
    if not any(card["uuid"] == uuid for card in _cards()):
        raise NVMLError("Not Found")
    return uuid


def nvmlDeviceGetPciInfo(handle: str) -> Any:  # noqa: N802
    return SimpleNamespace(busId=next(card["bus"] for card in _cards() if card["uuid"] == handle).encode())


def nvmlDeviceGetUUID(handle: str) -> str:  # noqa: N802
    return handle


def nvmlDeviceGetName(handle: str) -> str:  # noqa: N802
    return str(next(card["name"] for card in _cards() if card["uuid"] == handle))


def nvmlDeviceGetMemoryInfo(handle: str) -> Any:  # noqa: N802
    total = next(card["total"] for card in _cards() if card["uuid"] == handle)
    used = _taken(handle) if (FOLDER / "slow").exists() else _held(handle)
    return SimpleNamespace(total=total, used=sum(used.values()))


def nvmlDeviceGetUtilizationRates(handle: str) -> Any:  # noqa: N802
    return SimpleNamespace(gpu=100 if (FOLDER / "busy").exists() else 0, memory=0)


def nvmlDeviceGetComputeRunningProcesses(handle: str) -> list[Any]:  # noqa: N802
    return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in _held(handle).items()]


def nvmlDeviceGetGraphicsRunningProcesses(handle: str) -> list[Any]:  # noqa: N802
    return []
