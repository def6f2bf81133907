"""Who outlives whom: the guard with real processes, real signals and real deaths of the router."""

import ast
import asyncio
import errno
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from fakes.children import SMALL, Bench
from fakes.leftovers import nobody_below
from llm_router.engines.engine import Launch
from llm_router.host.machine import processes
from llm_router.host.supervisors import guard, launching
from llm_router.host.supervisors.records import Folder
from llm_router.host.supervisors.supervisor import Exit, Handle

FAMILY = ("child", "daemon")


def guard_pid(bench: Bench, handle: Handle) -> int:
    pid: int = json.loads((bench.place(handle) / "run").read_text())["guard"]["pid"]
    return pid


async def dead(*pids: int) -> None:
    async with asyncio.timeout(10):
        while any(processes.is_alive(pid) for pid in pids):
            await asyncio.sleep(0.002)


def task_of(bench: Bench, folder: Folder) -> dict[str, object]:
    rest: dict[str, object] = {"env": {}, "cwd": None, "policy": "keep", "grace_s": 5.0, "log_limit": 0}
    return {"token": folder.token, "argv": bench.unruly("deaf").argv, "log": str(folder.log), **rest}


def test_it_needs_nothing_but_the_standard_library() -> None:
    tree = ast.parse(Path(guard.__file__).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names <= sys.stdlib_module_names


@pytest.mark.parametrize("words", [FAMILY, ("daemon", "bare"), (*FAMILY, "bare")], ids="+".join)
async def test_a_stop_ends_the_whole_family(bench: Bench, words: tuple[str, ...]) -> None:
    supervisor = bench.supervisor()
    handle = await bench.start(supervisor, *words)
    family = bench.pids()
    assert len(family) > 1
    assert supervisor.pids(handle) >= family
    ended = await supervisor.stop(handle, 5)
    assert (ended.code, ended.asked) == (-signal.SIGTERM, True)
    assert bench.alive() == set()


async def test_those_who_outlive_the_leader_may_tidy_up(bench: Bench) -> None:
    supervisor = bench.supervisor()
    handle = await bench.start(supervisor, "daemon", "tidy")
    assert await supervisor.stop(handle, 5) == Exit(-signal.SIGTERM, asked=True, killed=False)
    assert "tidied" in handle.log.read_text()


async def test_a_deaf_family_is_killed_after_the_grace(bench: Bench) -> None:
    supervisor = bench.supervisor()
    handle = await bench.start(supervisor, *FAMILY, "bare", "deaf")
    began = time.monotonic()
    assert await supervisor.stop(handle, 0.1) == Exit(-signal.SIGKILL, asked=True, killed=True)
    assert time.monotonic() - began >= 0.1
    assert bench.alive() == set()


@pytest.mark.slow
async def test_a_slow_leader_gets_the_time_it_needs(bench: Bench) -> None:
    supervisor = bench.supervisor()
    handle = await bench.start(supervisor, "slow")
    assert await supervisor.stop(handle, 5) == Exit(0, asked=True, killed=False)


async def test_a_leader_that_ends_by_itself_leaves_nobody(bench: Bench) -> None:
    supervisor = bench.supervisor()
    handle = await supervisor.start(SMALL, bench.unruly(*FAMILY, "bare", "gone"), {})
    assert await supervisor.watch(handle) == Exit(3, asked=False, killed=True)
    assert bench.alive() == set()


async def test_a_leader_that_is_killed_leaves_nobody(bench: Bench) -> None:
    supervisor = bench.supervisor()
    handle = await bench.start(supervisor, *FAMILY)
    os.kill(handle.pid, signal.SIGKILL)
    assert await supervisor.watch(handle) == Exit(-signal.SIGKILL, asked=False, killed=True)
    assert bench.alive() == set()


@pytest.mark.slow
async def test_the_router_is_killed_and_the_engine_dies_with_it(bench: Bench) -> None:
    router, handle = await bench.router("die", 5, *FAMILY, "bare")
    router.kill()
    await nobody_below(bench.folder)
    assert json.loads((bench.place(handle) / "exit").read_text())["code"] == -signal.SIGTERM


@pytest.mark.slow
async def test_the_router_is_killed_and_a_deaf_engine_dies_after_its_grace(bench: Bench) -> None:
    router, handle = await bench.router("die", 0.2, *FAMILY, "deaf")
    router.kill()
    await nobody_below(bench.folder)
    ended = json.loads((bench.place(handle) / "exit").read_text())
    assert (ended["code"], ended["killed"]) == (-signal.SIGKILL, True)


@pytest.mark.slow
async def test_the_router_is_killed_and_the_engine_is_adopted(bench: Bench) -> None:
    router, handle = await bench.router("keep", 5, *FAMILY, "bare")
    router.kill()
    router.wait()
    supervisor = bench.supervisor()
    assert await supervisor.find() == [handle]
    assert supervisor.pids(handle) >= bench.pids()
    ended = await supervisor.stop(handle, 5)
    assert (ended.code, ended.asked) == (-signal.SIGTERM, True)
    assert bench.alive() == set()


@pytest.mark.slow
async def test_the_exit_code_is_kept_while_no_router_is_there(bench: Bench) -> None:
    router, handle = await bench.router("keep", 5, *FAMILY)
    router.kill()
    router.wait()
    os.kill(handle.pid, signal.SIGINT)
    await nobody_below(bench.folder)
    supervisor = bench.supervisor()
    assert await supervisor.find() == []
    assert await supervisor.watch(handle) == Exit(-signal.SIGINT, asked=False, killed=True)


@pytest.mark.slow
async def test_the_next_router_does_not_wait_for_a_condemned_engine(bench: Bench) -> None:
    router, handle = await bench.router("die", 100, *FAMILY, "deaf")
    router.kill()
    router.wait()
    supervisor = bench.supervisor()
    assert await supervisor.find() == []
    assert bench.alive() == set()
    assert await supervisor.watch(handle) == Exit(-signal.SIGKILL, asked=True, killed=True)


@pytest.mark.slow
async def test_the_engine_of_a_living_router_is_left_alone(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    _, handle = await bench.router("keep", 5)
    assert await bench.supervisor().find() == []
    assert "another router" in caplog.text
    assert bench.alive() == {handle.pid}
    os.kill(handle.pid, signal.SIGKILL)


async def test_the_guard_is_killed_while_a_router_is_there(bench: Bench) -> None:
    supervisor = bench.supervisor()
    handle = await bench.start(supervisor, *FAMILY)
    os.kill(guard_pid(bench, handle), signal.SIGKILL)
    assert await supervisor.watch(handle) == Exit(None, asked=False, killed=True)
    assert bench.alive() == set()
    assert await bench.supervisor().watch(handle) == Exit(None, asked=False, killed=True)


@pytest.mark.slow
async def test_the_guard_is_killed_while_no_router_is_there(bench: Bench) -> None:
    router, handle = await bench.router("keep", 5, *FAMILY)
    router.kill()
    router.wait()
    os.kill(guard_pid(bench, handle), signal.SIGKILL)
    await dead(handle.pid)
    assert bench.alive(), "the daemon lives on"
    supervisor = bench.supervisor()
    assert await supervisor.find() == []
    assert bench.alive() == set()
    assert await supervisor.watch(handle) == Exit(None, asked=False, killed=True)


@pytest.mark.slow
async def test_a_guard_that_hangs_is_replaced_by_the_router(bench: Bench) -> None:
    supervisor = bench.supervisor()
    handle = await bench.start(supervisor, "deaf", *FAMILY)
    os.kill(guard_pid(bench, handle), signal.SIGSTOP)
    supervisor._end_limit_s = 0.1
    ended = await supervisor.stop(handle, 0.1)
    assert (ended.code, ended.asked) == (-signal.SIGKILL, True)
    assert bench.alive() == set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_to_the_guard_ends_its_engine_politely(bench: Bench, number: signal.Signals) -> None:
    supervisor = bench.supervisor()
    handle = await bench.start(supervisor)
    os.kill(guard_pid(bench, handle), number)
    assert await supervisor.watch(handle) == Exit(-signal.SIGTERM, asked=True, killed=False)


async def test_it_has_a_session_of_its_own_and_so_has_the_engine(bench: Bench) -> None:
    supervisor = bench.supervisor()
    handle = await bench.start(supervisor)
    pid = guard_pid(bench, handle)
    assert os.getsid(pid) == pid
    assert os.getsid(handle.pid) == handle.pid
    await supervisor.stop(handle, 0)


async def test_it_ends_soon_after_its_engine(bench: Bench) -> None:
    supervisor = bench.supervisor()
    handle = await bench.start(supervisor)
    pid = guard_pid(bench, handle)
    await supervisor.stop(handle, 5)
    assert not processes.is_alive(pid)


async def test_the_engine_holds_no_file_of_the_router(bench: Bench) -> None:
    read_end, write_end = os.pipe()
    os.set_inheritable(write_end, True)
    supervisor = bench.supervisor()
    handle = await bench.start(supervisor)
    os.close(write_end)
    for pid in (handle.pid, guard_pid(bench, handle)):
        targets = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
        assert f"pipe:[{os.fstat(read_end).st_ino}]" not in targets
    engine = {entry.name: str(entry.readlink()) for entry in Path(f"/proc/{handle.pid}/fd").iterdir()}
    assert engine == {"0": "/dev/null", "1": str(handle.log), "2": str(handle.log)}
    os.close(read_end)
    await supervisor.stop(handle, 0)


async def test_the_engine_reads_nothing(bench: Bench) -> None:
    supervisor = bench.supervisor()
    handle = await bench.start(supervisor, "stdin")
    assert handle.log.read_text() == "read b''\nready\n"
    await supervisor.stop(handle, 0)


async def test_the_engine_starts_with_ordinary_signals(bench: Bench) -> None:
    supervisor = bench.supervisor()
    shell = Launch(("/bin/sh", "-c", f"exec grep -E '^Sig(Ign|Blk)' /proc/self/status # {bench.folder}"))
    handle = await supervisor.start(SMALL, shell, {})
    await supervisor.watch(handle)
    # 32 and 33 are the C library's own: glibc's posix_spawn ignores them, and its threads set them when needed.
    ordinary = [int(line.split()[1], 16) & 0x7FFFFFFF for line in handle.log.read_text().splitlines()]
    assert ordinary == [0, 0]


def test_a_log_above_its_limit_is_moved_aside(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    writer = os.open(log, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    saved = os.dup(2)
    try:
        os.dup2(writer, 2)
        trimmed = guard.Guard.__new__(guard.Guard)
        trimmed.log, trimmed.log_limit = str(log), 10
        os.write(writer, b"short\n")
        trimmed.trim_log()
        assert log.read_text() == "short\n"
        os.write(writer, b"and long enough\n")
        trimmed.trim_log()
        os.write(writer, b"after\n")
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(writer)
    assert (tmp_path / "engine.log.1").read_text() == "short\nand long enough\n"
    assert log.read_text() == "after\n"


async def test_who_could_not_be_found_again_does_not_live(bench: Bench) -> None:
    """Root may write anywhere, so a folder takes the place of the record."""
    place = bench.folder / ("x-" + "0" * 32)
    (place / "run.new").mkdir(parents=True)
    folder = Folder(place)
    spawned = launching.spawn_guard(folder, task_of(bench, folder))
    word = await launching.first_word(spawned.handshake, 10)
    assert word == launching.FirstWord(step="run", errno=errno.EISDIR)
    await asyncio.to_thread(os.waitpid, spawned.pid, 0)
    os.close(spawned.pidfd)
    os.close(spawned.lifeline)
    await nobody_below(bench.folder)


async def test_an_engine_that_nobody_heard_of_does_not_live(bench: Bench) -> None:
    """The router died while it waited for the guard's first word."""
    place = bench.folder / ("x-" + "0" * 32)
    place.mkdir()
    folder = Folder(place)
    spawned = launching.spawn_guard(folder, task_of(bench, folder))
    os.close(spawned.handshake)
    await asyncio.to_thread(os.waitpid, spawned.pid, 0)
    assert folder.exit() == Exit(-signal.SIGKILL, asked=True, killed=True)
    os.close(spawned.pidfd)
    os.close(spawned.lifeline)
