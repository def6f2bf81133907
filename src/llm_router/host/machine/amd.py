"""AMD's GPUs, as the kernel's driver tells of them: their memory and work, by files, without ROCm's libraries.

It knows amdgpu's files below ``/sys/class/drm`` (kernel documentation, "AMDGPU driver": memory, ``gpu_busy_percent``). Who holds the
memory these files do not say.
"""

from pathlib import Path
from typing import Final

from llm_router.core.words import AMD, DeviceId

DRM: Final = Path("/sys/class/drm")
_VENDOR: Final = "0x1002"
#: What has less is a processor's own graphics, which no engine should be put on.
SMALLEST: Final = 8 * 2**30


class Amd:
    """The cards of this machine; reads anew at each question. ``folder`` is the kernel's."""

    def __init__(self, folder: Path = DRM) -> None:
        self._folder = folder

    def cards(self) -> list[tuple[str, DeviceId, str, int]]:
        """PCI address, id, name and bytes of memory of each card, in PCI order."""
        found = []
        for device in sorted(self._folder.glob("card[0-9]*/device")):
            total = _number(device / "mem_info_vram_total")
            if _text(device / "vendor") != _VENDOR or total is None or total < SMALLEST:
                continue
            address = device.resolve().name
            identity = _text(device / "unique_id") or address
            name = _text(device / "product_name") or f"AMD {_text(device / 'device')}"
            found.append((address, DeviceId(f"{AMD}{identity}"), name, total))
        # One card has several entries (card0, card0-DP-1) only where a connector has its own link to the device.
        return sorted(set(found))

    def used(self, id_: DeviceId) -> int | None:
        """Bytes in use on the card; ``None`` if it has left or cannot be read."""
        return self._read(id_, "mem_info_vram_used")

    def busy(self, id_: DeviceId) -> int | None:
        """How much of its time the card computes, in percent; ``None`` if it has left or cannot be read."""
        return self._read(id_, "gpu_busy_percent")

    def _read(self, id_: DeviceId, name: str) -> int | None:
        addresses = {card: address for address, card, _, _ in self.cards()}
        for device in self._folder.glob("card[0-9]*/device"):
            if id_ in addresses and device.resolve().name == addresses[id_]:
                return _number(device / name)
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdigit() else None
