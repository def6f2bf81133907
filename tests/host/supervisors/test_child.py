"""What the child supervisor adds to the contract: starts that fail, environments, records, logs, loops."""

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop

from fakes.children import SMALL, Bench
from fakes.leftovers import nobody_below
from llm_router.core.words import InstanceId
from llm_router.engines.engine import FileToWrite, Launch
from llm_router.host.machine import processes
from llm_router.host.supervisors import launching
from llm_router.host.supervisors.child import ChildSupervisor
from llm_router.host.supervisors.supervisor import Exit, SupervisorError


def script(path: Path, content: bytes, mode: int = 0o755) -> str:
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


def not_executable(folder: Path) -> Launch:
    return Launch((script(folder / "plain", b"#!/bin/sh\n", 0o644),))


def no_format(folder: Path) -> Launch:
    return Launch((script(folder / "noise", b"\x00\x01\x02\x03 not a program"),))


def no_interpreter(folder: Path) -> Launch:
    return Launch((script(folder / "moved", b"#!/nowhere/venv/bin/python\n"),))


def no_program(folder: Path) -> Launch:
    return Launch((str(folder / "llama-server"),))


def not_in_path(_: Path) -> Launch:
    return Launch(("no-such-engine-anywhere",))


def no_directory(folder: Path) -> Launch:
    return Launch(("/bin/true",), cwd=str(folder / "absent"))


def nul(_: Path) -> Launch:
    return Launch(("/bin/true", "a\0b"))


def relative_file(_: Path) -> Launch:
    return Launch(("/bin/true",), files=(FileToWrite("config.yml", b""),))


@pytest.mark.parametrize(
    ("broken", "text"),
    [
        (not_executable, r"the program \S+/plain may not be executed; try chmod \+x"),
        (no_format, r"the program \S+/noise cannot be executed \(exec format error\)"),
        (no_interpreter, r"the program \S+/moved is there, but not the interpreter"),
        (no_program, r"there is no program \S+/llama-server; install it or correct 'command'"),
        (not_in_path, r"there is no program no-such-engine-anywhere in PATH"),
        (no_directory, r"its working directory \S+/absent cannot be entered \(No such file or directory\)"),
        (nul, r"a word of its command line or of its environment has a NUL character"),
        (relative_file, r"the place of a file must be absolute"),
    ],
)
async def test_a_start_that_fails_says_why(
    bench: Bench, caplog: pytest.LogCaptureFixture, broken: Callable[[Path], Launch], text: str
) -> None:
    supervisor = bench.supervisor()
    with pytest.raises(SupervisorError, match="^cannot start small#1: .*" + text):
        await supervisor.start(SMALL, broken(bench.folder), {})
    assert await supervisor.find() == []
    places = bench.state / "instances"
    assert not places.exists() or not list(places.iterdir())
    await supervisor._tasks.join()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_program_of_the_engines_own_path_is_found(bench: Bench) -> None:
    script(bench.folder / "engine", b"#!/bin/sh\necho mine\n")
    supervisor = bench.supervisor()
    handle = await supervisor.start(SMALL, Launch(("engine",), env={"PATH": f"{bench.folder}:/bin"}), {})
    assert await supervisor.watch(handle) == Exit(0, asked=False, killed=False)
    assert handle.log.read_text() == "mine\n"


async def test_a_relative_program_is_below_the_working_directory(bench: Bench) -> None:
    script(bench.folder / "serve.sh", b'#!/bin/sh\necho "$PWD"\n')
    supervisor = bench.supervisor()
    handle = await supervisor.start(SMALL, Launch(("./serve.sh",), cwd=str(bench.folder)), {})
    await supervisor.watch(handle)
    assert handle.log.read_text() == f"{bench.folder}\n"


async def test_arguments_arrive_byte_for_byte(bench: Bench) -> None:
    words = ["$HOME", "%h", "a b", "'", '"', "", "\n", "ü", os.fsdecode(b"\xff"), "*"]
    supervisor = bench.supervisor()
    program = "import sys,os;os.write(1,b'\\0'.join(map(os.fsencode,sys.argv[1:])))"
    handle = await supervisor.start(SMALL, Launch((sys.executable, "-ISc", program, *words)), {})
    await supervisor.watch(handle)
    assert handle.log.read_bytes().split(b"\0") == [os.fsencode(word) for word in words]


async def test_what_the_engine_inherits(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LLM_ROUTER_CONFIG", "ROUTER_CONFIG", "OPENAI_API_KEY", "NOTIFY_SOCKET", "PYTHONPATH", "DB_PASSWORD"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("HF_TOKEN", "meant")
    monkeypatch.setenv("NCCL_DEBUG", "INFO")
    supervisor = bench.supervisor()
    launch = replace(bench.unruly("environ", "gone"), env={"CUDA_VISIBLE_DEVICES": "1", "MY_API_KEY": "given"})
    handle = await supervisor.start(SMALL, launch, {})
    await supervisor.watch(handle)
    environment = json.loads(handle.log.read_text().splitlines()[0])
    assert "secret" not in environment.values()
    assert {
        name: environment.get(name) for name in ("HF_TOKEN", "NCCL_DEBUG", "CUDA_VISIBLE_DEVICES", "MY_API_KEY")
    } == {
        "HF_TOKEN": "meant",
        "NCCL_DEBUG": "INFO",
        "CUDA_VISIBLE_DEVICES": "1",
        "MY_API_KEY": "given",
    }
    assert environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert environment["PYTHONUNBUFFERED"] == "1"
    assert environment["LLM_ROUTER_INSTANCE"] == handle.token


async def test_a_large_environment_passes(bench: Bench) -> None:
    """Larger than a pipe holds."""
    supervisor = bench.supervisor()
    launch = replace(bench.unruly("environ", "gone"), env={f"BIG_{number}": "x" * 50_000 for number in range(3)})
    handle = await supervisor.start(SMALL, launch, {})
    await supervisor.watch(handle)
    assert len(handle.log.read_text()) > 150_000


async def test_no_secret_of_the_environment_is_on_disk_or_in_a_command_line(bench: Bench) -> None:
    supervisor = bench.supervisor()
    launch = replace(bench.unruly(), env={"TABBY_KEY": "s3cret"})
    handle = await supervisor.start(SMALL, launch, {})
    for file in bench.place(handle).iterdir():
        assert b"s3cret" not in file.read_bytes()
    guard = json.loads((bench.place(handle) / "run").read_text())["guard"]["pid"]
    assert b"s3cret" not in Path(f"/proc/{guard}/cmdline").read_bytes()
    await supervisor.stop(handle, 0)


async def test_the_folders_are_closed_to_others(bench: Bench) -> None:
    supervisor = bench.supervisor()
    handle = await bench.start(supervisor)
    place = bench.place(handle)
    assert [path.stat().st_mode & 0o777 for path in (bench.state, place.parent, place)] == [0o700] * 3
    assert handle.log.stat().st_mode & 0o077 == 0
    await supervisor.stop(handle, 0)


async def test_only_the_last_ended_instances_of_a_model_stay(bench: Bench) -> None:
    supervisor = bench.supervisor(keep=2)
    other = await supervisor.start(InstanceId("other#1"), Launch(("/bin/true",)), {})
    await supervisor.watch(other)
    living = await bench.start(supervisor)
    logs = []
    for number in range(4):
        handle = await supervisor.start(InstanceId(f"small#{number + 2}"), Launch(("/bin/true",)), {"model": "small"})
        await supervisor.watch(handle)
        logs.append(handle.log)
    last = await bench.start(supervisor)
    await supervisor._tasks.join()
    assert [log.exists() for log in logs] == [False, False, True, True]
    assert other.log.exists()
    assert living.log.exists()
    await asyncio.gather(supervisor.stop(living, 0), supervisor.stop(last, 0))


@pytest.mark.parametrize("name", ["launch", "run"])
@pytest.mark.parametrize("content", [b"", b'{"version": 1, "tok', b"[]", b'{"version": 999}', b"\xff\xfe"])
async def test_a_broken_record_is_told_and_its_engine_ended(
    bench: Bench, caplog: pytest.LogCaptureFixture, name: str, content: bytes
) -> None:
    first = bench.supervisor()
    handle = await bench.start(first, "daemon", "bare")
    other = await bench.start(first)
    await first.aclose()
    (bench.place(handle) / name).write_bytes(content)
    supervisor = bench.supervisor()
    assert await supervisor.find() == [other]
    assert f"cannot read {bench.place(handle) / name}" in caplog.text
    assert bench.alive() == {other.pid}
    await supervisor.stop(other, 0)


async def test_a_record_of_another_instance_is_not_trusted(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    first = bench.supervisor()
    one, other = await bench.start(first), await bench.start(first)
    await first.aclose()
    run = bench.place(one) / "run"
    run.write_bytes((bench.place(other) / "run").read_bytes())
    supervisor = bench.supervisor()
    assert await supervisor.find() == [other]
    assert f"cannot trust {run}" in caplog.text
    await supervisor.stop(other, 0)


async def test_a_folder_that_is_none_of_ours_is_not_looked_at(bench: Bench) -> None:
    supervisor = bench.supervisor()
    for name in ("lost+found", "notes"):
        (bench.state / "instances" / name).mkdir(parents=True)
    (bench.state / "instances" / ("x-" + "0" * 32)).write_text("a file")
    assert await supervisor.find() == []


async def test_a_number_that_another_process_has_now_is_not_adopted(bench: Bench) -> None:
    first = bench.supervisor()
    handle = await bench.start(first)
    await first.stop(handle, 0)
    place = bench.place(handle)
    (place / "exit").unlink()
    run = json.loads((place / "run").read_text())
    run["guard"] = {"pid": os.getpid(), "start": processes.start_time(os.getpid())}
    (place / "run").write_text(json.dumps(run))
    assert await bench.supervisor().find() == []
    assert await bench.supervisor().watch(handle) == Exit(None, asked=True, killed=False)


@pytest.mark.parametrize("change", [{"boot": "another"}, {"guard": {"start": 1}}], ids=["boot", "start"])
async def test_what_is_written_of_another_life_is_not_adopted(bench: Bench, change: dict[str, object]) -> None:
    """After a reboot all numbers begin again, and a guard's number may be another guard's now."""
    first = bench.supervisor()
    handle = await bench.start(first, "daemon")
    await first.aclose()
    run = json.loads((bench.place(handle) / "run").read_text())
    if "guard" in change:
        change = {"guard": {**run["guard"], "start": 1}}
    (bench.place(handle) / "run").write_text(json.dumps({**run, **change}))
    supervisor = bench.supervisor()
    assert await supervisor.find() == []
    assert bench.alive() == set(), "but what carries the token is ours, and was swept"
    assert await supervisor.watch(handle) == Exit(None, asked=False, killed=True)


async def test_of_two_stops_at_once_the_nearer_deadline_holds(bench: Bench) -> None:
    """The guard reads what they ask only when both have written it."""
    supervisor = bench.supervisor()
    supervisor._end_limit_s = 100
    handle = await bench.start(supervisor, "deaf")
    guard = json.loads((bench.place(handle) / "run").read_text())["guard"]["pid"]
    os.kill(guard, signal.SIGSTOP)
    stops = [asyncio.gather(supervisor.stop(handle, grace_s)) for grace_s in (0.05, 100)]
    await asyncio.sleep(0)
    os.kill(guard, signal.SIGCONT)
    async with asyncio.timeout(10):
        await asyncio.gather(*stops)


async def test_an_instance_that_nobody_remembers_has_an_unknown_exit(bench: Bench) -> None:
    supervisor = bench.supervisor(keep=0)
    handle = await bench.start(supervisor)
    ended = await supervisor.stop(handle, 0)
    for file in bench.place(handle).iterdir():
        file.unlink()
    bench.place(handle).rmdir()
    assert ended.asked
    assert await supervisor.stop(handle, 0) == Exit(None, asked=False, killed=False)


async def test_a_cancelled_start_leaves_nobody(bench: Bench) -> None:
    supervisor = bench.supervisor()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await supervisor.start(SMALL, bench.unruly("deaf"), {})
    await nobody_below(bench.folder)


async def test_a_start_that_is_cancelled_at_its_last_moment_leaves_nobody(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard has said its word already, and nobody has taken it."""
    heard = asyncio.Event()
    first_word = launching.first_word

    async def dawdle(handshake: int, limit_s: float) -> None:
        await first_word(handshake, limit_s)
        heard.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(launching, "first_word", dawdle)
    supervisor = bench.supervisor()
    starting = asyncio.gather(supervisor.start(SMALL, bench.unruly("deaf"), {}))
    await heard.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await nobody_below(bench.folder)


async def test_a_guard_that_says_nothing_is_given_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    first_word = launching.first_word

    async def silence(handshake: int, limit_s: float) -> None:
        await first_word(handshake, limit_s)
        raise TimeoutError

    monkeypatch.setattr(launching, "first_word", silence)
    with pytest.raises(SupervisorError, match=r"^cannot start small#1: its guard did not answer for 30 s"):
        await bench.supervisor().start(SMALL, bench.unruly("deaf"), {})
    await nobody_below(bench.folder)


async def test_a_guard_that_breaks_leaves_its_story(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = bench.folder / "guard.py"
    broken.write_text("raise SystemExit('no ctypes here')")
    monkeypatch.setattr(launching, "_GUARD", broken)
    with pytest.raises(SupervisorError, match=r"^cannot start small#1: its guard ended at once: no ctypes here"):
        await bench.supervisor().start(SMALL, bench.unruly(), {})


async def test_find_leaves_those_alone_who_are_just_starting(bench: Bench) -> None:
    supervisor = bench.supervisor()
    handle, found = await asyncio.gather(supervisor.start(SMALL, bench.unruly(), {}), supervisor.find())
    assert found == []
    assert await supervisor.find() == [handle]
    await supervisor.stop(handle, 0)


async def test_letting_go_ends_those_who_die_with_the_router(bench: Bench) -> None:
    supervisor = bench.supervisor("die")
    handle = await bench.start(supervisor)
    await supervisor.aclose()
    await nobody_below(bench.folder)
    assert await bench.supervisor().watch(handle) == Exit(-signal.SIGTERM, asked=True, killed=False)


async def test_after_letting_go_nothing_is_started(bench: Bench) -> None:
    supervisor = bench.supervisor()
    await supervisor.aclose()
    with pytest.raises(SupervisorError, match=r"^cannot start small#1: the router has let go of its engines"):
        await supervisor.start(SMALL, bench.unruly(), {})


async def test_a_full_disk_does_not_keep_an_engine_alive(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    supervisor = bench.supervisor()
    handle = await bench.start(supervisor)
    (bench.place(handle) / "stop.new").mkdir()
    assert await supervisor.stop(handle, 5) == Exit(-signal.SIGTERM, asked=True, killed=False)
    assert "cannot tell the guard of small#1 its grace" in caplog.text


async def test_who_survives_everything_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor = bench.supervisor()
    handle = await bench.start(supervisor, "daemon")
    guard = json.loads((bench.place(handle) / "run").read_text())["guard"]["pid"]
    supervisor._end_limit_s = 0.02
    with monkeypatch.context() as deaf:
        deaf.setattr(processes, "send", lambda *_: None)
        os.kill(guard, signal.SIGKILL)
        with pytest.raises(
            SupervisorError, match=r"^cannot end small#1: python\S* \(pid \d+ of \S+\) survived SIGKILL"
        ):
            await supervisor.watch(handle)
    supervisor._end_limit_s = 5
    assert (await supervisor.watch(handle)).killed
    await nobody_below(bench.folder)


def test_it_works_on_uvloop_and_in_a_thread(tmp_path: Path) -> None:
    """In a thread that ends: what was started there must not end with it."""

    async def begin(supervisor: ChildSupervisor) -> None:
        await supervisor.start(SMALL, Launch(("/bin/sleep", f"1{os.getpid()}")), {})
        await supervisor.aclose()

    async def finish(supervisor: ChildSupervisor) -> Exit:
        (handle,) = await supervisor.find()
        ended = await supervisor.stop(handle, 5)
        await supervisor.aclose()
        return ended

    async def whole() -> Exit:
        await asyncio.to_thread(lambda: uvloop.run(begin(ChildSupervisor(tmp_path, "keep"))))
        return await finish(ChildSupervisor(tmp_path, "keep"))

    assert uvloop.run(whole()) == Exit(-signal.SIGTERM, asked=True, killed=False)


async def test_its_repr_names_the_living(bench: Bench) -> None:
    supervisor = bench.supervisor()
    handle = await bench.start(supervisor)
    assert repr(supervisor) == f"<children in {bench.state}: small#1>"
    await supervisor.stop(handle, 0)
    assert repr(supervisor).endswith(": none>")


async def test_ends_are_logged_only_when_something_is_wrong(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    supervisor = bench.supervisor()
    await supervisor.stop(await bench.start(supervisor, "deaf", "daemon"), 0.01)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
