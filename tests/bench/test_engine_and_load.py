"""The two programs against each other: what the generator counts is what the engine sends."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench.machine import cores, cpu_seconds, rss_mb, tree
from bench.stage import ask, call, free_port
from bench.tools import Load, Tools, build, finish_load, start_load

from bench import decisions

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="there is no C compiler"),
]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    return build(tmp_path_factory.mktemp("programs"))


@contextlib.contextmanager
def engine(programs: Tools, *words: str) -> Iterator[int]:
    port = free_port()
    process = subprocess.Popen([programs.engine, str(port), *words])
    try:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.005)
        yield port
    finally:
        process.kill()
        process.wait()


def test_answers_streams_and_large_bodies_are_counted(programs: Tools) -> None:
    with engine(programs) as port:
        for load, events, size in (
            (Load(3, requests=20), 0, 20 * 500),
            (Load(3, requests=6, events=40, size=300), 240, 0),
            (Load(2, events=3, pause_us=500, size=300), 6, 0),
            (Load(2, requests=4, body=2_000_000), 0, 4 * 500),
        ):
            found = finish_load(start_load(programs, load, port, "m", cores()[1]), 20)
            assert found["ok"] == (load.requests or load.connections)
            assert found["events"] == events == found["event"]["count"]
            assert [found[kind] for kind in ("refused", "bad_status", "cut", "incomplete")] == [0, 0, 0, 0]
            assert size * 0.9 <= found["bytes"] <= size * 1.1 or not size


def test_what_fails_is_counted_as_what_it_is(programs: Tools) -> None:
    refused = finish_load(start_load(programs, Load(1, requests=2), free_port(), "m", cores()[1]), 20)
    assert (refused["ok"], refused["refused"]) == (0, 2)
    with engine(programs, "60000", "busy") as port:
        busy = finish_load(start_load(programs, Load(1, requests=2), port, "m", cores()[1]), 20)
        assert (busy["ok"], busy["bad_status"]) == (0, 2)


def test_the_engine_tells_when_it_was_able_and_first_asked(programs: Tools) -> None:
    with engine(programs, "50", "deaf") as port:
        assert call(port, "POST", "/v1/chat/completions", ask("m", "no wish"))[0] == 200
        assert call(port, "GET", "/moments")[1]["first_ns"] == 0
        assert call(port, "POST", "/v1/chat/completions", ask("m", "bench:0,0,100;"))[0] == 200
        moments = call(port, "GET", "/moments")[1]
        assert 0 < moments["able_ns"] < moments["first_ns"] <= time.monotonic_ns()


def test_processes_are_measured(programs: Tools) -> None:
    before = cpu_seconds(os.getpid())
    assert 0 < before <= time.process_time() + 0.1
    with engine(programs):
        pids = tree(os.getpid())
        assert len(pids) >= 2
        assert tree(os.getpid(), frozenset(pids[1:])) == pids[:1]
        assert rss_mb(pids) > rss_mb(pids[:1]) > 1
    assert cpu_seconds(os.getpid()) > before
    assert cpu_seconds(2**22 + 1) == 0.0


def test_decisions_are_made_while_others_wait() -> None:
    found = decisions.decisions(10, 3, turns=20)
    assert found["p99_us"] >= found["p50_us"] > 0


def test_a_program_is_compiled_once(programs: Tools) -> None:
    assert build(Path(programs.engine).parent) == programs
