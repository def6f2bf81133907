"""What the systemd supervisor adds to the contract: byte-exact words, secrets, leftovers, lost buses and records."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvloop

from fakes.leftovers import nobody_below
from llm_router.core.words import InstanceId
from llm_router.engines.engine import FileToWrite, Launch
from llm_router.host.machine.logs import LogTail
from llm_router.host.supervisors import units
from llm_router.host.supervisors.manager import Manager
from llm_router.host.supervisors.supervisor import Exit, Handle, SupervisorError
from llm_router.host.supervisors.systemd import SystemdSupervisor
from support.router import chat, events, free_port, running, text_of
from support.services import shown, systemctl

pytestmark = pytest.mark.systemd

QWEN = InstanceId("qwen#8")
NOTE = {"model": "qwen"}
UNRULY = Path(__file__).parents[2] / "fakes" / "unruly.py"


@dataclass
class Bench:
    folder: Path
    made: list[SystemdSupervisor] = field(default_factory=list)

    def supervisor(self, state: str = "state") -> SystemdSupervisor:
        self.made.append(SystemdSupervisor(self.folder / state, Manager("system"), end_limit_s=5))
        return self.made[-1]

    def unruly(self, *words: str, **env: str) -> Launch:
        pids = str(self.folder / "pids")
        return Launch((sys.executable, "-I", "-S", str(UNRULY), pids, *words), env=env, cwd=str(self.folder))

    def unit(self) -> str:
        """The one unit of ours that systemd knows."""
        listed = systemctl("list-units", "--state=active", "--plain", "--no-legend", "llm-router-*").split()
        return next(word for word in listed if word.endswith(".service"))


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    yield made
    for supervisor in made.made:
        await supervisor.aclose()
    await nobody_below(tmp_path)


async def said(handle: Handle, word: str) -> list[str]:
    tail = LogTail(handle.log)
    lines: list[str] = []
    async with asyncio.timeout(30):
        while word not in lines:
            lines += tail.read_new()
            await asyncio.sleep(0.005)
    return lines


async def test_words_and_environment_arrive_byte_for_byte(bench: Bench) -> None:
    odd = ["$HOME", "${PATH}", "$$", "%n", '"quoted"', "back\\slash", "two words", "", "ünï", "a;b", "line\nbreak"]
    env = {"ODD": '$HOME "q" \\ `x` %n', "LINES": "one\ntwo", "EMPTY": "", "UMLAUT": "ü"}
    code = "import os, sys, json; print(json.dumps([sys.argv[1:], dict(os.environ)]), flush=True); print('ready')"
    supervisor = bench.supervisor()
    handle = await supervisor.start(QWEN, Launch((sys.executable, "-c", code, *odd), env=env), NOTE)
    words, environment = json.loads((await said(handle, "ready"))[0])
    assert words == odd
    assert {name: environment[name] for name in env} == env
    assert environment["LLM_ROUTER_INSTANCE"] == handle.token
    assert environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert "NOTIFY_SOCKET" not in environment
    await supervisor.watch(handle)


async def test_no_secret_is_to_be_seen_by_others(bench: Bench) -> None:
    supervisor = bench.supervisor()
    handle = await supervisor.start(QWEN, bench.unruly(VLLM_API_KEY="s3cret"), NOTE)
    everything = systemctl("show", bench.unit()) + systemctl("cat", bench.unit())
    assert "s3cret" not in everything
    for path in [bench.folder / "state" / "systemd" / "instances", *handle.log.parent.iterdir()]:
        assert path.stat().st_mode & 0o077 == 0, path
    await supervisor.stop(handle, 0)
    assert not (handle.log.parent / "environment").exists()


async def test_its_unit_is_in_the_routers_slice_and_named_for_people(bench: Bench) -> None:
    supervisor = bench.supervisor()
    handle = await supervisor.start(QWEN, bench.unruly(), NOTE)
    unit = bench.unit()
    assert "-qwen-8-" in unit
    assert shown(unit, "Slice") == units.SLICE
    assert shown(unit, "Description") == "llm-router: qwen#8"
    assert shown(unit, "KillMode") == "control-group"
    assert shown(unit, "MainPID") == str(handle.pid)
    assert int(shown(unit, "LimitNOFILE")) == units.OPEN_FILES
    await supervisor.stop(handle, 0)


async def test_all_it_started_is_known_and_ends_with_it(bench: Bench) -> None:
    supervisor = bench.supervisor()
    handle = await supervisor.start(QWEN, bench.unruly("child", "daemon", "bare", "deaf"), NOTE)
    await said(handle, "ready")
    assert supervisor.pids(handle) >= {int(pid) for pid in (bench.folder / "pids").read_text().split()}
    assert len(supervisor.pids(handle)) == 3
    assert await supervisor.stop(handle, 0.05) == Exit(-signal.SIGKILL, asked=True, killed=True)
    await nobody_below(bench.folder)


async def test_what_its_main_process_leaves_behind_is_killed_at_once(bench: Bench) -> None:
    supervisor = bench.supervisor()
    handle = await supervisor.start(QWEN, bench.unruly("daemon", "bare", "deaf", "gone"), NOTE)
    # systemd itself would wait for STOP_S.
    async with asyncio.timeout(units.STOP_S / 2):
        assert await supervisor.watch(handle) == Exit(3, asked=False, killed=True)
    await nobody_below(bench.folder)


ORDERLY = """
import os, signal, sys, time
child = os.fork()
def asked(*_):
    os.write(1, b"child asked\\n" if child == 0 else b"main asked\\n")
    if child:
        time.sleep(0.2)
        os.write(1, b"main ends\\n")
    os._exit(0)
signal.signal(signal.SIGTERM, asked)
if child:
    os.write(1, b"ready\\n")
while True:
    signal.pause()
"""


async def test_the_main_process_alone_is_asked_to_end(bench: Bench) -> None:
    supervisor = bench.supervisor()
    handle = await supervisor.start(QWEN, Launch((sys.executable, "-c", ORDERLY)), NOTE)
    await said(handle, "ready")
    assert await supervisor.stop(handle, 10) == Exit(0, asked=True, killed=False)
    assert handle.log.read_text().split("\n")[1:3] == ["main asked", "main ends"]


async def test_systemctl_stop_is_noticed_and_was_not_asked_for(bench: Bench) -> None:
    supervisor = bench.supervisor()
    handle = await supervisor.start(QWEN, bench.unruly(), NOTE)
    await said(handle, "ready")
    await asyncio.to_thread(systemctl, "stop", bench.unit())
    assert await supervisor.watch(handle) == Exit(-signal.SIGTERM, asked=False, killed=False)


async def test_an_ended_unit_is_forgotten_by_systemd(bench: Bench) -> None:
    supervisor = bench.supervisor()
    handle = await supervisor.start(QWEN, bench.unruly("gone"), NOTE)
    await supervisor.watch(handle)
    async with asyncio.timeout(30):
        while systemctl("list-units", "--all", "--plain", "--no-legend", "llm-router-*.service"):
            await asyncio.sleep(0.01)


async def test_a_restart_of_the_bus_is_survived(bench: Bench) -> None:
    supervisor = bench.supervisor()
    staying = await supervisor.start(QWEN, bench.unruly(), NOTE)
    ending = await supervisor.start(InstanceId("ending#9"), bench.unruly(), NOTE)
    watching = asyncio.create_task(supervisor.watch(ending))  # noqa: TID251
    await said(staying, "ready")
    # As a package's upgrade does it; the new bus is started by its socket.
    os.kill(int(shown("dbus.service", "MainPID")), signal.SIGKILL)
    os.kill(ending.pid, signal.SIGKILL)
    async with asyncio.timeout(30):
        assert (await watching).code in (-signal.SIGKILL, None)
        assert staying.pid in supervisor.pids(staying)
        assert await supervisor.find() == [staying]
        another = await supervisor.start(InstanceId("another#10"), bench.unruly(), NOTE)
        await supervisor.stop(another, 0)
        await said(staying, "ready")
        assert await supervisor.stop(staying, 5) == Exit(-signal.SIGTERM, asked=True, killed=False)


async def test_a_unit_whose_record_is_lost_is_ended(bench: Bench) -> None:
    handle = await bench.supervisor().start(QWEN, bench.unruly(), NOTE)
    other = await bench.supervisor("other").start(QWEN, bench.unruly(), NOTE)
    shutil.rmtree(handle.log.parent)
    assert await bench.supervisor().find() == []
    assert not Path(f"/proc/{handle.pid}").exists()
    assert Path(f"/proc/{other.pid}").exists()
    await bench.supervisor("other").stop(other, 0)


async def test_a_record_that_cannot_be_read_ends_its_unit(bench: Bench) -> None:
    handle = await bench.supervisor().start(QWEN, bench.unruly(), NOTE)
    (handle.log.parent / "launch").write_text("{")
    assert await bench.supervisor().find() == []
    assert not Path(f"/proc/{handle.pid}").exists()


async def test_an_end_while_nobody_looked_is_found_by_the_next(bench: Bench) -> None:
    first = bench.supervisor()
    handle = await first.start(QWEN, bench.unruly(), NOTE)
    await said(handle, "ready")
    await first.aclose()
    os.kill(handle.pid, signal.SIGKILL)
    successor = bench.supervisor()
    async with asyncio.timeout(30):
        while await successor.find():
            await asyncio.sleep(0.01)
    assert await successor.watch(handle) == Exit(-signal.SIGKILL, asked=False, killed=False)


def missing_interpreter(folder: Path) -> Launch:
    script = folder / "moved"
    script.write_text("#!/nowhere/venv/bin/python\n")
    script.chmod(0o755)
    return Launch((str(script),))


def noise(folder: Path) -> Launch:
    program = folder / "noise"
    program.write_bytes(b"\x00\x01\x02\x03 not a program")
    program.chmod(0o755)
    return Launch((str(program),))


@pytest.mark.parametrize(
    ("broken", "text"),
    [
        (lambda _: Launch(("no-such-engine",)), "there is no program no-such-engine in PATH"),
        (lambda folder: Launch(("/bin/true",), cwd=str(folder / "absent")), r"its working directory \S+/absent cannot"),
        (lambda folder: Launch((str(folder),)), r"may not be executed"),
        (missing_interpreter, "but not the interpreter"),
        (noise, "exec format error"),
        (lambda _: Launch(("/bin/true", "a\0b")), "NUL character"),
        (lambda _: Launch(("/bin/true",), files=(FileToWrite("relative", b""),)), "must be absolute"),
    ],
)
async def test_a_start_that_fails_says_why(bench: Bench, broken: Callable[[Path], Launch], text: str) -> None:
    supervisor = bench.supervisor()
    launch = broken(bench.folder)
    if launch.files:
        launch = Launch(launch.argv, files=launch.files)
    with pytest.raises(SupervisorError, match=f"^cannot start qwen#8: .*{text}"):
        await supervisor.start(QWEN, launch, NOTE)
    assert await supervisor.find() == []
    assert systemctl("list-units", "--all", "--plain", "--no-legend", "llm-router-*.service") == ""


def test_it_works_on_uvloop(tmp_path: Path) -> None:
    async def story() -> None:
        bench = Bench(tmp_path)
        supervisor = bench.supervisor()
        handle = await supervisor.start(QWEN, bench.unruly(), NOTE)
        await said(handle, "ready")
        assert (await supervisor.stop(handle, 5)).code == -signal.SIGTERM
        await supervisor.aclose()

    uvloop.run(story())


def test_a_plain_account_is_told_what_it_lacks(tmp_path: Path) -> None:
    program = (
        "import asyncio, pathlib\n"
        "from llm_router.engines.engine import Launch\n"
        "from llm_router.host.supervisors.manager import Manager\n"
        "from llm_router.host.supervisors.systemd import SystemdSupervisor\n"
        "async def main(way):\n"
        "    supervisor = SystemdSupervisor(pathlib.Path('/var/tmp/plain'), Manager('system'), way)\n"
        "    try:\n"
        "        await supervisor.start('q#1', Launch(('/bin/true',), cwd='/'), {})\n"
        "    except Exception as error:\n"
        "        print(type(error).__name__, error)\n"
        "    await supervisor.aclose()\n"
        "asyncio.run(main('transient')); asyncio.run(main('template'))\n"
    )
    words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c", program]
    done = subprocess.run(words, check=True, capture_output=True, text=True, cwd="/")
    transient, template = done.stdout.splitlines()
    assert transient.startswith("SupervisorError cannot start q#1: systemd does not let this account start llm-router-")
    assert "supervisor: child" in transient
    assert "llm-router install" in template


@pytest.mark.slow
def test_a_router_is_killed_and_the_next_one_goes_on_with_its_engines(
    tmp_path: Path, shelf: Callable[..., Path]
) -> None:
    fake = [sys.executable, str(UNRULY.with_name("llamacpp.py"))]
    config = {
        "server": {"port": free_port(), "supervisor": "systemd"},
        "backends": {"llamacpp": {"command": fake, "env": {"PYTHONPATH": str(UNRULY.parents[1])}}},
        "models": {"alpha": {"backend": "llamacpp", "path": str(shelf("alpha"))}},
    }

    def ask() -> str:
        with router.client() as client, client.stream("POST", "/v1/chat/completions", json=chat("alpha")) as response:
            return text_of(list(events(response)))

    with running(tmp_path, config, leave=True) as router:
        assert ask(), router.log
        unit = Bench(tmp_path).unit()
        before = shown(unit, "MainPID")
        router.stop(signal.SIGKILL)
    assert shown(unit, "MainPID") == before
    with running(tmp_path, config) as router:
        assert ask(), router.log
        assert shown(unit, "MainPID") == before
        assert "Adopted" in router.log
    assert systemctl("list-units", "--plain", "--no-legend", "llm-router-*.service") == ""
