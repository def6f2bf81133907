"""The router's own folder on a bad day: a full disk, and records that are half or nonsense. It starts, says so, serves."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from support.guest import Guest
from support.router import Json, RunningRouter, running, until
from support.wild import SAYS, answer, lives, notes, quiet, state, wild

pytestmark = pytest.mark.slow


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 640 KiB, of this test alone."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=640k", "none", str(place)], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {done.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path) -> Path:
    """Leave no byte free. Gives the file that takes all."""
    hog = disk / "hog"
    with hog.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return hog


def test_a_disk_that_fills_up_costs_records_and_starts_but_no_answer(tmp_path: Path, small_disk: Path) -> None:
    config = wild(tmp_path, {"one": (), "two": ()}, state_dir=str(small_disk / "state"))
    config["scheduler"]["backoff"] = 0.3
    with running(tmp_path, config) as router, router.client() as client:
        assert answer(client, "one") == SAYS
        hog = fill(small_disk)
        for _ in range(30):
            assert answer(client, "one") == SAYS
        until(lambda: "cannot write the journal" in router.log)
        until(lambda: "cannot write the history" in router.log)
        assert answer(client, "one") == SAYS
        error = client.post("/v1/chat/completions", json={"model": "two", "messages": []}).json()["error"]
        assert error["code"] == "model_load_failed"
        assert "No space left on device" in error["message"]
        assert error["failure"]["kind"] == "crashed", "a full disk passes: it is tried again"
        assert quiet(router)
        assert notes(router, "two").births == []
        hog.unlink()
        until(lambda: client.post("/v1/chat/completions", json={"model": "two", "messages": []}).status_code != 503)
        assert answer(client, "two") == SAYS
        for book in ("journal", "history"):
            assert router.log.count(f"cannot write the {book}") == 1, "it is said once"
        kept = [path.name.partition("-")[0] for path in (small_disk / "state" / "instances").iterdir()]
        assert sorted(kept) == ["one", "two"], "what could not begin leaves nothing"


def test_a_full_disk_from_the_beginning_does_not_keep_the_router_from_serving_what_runs(
    tmp_path: Path, small_disk: Path
) -> None:
    config = wild(tmp_path, {"one": ()}, state_dir=str(small_disk / "state"))
    (small_disk / "state").mkdir(mode=0o700)
    (small_disk / "state" / "lock").touch()
    hog = fill(small_disk)
    with running(tmp_path, config) as router, router.client() as client:
        assert client.get("/v1/models").status_code == 200
        error = client.post("/v1/chat/completions", json={"model": "one", "messages": []}).json()["error"]
        assert "No space left on device" in error["message"]
        for what in ("cannot open the history", "cannot write"):
            assert what in router.log
        hog.unlink()
        until(lambda: client.post("/v1/chat/completions", json={"model": "one", "messages": []}).status_code != 503)
        assert answer(client, "one") == SAYS


def garbage(path: Path) -> None:
    path.write_bytes(b"\x00\xff{[garbage" * 1000)


def half(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("spoil", [garbage, half, empty])
def test_spoilt_records_are_named_and_the_router_starts(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    """A router dies with its engine kept; every one of its records is then spoilt at once."""
    config = wild(tmp_path, {"one": ()}, engines_on_exit="keep")
    home = tmp_path / "state"
    with running(tmp_path, config, leave=True) as router, router.client() as client:
        assert answer(client, "one") == SAYS
        until(lambda: (home / "journal.jsonl").stat().st_size > 0)
        (engine,) = notes(router, "one").births
        router.process.kill()
        router.process.wait()
        assert lives(engine)
    (home / "programs.json").write_text("{}")
    for path in home.rglob("*"):
        if path.is_file() and path.name not in {"lock", "engine.log"}:
            spoil(path)
    config["server"]["engines_on_exit"] = "stop"
    with running(tmp_path, config) as router, router.client() as client:
        until(lambda: not lives(engine), 5)
        assert "what is left of this instance is ended" in router.log
        assert answer(client, "one") == SAYS
        if spoil is not half:
            assert f"cannot read {home / 'serial'}" in router.log
        assert f"cannot read {home / 'programs.json'}" in router.log
        if spoil is garbage:
            assert "history.db.broken, and a new one begins" in router.log
    assert _exchanges(home / "history.db") >= 1, "what happens now is kept"
    for line in (home / "journal.jsonl").read_text().splitlines():
        json.loads(line)


def _exchanges(path: Path) -> int:
    with closing(sqlite3.connect(path)) as database:
        count: int = database.execute("SELECT count(*) FROM exchanges").fetchone()[0]
        return count


def test_a_note_that_makes_no_sense_ends_its_engine_and_nothing_else(tmp_path: Path) -> None:
    """A record may be whole in form and wrong in what it says."""
    config = wild(tmp_path, {"one": ()}, engines_on_exit="keep")
    with running(tmp_path, config, leave=True) as router, router.client() as client:
        assert answer(client, "one") == SAYS
        (engine,) = notes(router, "one").births
        router.process.kill()
        router.process.wait()
    (launch,) = (tmp_path / "state" / "instances").glob("*/launch")
    record: Json = json.loads(launch.read_bytes())
    record["note"]["port"] = "the usual one"
    launch.write_text(json.dumps(record))
    config["server"]["engines_on_exit"] = "stop"
    with running(tmp_path, config) as router, router.client() as client:
        assert not lives(engine)
        assert "not wanted as it is: it is stopped" in router.log
        assert answer(client, "one") == SAYS


@pytest.mark.parametrize("policy", ["keep", "stop"])
def test_a_router_that_is_killed_and_started_at_once_has_its_engine_or_none(tmp_path: Path, policy: str) -> None:
    config = wild(tmp_path, {"one": ()}, engines_on_exit=policy)
    with running(tmp_path, config, leave=True) as router, router.client() as client:
        assert answer(client, "one") == SAYS
        (before,) = router.status()["instances"]
        router.process.send_signal(signal.SIGKILL)
        router.process.wait()
    with running(tmp_path, config, leave=policy == "keep") as router, router.client() as client:
        if policy == "keep":
            until(lambda: state(router, "one") == "ready")
            assert [one["pid"] for one in router.status()["instances"]] == [before["pid"]]
        assert answer(client, "one") == SAYS
        (after,) = router.status()["instances"]
        assert (after["pid"] == before["pid"]) is (policy == "keep")
        assert lives(before["pid"]) is (policy == "keep")
        assert len(notes(router, "one").births) == (1 if policy == "keep" else 2)
        assert int(after["id"].rpartition("#")[2]) >= int(before["id"].rpartition("#")[2])
        assert (after["id"] == before["id"]) is (policy == "keep"), "an id is never used again"
        _end_all(router)


def _end_all(router: RunningRouter) -> None:
    with router.client() as client:
        client.post("/models/unload", json={"model": "one"})
    until(lambda: state(router, "one") == "gone")


def test_a_state_folder_that_somebody_removes_costs_the_records_and_no_answer(tmp_path: Path) -> None:
    config = wild(tmp_path, {"one": ("daemon",), "two": ()})
    with running(tmp_path, config) as router, router.client() as client:
        assert answer(client, "one") == SAYS
        births = [int(line.split()[1]) for line in notes(router, "one").lines if line.startswith(("born", "daemon"))]
        shutil.rmtree(tmp_path / "state")
        assert answer(client, "one") == SAYS
        assert answer(client, "two") == SAYS
        assert not any(lives(pid) for pid in births)
        assert "Traceback" not in router.log


def test_a_router_that_is_killed_again_and_again_under_load_never_has_two_engines(tmp_path: Path) -> None:
    """Each time in another moment of a switch; engines are kept, so each next router finds what the last one had."""
    config = wild(tmp_path, {"one": ("daemon",), "two": ()}, engines_on_exit="keep")
    for number in range(3):
        with running(tmp_path, config, leave=True) as router, router.client() as client:
            guests = [Guest(router, model) for model in ("one", "two", "one", "two")]
            if number == 2:
                assert all(guest.gone().whole for guest in guests)
                assert answer(client, "one") == SAYS
            else:
                # One word later, and one switch, than the last time.
                until(lambda at=number: sum(len(notes(router, model).births) for model in ("one", "two")) > at)  # type: ignore[misc]
            births = [pid for model in ("one", "two") for pid in notes(router, model).births]
            assert sum(lives(pid) for pid in births) <= 1
            router.process.kill()
            router.process.wait()
            for guest in guests:
                guest.gone()
    config["server"]["engines_on_exit"] = "stop"
    with running(tmp_path, config) as router, router.client() as client:
        assert answer(client, "two") == SAYS
        births = [pid for model in ("one", "two") for pid in notes(router, model).births]
        assert [pid for pid in births if lives(pid)] == [router.status()["instances"][0]["pid"]]
