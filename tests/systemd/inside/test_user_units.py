"""Units of an account's own user manager: no root, no polkit, the same supervisor."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.leftovers import nobody_below
from llm_router.core.words import InstanceId
from llm_router.engines.engine import Launch
from llm_router.host.supervisors.manager import Manager
from llm_router.host.supervisors.preparing import drop_in_folder
from llm_router.host.supervisors.service import ServiceSupervisor
from llm_router.host.supervisors.supervisor import Exit

pytestmark = pytest.mark.systemd

UNRULY = Path(__file__).parents[2] / "fakes" / "unruly.py"


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """The command of a unit in the account's own folder."""
    command = [sys.executable, "-I", "-S", str(UNRULY), str(tmp_path / "pids")]
    folder = Path.home() / ".config/systemd/user"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "engine.service").write_text(f"[Service]\nExecStart={' '.join(command)}\n")
    subprocess.run(["systemctl", "--user", "daemon-reload"], check=True)
    return command


async def test_an_accounts_own_unit_is_replaced_started_and_stopped(tmp_path: Path, words: list[str]) -> None:
    script = tmp_path / "start.sh"
    script.write_text(f"#!/bin/sh\nexec {' '.join(words)} child\n")
    script.chmod(0o755)
    supervisor = ServiceSupervisor(tmp_path / "state", Manager("user"), drop_in_folder("user", "run", os.environ))
    for launch, processes in (
        (Launch((), unit="engine.service"), 1),
        (Launch((str(script),), unit="engine.service"), 2),
    ):
        handle = await supervisor.start(InstanceId("qwen#1"), launch, {"model": "qwen"})
        async with asyncio.timeout(30):
            while len(supervisor.pids(handle)) < processes:
                await asyncio.sleep(0.01)
        assert await supervisor.find() == [handle]
        assert await supervisor.stop(handle, 5) == Exit(-signal.SIGTERM, asked=True, killed=False)
    await supervisor.aclose()
    await nobody_below(tmp_path)
