"""AMD's cards by the kernel's files, laid out in a folder."""

from pathlib import Path

import pytest

from llm_router.core.words import Device, DeviceId
from llm_router.host.machine import gpus
from llm_router.host.machine.amd import Amd
from llm_router.host.machine.gpus import Gauge

GIB = 2**30
ONE, TWO = DeviceId("AMD-a1"), DeviceId("AMD-0000:63:00.0")


def card(drm: Path, number: int, address: str, total: int, **files: str) -> None:
    device = drm.parent / "devices" / address
    device.mkdir(parents=True)
    for name, text in {"vendor": "0x1002", "mem_info_vram_total": str(total), **files}.items():
        (device / name).write_text(f"{text}\n")
    (drm / f"card{number}").mkdir(parents=True)
    (drm / f"card{number}" / "device").symlink_to(device)


@pytest.fixture
def drm(tmp_path: Path) -> Path:
    """Two cards, not in PCI order; a processor's own graphics; another maker's card; a connector of the first."""
    drm = tmp_path / "drm"
    card(drm, 0, "0000:63:00.0", 16 * GIB, mem_info_vram_used=str(2 * GIB), device="0x744c")
    card(drm, 1, "0000:03:00.0", 24 * GIB, mem_info_vram_used=str(GIB), unique_id="a1", product_name="Big")
    card(drm, 2, "0000:70:00.0", GIB // 2)
    card(drm, 3, "0000:80:00.0", 24 * GIB, vendor="0x10de")
    (drm / "card1-DP-1").mkdir()
    (drm / "card1-DP-1" / "device").symlink_to(drm / "card1" / "device")
    return drm


def test_cards_are_in_pci_order_and_counted_once(drm: Path) -> None:
    assert Amd(drm).cards() == [
        ("0000:03:00.0", ONE, "Big", 24 * GIB),
        ("0000:63:00.0", TWO, "AMD 0x744c", 16 * GIB),
    ]


def test_what_is_in_use_is_read_anew(drm: Path) -> None:
    amd = Amd(drm)
    assert (amd.used(ONE), amd.used(TWO)) == (GIB, 2 * GIB)
    (drm / "card1" / "device" / "mem_info_vram_used").write_text("7")
    assert amd.used(ONE) == 7
    (drm / "card1" / "device" / "mem_info_vram_used").unlink()
    assert amd.used(ONE) is None
    assert amd.used(DeviceId("AMD-gone")) is None


def test_how_much_a_card_computes(drm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (drm / "card1" / "device" / "gpu_busy_percent").write_text("99\n")
    (drm / "card0" / "device" / "gpu_busy_percent").write_text("2\n")
    assert [Amd(drm).busy(card) for card in (ONE, TWO, DeviceId("AMD-gone"))] == [99, 2, None]
    monkeypatch.setattr(gpus, "_load", lambda: None)
    monkeypatch.setattr(gpus, "Amd", lambda: Amd(drm))
    assert [Gauge().computes(card) for card in (ONE, TWO, DeviceId("AMD-gone"))] == [True, False, False]


def test_a_machine_without_has_none(tmp_path: Path) -> None:
    assert Amd(tmp_path / "nothing").cards() == []


def test_the_gauge_takes_them_where_nvml_has_none(drm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "_load", lambda: None)
    monkeypatch.setattr(gpus, "Amd", lambda: Amd(drm))
    gauge = Gauge()
    assert gauge.devices() == (Device(ONE, 24 * GIB), Device(TWO, 16 * GIB))
    assert gauge.indices((TWO, ONE)) == (1, 0)
    assert gauge.used(TWO) == 2 * GIB
    assert gauge.holders(TWO) == ()
    assert gauge.taken_by(frozenset({1}), TWO) is None
    monkeypatch.setenv("LLM_ROUTER_GPUS", "none")
    assert Gauge().gpus == ()
