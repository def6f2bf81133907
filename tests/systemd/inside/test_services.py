"""The operator's units one by one: started, replaced, refused, taken over; what a person is told."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fakes.leftovers import nobody_below
from llm_router.core.words import InstanceId
from llm_router.engines.engine import Edit, Launch, Somewhere
from llm_router.host.machine.logs import LogTail
from llm_router.host.supervisors import packaging
from llm_router.host.supervisors.manager import Manager, RefusedError
from llm_router.host.supervisors.service import ServiceSupervisor
from llm_router.host.supervisors.supervisor import Exit, Handle, SupervisorError
from support.services import shown, systemctl

pytestmark = pytest.mark.systemd

QWEN, NOTE = InstanceId("qwen#8"), {"model": "qwen"}
UNIT = "engine.service"
DROP_INS = Path("/run/systemd/system")
UNRULY = Path(__file__).parents[2] / "fakes" / "unruly.py"


@dataclass
class Bench:
    folder: Path
    made: list[ServiceSupervisor] = field(default_factory=list)

    def supervisor(self, manager: type[Manager] = Manager) -> ServiceSupervisor:
        self.made.append(ServiceSupervisor(self.folder / "state", manager("system"), DROP_INS, end_limit_s=5))
        return self.made[-1]

    def words(self, *words: str) -> list[str]:
        return [sys.executable, "-I", "-S", str(UNRULY), str(self.folder / "pids"), *words]

    def unit(self, *words: str, extra: str = "", command: str = "") -> None:
        text = (
            f"[Service]\nWorkingDirectory={self.folder}\nExecStart={command or ' '.join(self.words(*words))}\n{extra}\n"
        )
        Path("/etc/systemd/system", UNIT).write_text(text)
        systemctl("daemon-reload")

    def script(self, *words: str) -> Launch:
        path = self.folder / "start.sh"
        path.write_text(f"#!/bin/sh\nexec {' '.join(self.words(*words))}\n")
        path.chmod(0o755)
        return Launch((str(path), "$HOME", "100%", "two words"), unit=UNIT)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    yield made
    await asyncio.to_thread(subprocess.run, ["systemctl", "stop", UNIT], check=False, capture_output=True)
    for supervisor in made.made:
        await supervisor.aclose()
    (DROP_INS / f"{UNIT}.d" / "50-llm-router.conf").unlink(missing_ok=True)
    Path("/etc/systemd/system", UNIT).unlink(missing_ok=True)
    await nobody_below(tmp_path)


async def said(handle: Handle, word: str = "ready") -> None:
    tail = LogTail(handle.log)
    async with asyncio.timeout(30):
        while word not in tail.read_new():
            await asyncio.sleep(0.01)


async def test_the_units_own_command_is_started_and_stopped(bench: Bench) -> None:
    bench.unit("child")
    supervisor = bench.supervisor()
    handle = await supervisor.start(QWEN, Launch((), unit=UNIT), NOTE)
    await said(handle)
    assert str(handle.pid) == shown(UNIT, "MainPID")
    assert len(supervisor.pids(handle)) == 2
    assert await supervisor.find() == [handle]
    assert await supervisor.stop(handle, 5) == Exit(-signal.SIGTERM, asked=True, killed=False)
    assert shown(UNIT, "ActiveState") == "inactive"
    assert await supervisor.find() == []


async def test_a_script_replaces_the_command_by_a_drop_in_with_its_words_as_they_are(bench: Bench) -> None:
    bench.unit()
    unit_file = Path("/etc/systemd/system", UNIT).read_text()
    # Somebody keeps the unit loaded, as units that depend on it do: it is not read anew by itself.
    somebody = Manager("system")
    await somebody.hold(UNIT)
    supervisor = bench.supervisor()
    launch = bench.script("stdin")
    Path(launch.argv[0]).write_text('#!/bin/sh\nprintf "<%s>" "$@"; echo; echo ready; exec sleep 1000\n')
    handle = await supervisor.start(QWEN, launch, NOTE)
    await said(handle, "<$HOME><100%><two words>")
    assert Path("/etc/systemd/system", UNIT).read_text() == unit_file
    await supervisor.stop(handle, 5)
    plain = await supervisor.start(InstanceId("other#9"), Launch((), unit=UNIT), NOTE)
    assert not (DROP_INS / f"{UNIT}.d" / "50-llm-router.conf").exists()
    assert "unruly.py" in shown(UNIT, "ExecStart")
    await supervisor.stop(plain, 5)
    await somebody.aclose()


async def test_a_deaf_unit_is_killed_after_the_grace_and_is_not_left_failed(bench: Bench) -> None:
    bench.unit("deaf", "daemon", "bare")
    supervisor = bench.supervisor()
    handle = await supervisor.start(QWEN, Launch((), unit=UNIT), NOTE)
    await said(handle)
    assert await supervisor.stop(handle, 0.1) == Exit(-signal.SIGKILL, asked=True, killed=True)
    async with asyncio.timeout(30):
        while shown(UNIT, "ActiveState") != "inactive":
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("restart", ["no", "always"])
async def test_an_end_by_itself_is_the_end(bench: Bench, restart: str) -> None:
    bench.unit("gone", "daemon", extra=f"Restart={restart}\nRestartSec=50ms")
    supervisor = bench.supervisor()
    handle = await supervisor.start(QWEN, Launch((), unit=UNIT), NOTE)
    assert await supervisor.watch(handle) == Exit(3, asked=False, killed=False)
    await asyncio.sleep(0.15)
    assert shown(UNIT, "ActiveState") in {"failed", "inactive"}
    assert "ready" in handle.log.read_text().splitlines()


async def test_the_operators_stop_and_restart_are_noticed(bench: Bench) -> None:
    bench.unit()
    supervisor = bench.supervisor()
    for verb in ("stop", "restart"):
        handle = await supervisor.start(QWEN, Launch((), unit=UNIT), NOTE)
        await said(handle)
        await asyncio.to_thread(systemctl, verb, UNIT)
        ended = await supervisor.watch(handle)
        assert not ended.asked
        async with asyncio.timeout(30):
            while shown(UNIT, "ActiveState") != "inactive":
                await asyncio.sleep(0.01)


async def test_the_next_router_takes_it_over_with_its_log(bench: Bench) -> None:
    bench.unit("flood")
    first = bench.supervisor()
    handle = await first.start(QWEN, Launch((), unit=UNIT), NOTE)
    await said(handle)
    whole = handle.log.read_text()
    await first.aclose()
    successor = bench.supervisor()
    assert await successor.find() == [handle]
    assert handle.pid in successor.pids(handle)
    await said(handle)
    assert handle.log.read_text() == whole
    assert await successor.unclaimed([UNIT]) == []
    assert await successor.stop(handle, 5) == Exit(-signal.SIGTERM, asked=True, killed=False)


async def test_a_unit_that_was_restarted_meanwhile_is_nobodys(bench: Bench) -> None:
    bench.unit()
    first = bench.supervisor()
    handle = await first.start(QWEN, Launch((), unit=UNIT), NOTE)
    await first.aclose()
    await asyncio.to_thread(systemctl, "restart", UNIT)
    successor = bench.supervisor()
    assert await successor.find() == []
    assert [one.unit for one in await successor.unclaimed([UNIT])] == [UNIT]
    assert await successor.watch(handle) == Exit(None, asked=False, killed=False)


async def test_a_running_unit_is_claimed_or_makes_room(bench: Bench) -> None:
    bench.unit()
    systemctl("start", UNIT)
    supervisor = bench.supervisor()
    (one,) = await supervisor.unclaimed([UNIT])
    assert one.state.argv[-1].endswith("pids")
    handle = await supervisor.claim(QWEN, UNIT, NOTE)
    assert handle is not None
    assert str(handle.pid) == shown(UNIT, "MainPID")
    await supervisor.vacate([UNIT])
    assert shown(UNIT, "ActiveState") == "active"
    await supervisor.stop(handle, 5)
    systemctl("start", UNIT)
    await supervisor.vacate([UNIT])
    assert shown(UNIT, "ActiveState") == "inactive"


async def test_a_start_replaces_a_run_that_nobody_claimed(bench: Bench) -> None:
    bench.unit()
    systemctl("start", UNIT)
    before = shown(UNIT, "MainPID")
    supervisor = bench.supervisor()
    handle = await supervisor.start(QWEN, bench.script(), NOTE)
    assert str(handle.pid) != before
    await supervisor.stop(handle, 5)


async def test_a_unit_that_tells_when_it_serves_is_followed_from_its_beginning(bench: Bench) -> None:
    bench.unit(extra="Type=notify\nTimeoutStartSec=100")
    supervisor = bench.supervisor()
    async with asyncio.timeout(30):
        handle = await supervisor.start(QWEN, Launch((), unit=UNIT), NOTE)
    assert shown(UNIT, "ActiveState") == "activating"
    await said(handle)
    assert (await supervisor.stop(handle, 5)).asked


async def test_a_unit_that_was_in_the_way_and_had_to_be_killed_is_not_left_failed(bench: Bench) -> None:
    bench.unit("deaf", extra="TimeoutStopSec=200ms")
    systemctl("start", UNIT)
    async with asyncio.timeout(30):
        # Written once it is deaf.
        while not (bench.folder / "pids").exists():
            await asyncio.sleep(0.01)
    await bench.supervisor().vacate([UNIT])
    assert shown(UNIT, "ActiveState") == "inactive"


class PlainManager(Manager):
    """As for an account that the rule of the installer lets steer its units, and nothing else."""

    async def call(self, member: str, signature: str = "", *body: Any) -> list[Any]:
        if member == "Reload":
            raise RefusedError("not allowed")
        return await super().call(member, signature, *body)


@pytest.mark.parametrize("manager", [Manager, PlainManager])
async def test_it_starts_again_after_the_units_own_limit_of_starts(bench: Bench, manager: type[Manager]) -> None:
    bench.unit("gone", extra="[Unit]\nStartLimitBurst=2\nStartLimitIntervalSec=100")
    supervisor = bench.supervisor(manager)
    for _ in range(4):
        handle = await supervisor.start(QWEN, Launch((), unit=UNIT), NOTE)
        assert (await supervisor.watch(handle)).code == 3


async def test_what_is_missing_is_named(bench: Bench) -> None:
    supervisor = bench.supervisor()
    bench.unit()
    launch = bench.script()

    async def refused(launch: Launch) -> str:
        with pytest.raises(SupervisorError) as caught:
            await supervisor.start(QWEN, launch, NOTE)
        return str(caught.value)

    assert "there is no such unit; correct `service`" in await refused(Launch((), unit="no-such.service"))
    assert "there is no script /nowhere.sh; correct `script`" in await refused(Launch(("/nowhere.sh",), unit=UNIT))
    Path(launch.argv[0]).chmod(0o644)
    assert "chmod +x" in await refused(launch)
    bench.unit(command="/nowhere/engine")
    handle = await supervisor.start(QWEN, Launch((), unit=UNIT), NOTE)
    assert (await supervisor.watch(handle)).code == 203
    assert "No such file or directory" in handle.log.read_text()
    bench.unit(command="/nowhere/engine", extra="Type=exec")
    assert "exit code 203" in (said := await refused(Launch((), unit=UNIT)))
    assert "No such file or directory" in said
    systemctl("mask", "--runtime", "masked.service")
    assert "systemctl unmask masked.service" in await refused(Launch((), unit="masked.service"))
    edit = Edit(Somewhere("config.yml", "/nowhere/config.yml"), ((("model", "model_name"), "x"),))
    assert "cannot find /nowhere/config.yml" in await refused(Launch((), unit=UNIT, edit=edit))


async def test_an_edit_is_made_in_the_units_own_folder_before_its_start(bench: Bench) -> None:
    bench.unit()
    place = bench.folder / "config.yml"
    place.write_text("model:\n  model_name: old  # this one\n")
    edit = Edit(Somewhere("config.yml"), ((("model", "model_name"), "new"),))
    supervisor = bench.supervisor()
    handle = await supervisor.start(QWEN, Launch((), unit=UNIT, edit=edit), NOTE)
    assert place.read_text() == "model:\n  model_name: new  # this one\n"
    await supervisor.stop(handle, 5)


def test_a_plain_account_needs_the_rule_and_may_do_what_it_allows(bench: Bench) -> None:
    """Refused without it, with a sentence that names it; allowed for this unit with it, and for no other."""
    bench.unit()
    program = (
        "import asyncio, json, pathlib, sys\n"
        "from llm_router.engines.engine import Launch\n"
        "from llm_router.host.supervisors.manager import Manager\n"
        "from llm_router.host.supervisors.service import ServiceSupervisor\n"
        "async def main():\n"
        "    supervisor = ServiceSupervisor(pathlib.Path('/var/tmp/plain'), Manager('system'), pathlib.Path('/run/systemd/system'))\n"
        "    said = []\n"
        "    for launch in (Launch((), unit='engine.service'), Launch(('/bin/true',), unit='engine.service')):\n"
        "        try:\n"
        "            handle = await supervisor.start('q#1', launch, {})\n"
        "            said.append(repr(await supervisor.stop(handle, 5)))\n"
        "        except Exception as error:\n"
        "            said.append(str(error))\n"
        "    await supervisor.aclose()\n"
        "    print(json.dumps(said))\n"
        "asyncio.run(main())\n"
    )
    plain = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c", program]

    def attempt() -> list[str]:
        said: list[str] = json.loads(subprocess.run(plain, check=True, capture_output=True, text=True, cwd="/").stdout)
        return said

    start, script = attempt()
    assert start.startswith("cannot start q#1: systemd does not let this account steer engine.service")
    assert "50-llm-router.rules" in start
    assert "this account may not write /run/systemd/system" in script
    packaging.RULE_PLACE.parent.mkdir(parents=True, exist_ok=True)
    packaging.RULE_PLACE.write_text(packaging.rule("nobody", ["engine"]))
    # polkitd takes a new rule up by itself, in its own time; started anew it has it.
    subprocess.run(["systemctl", "restart", "polkit.service"], check=True)
    try:
        start, script = attempt()
        assert start.startswith("Exit(code=-15, asked=True"), start
        assert "may not write" in script
    finally:
        packaging.RULE_PLACE.unlink()
    assert os.geteuid() == 0
