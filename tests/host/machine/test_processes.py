"""Who lives, who belongs to whom, who carries a mark."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_router.host.machine import processes


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    environment = {**os.environ, processes.MARKER: "a-token-of-this-test"}
    with subprocess.Popen(["sleep", "60"], env=environment) as process:
        yield process
        process.kill()


def test_this_boot_has_a_name_that_stays() -> None:
    assert len(processes.boot_id()) == 36
    assert processes.boot_id() == processes.boot_id()


def test_a_process_is_alive_as_long_as_it_is_the_same_one(sleeper: "subprocess.Popen[bytes]") -> None:
    start = processes.start_time(sleeper.pid)
    assert start is not None
    assert processes.is_alive(sleeper.pid)
    assert processes.is_alive(sleeper.pid, start)
    assert not processes.is_alive(sleeper.pid, start - 1)


def test_a_zombie_is_dead(sleeper: "subprocess.Popen[bytes]") -> None:
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert processes.start_time(sleeper.pid) is not None
    assert not processes.is_alive(sleeper.pid)
    assert processes.tree(sleeper.pid) == frozenset()
    assert processes.environ_marked("a-token-of-this-test") == frozenset()


def test_who_is_gone_has_no_start_and_no_tree(sleeper: "subprocess.Popen[bytes]") -> None:
    sleeper.kill()
    sleeper.wait()
    assert processes.start_time(sleeper.pid) is None
    assert not processes.is_alive(sleeper.pid)
    assert processes.tree(sleeper.pid) == frozenset()
    assert processes.token_of(sleeper.pid) is None
    assert processes.describe(sleeper.pid) == f"pid {sleeper.pid}"
    processes.send(sleeper.pid, signal.SIGKILL)


def test_a_name_with_brackets_and_blanks_is_read_past(tmp_path: Path) -> None:
    """The second field of stat is the program's name, and nothing keeps a bracket out of that."""
    odd = tmp_path / "a) S 1 ("
    odd.symlink_to("/bin/sleep")
    with subprocess.Popen([str(odd), "60"]) as process:
        try:
            assert processes.is_alive(process.pid)
            assert processes.tree(os.getpid()) >= {process.pid}
        finally:
            process.kill()


def test_a_tree_holds_the_children_of_children() -> None:
    program = "import subprocess,sys; c=subprocess.Popen(['sleep','60']); print(c.pid,flush=True); c.wait()"
    with subprocess.Popen([sys.executable, "-ISc", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        grandchild = int(process.stdout.readline())
        assert processes.tree(process.pid) == {process.pid, grandchild}
        os.kill(grandchild, signal.SIGKILL)


def test_the_marked_are_found_by_their_token(sleeper: "subprocess.Popen[bytes]") -> None:
    assert processes.token_of(sleeper.pid) == "a-token-of-this-test"
    assert processes.environ_marked("a-token-of-this-test") == {sleeper.pid}
    assert processes.marked()["a-token-of-this-test"] == {sleeper.pid}
    assert processes.environ_marked("another") == frozenset()


def test_a_variable_that_only_resembles_the_marker_is_none() -> None:
    with subprocess.Popen(["sleep", "60"], env={f"X{processes.MARKER}": "x", f"{processes.MARKER}_2": "y"}) as process:
        try:
            assert processes.token_of(process.pid) is None
        finally:
            process.kill()


def test_a_process_is_described_with_name_and_number(sleeper: "subprocess.Popen[bytes]") -> None:
    assert processes.describe(sleeper.pid).startswith(f"sleep (pid {sleeper.pid} of ")
