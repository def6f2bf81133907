"""Vitals of real processes: they grow with what is done, and the dead have none."""

import os
import subprocess
import sys
from pathlib import Path

from llm_router.host.machine.vitals import vitals_of


def test_our_own_vitals_grow_with_reading_and_computing(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(bytes(5_000_000))
    before = vitals_of([os.getpid()])
    assert before is not None
    while sum(os.times()[:2]) < before.cpu_s + 0.02:
        file.read_bytes()
    after = vitals_of([os.getpid()])
    assert after is not None
    assert after.read >= before.read + 5_000_000
    assert after.cpu_s > before.cpu_s
    assert after.resident > 1_000_000


def test_the_dead_have_none_and_do_not_count() -> None:
    child = subprocess.Popen([sys.executable, "-S", "-c", ""])
    child.wait()
    assert vitals_of([child.pid]) is None
    assert vitals_of([]) is None
    both = vitals_of([child.pid, os.getpid()], gpu=True)
    assert both is not None
    assert both.gpu


def test_several_are_summed() -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as child:
        one, two = vitals_of([os.getpid()]), vitals_of([os.getpid(), child.pid])
        assert one is not None
        assert two is not None
        assert two.resident > one.resident
        child.communicate(b"\n")
