"""The machine itself: interpreter, clock, disk, GPUs and their driver. It knows nothing of models."""

import ctypes
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

from llm_router.core.words import AMD
from llm_router.host.doctor.findings import Finding, fail, ok, warn
from llm_router.host.machine.gpus import Gauge

#: Logs and history stop growing well below this; a disk with less is full tomorrow, in bytes.
SPARE: Final = 1024**3
#: adjtimex(2): the clock is not kept right by anybody.
_TIME_ERROR: Final = 5
_TIMEX_BYTES: Final = 512
_GIB: Final = 1024**3


def python() -> Iterator[Finding]:
    """The interpreter and the system."""
    from llm_router import __version__  # noqa: PLC0415

    yield ok("router", f"llm-router {__version__}, Python {platform.python_version()} ({sys.executable})")


def clock() -> Iterator[Finding]:
    """Whether somebody keeps the clock right: logs, estimates and keys' times are read beside other machines'."""
    state: int | None = None
    with suppress(OSError, AttributeError):
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    if state == _TIME_ERROR:
        yield warn(
            "clock",
            "nobody keeps this machine's clock right",
            "switch on time synchronisation (timedatectl set-ntp true), unless the host of this machine does it",
        )
    elif state is not None and state >= 0:
        yield ok("clock", "the clock is synchronised")


def disk(folder: Path) -> Iterator[Finding]:
    """Room for logs and history where the state folder is, or will be."""
    place = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(place).free
    if free < SPARE:
        yield fail(
            "disk",
            f"only {free / _GIB:.1f} GiB are free for {folder}",
            "make room, or set `state_dir` under `server` to another disk",
        )
    else:
        yield ok("disk", f"{free / _GIB:.0f} GiB are free for {folder}")


def gpus(gauge: Gauge) -> Iterator[Finding]:
    """What the driver shows, and why it shows nothing where there is a driver."""
    if not gauge.gpus:
        yield _no_gpu()
        return
    version = gauge.driver()
    for gpu in gauge.gpus:
        used = gauge.used(gpu.id)
        text = f"GPU {gpu.index}: {gpu.name}, {gpu.total / _GIB:.0f} GiB"
        yield ok("gpu", text + (f", {used / _GIB:.1f} GiB in use" if used is not None else ""))
    if version is None and gauge.gpus[0].id.startswith(AMD):
        return
    yield ok("gpu", f"NVIDIA driver {version or 'of unknown version'}")
    if not Path("/dev/nvidia-uvm").exists():
        yield warn(
            "gpu",
            "/dev/nvidia-uvm is missing, which CUDA makes by a setuid program that a service may not use",
            "run nvidia-modprobe -u -c=0 at boot, or enable nvidia-persistenced",
        )


def _no_gpu() -> Finding:
    if Path("/proc/driver/nvidia/version").exists():
        return fail(
            "gpu",
            "the NVIDIA driver is loaded, but its library does not answer",
            "after an upgrade of the driver restart the machine; else see what nvidia-smi says",
        )
    memory = psutil.virtual_memory().total / _GIB
    cores = os.cpu_count() or 1
    return ok("gpu", f"no GPU by NVML: models run on the processor ({cores} cores, {memory:.0f} GiB of memory)")
