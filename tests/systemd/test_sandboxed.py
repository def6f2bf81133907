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


#: Files that are not for root.
WAY_OF = {"test_user_units.py": "user"}


def no_sandbox(reason: str) -> None:
    """Skip, except where the project's own checks run as root: there it must work."""
    if os.environ.get("CI") and os.geteuid() == 0:
        pytest.fail(f"no sandbox in CI: {reason}")
    pytest.skip(f"no sandbox here: {reason}")


def run_inside(way: str, *tests: Path) -> None:
    """Run tests inside; skipped where no systemd can be booted."""
    if reason := why_not():
        no_sandbox(reason)
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
    if done.returncode == NO_SANDBOX:
        no_sandbox(done.stderr.strip().rpartition("\n")[2])
    assert done.returncode == 0, f"inside:\n{said}"
    assert " passed" in said


@pytest.mark.parametrize("way", WAYS)
def test_the_contract_of_supervisors_is_kept(way: str) -> None:
    run_inside(way, TESTS / "contracts")


@pytest.mark.parametrize("file", FILES)
def test_inside(file: str) -> None:
    run_inside(WAY_OF.get(file, "system"), TESTS / "systemd" / "inside" / file)


def test_this_process_is_outside() -> None:
    assert INSIDE not in os.environ
