"""Runs the tests that need a systemd of their own, each file inside a freshly booted one.

What is collected inside stands in tests/systemd/inside and in tests/contracts; its report is the failure's text.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.systemd_sandbox import INSIDE, NO_SANDBOX, why_not

pytestmark = [pytest.mark.systemd, pytest.mark.slow, pytest.mark.timeout(300)]

TESTS = Path(__file__).parents[1]
SANDBOX = TESTS / "support" / "systemd_sandbox.py"
#: The suite of all supervisors, once for each way to have systemd start something.
WAYS = ("system", "user", "template")
FILES = sorted(path.name for path in (TESTS / "systemd" / "inside").glob("test_*.py"))


def run_inside(way: str, *tests: Path) -> None:
    """Run tests inside; skipped where no systemd can be booted, which as root it must be."""
    reason = why_not()
    if reason:
        pytest.skip(f"no sandbox here: {reason}")
    options = ("-q", "-p", "no:cacheprovider", "--basetemp=/var/tmp/inside")
    pytest_words = [sys.executable, "-m", "pytest", *options, *map(str, tests)]
    done = subprocess.run(
        [sys.executable, str(SANDBOX), "--way", way, *pytest_words],
        check=False,
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        timeout=280,
    )
    said = done.stdout + done.stderr
    assert done.returncode != NO_SANDBOX, said
    assert done.returncode == 0, f"inside:\n{said}"
    assert " passed" in said


@pytest.mark.parametrize("way", WAYS)
def test_the_contract_of_supervisors_is_kept(way: str) -> None:
    run_inside(way, TESTS / "contracts")


@pytest.mark.parametrize("file", FILES)
def test_inside(file: str) -> None:
    run_inside("system", TESTS / "systemd" / "inside" / file)


def test_this_process_is_outside() -> None:
    assert INSIDE not in os.environ
