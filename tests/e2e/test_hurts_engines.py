"""Engines on a bad day, behind a real router: each failure is bounded, named, and costs nobody else anything."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from support.router import Json, RunningRouter, events, first_text, running, text_of, until
from support.wild import CHAT, SAYS, Notes, answer, entry, lives, memory, notes, quiet, say_so, state, wild, wish

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("router")


@pytest.fixture(scope="module")
def router(folder: Path) -> Iterator[RunningRouter]:
    config = wild(
        folder,
        {
            "good": (),
            "deaf": ("deaf",),
            "crash": ("crash",),
            "storm": ("crash",),
            "once": ("once",),
            "daemon": ("daemon",),
            "flood": ("log=70",),
        },
    )
    config["scheduler"] |= {"stall": 1.0, "drain_timeout": 1.5}
    config["backends"]["wild"]["grace"] = 0.5
    with running(folder, config) as router:
        yield router


@pytest.fixture
def client(router: RunningRouter) -> Iterator[httpx2.Client]:
    with router.client() as client:
        yield client


def refused(client: httpx2.Client, model: str, stream: bool = False) -> Json:
    """The error of a chat that cannot be served."""
    response = client.post(CHAT, json=wish(model, stream=stream))
    if stream and response.status_code == 200:
        told = [one for one in events(response) if isinstance(one, dict) and "error" in one]
        assert len(told) == 1, response.text
        found: Json = told[0]["error"]
        return found
    assert response.status_code in {502, 503}, response.text
    error: Json = response.json()["error"]
    return error


def works(client: httpx2.Client) -> None:
    assert answer(client, "good") == SAYS


def test_an_engine_deaf_to_sigterm_is_killed_after_its_grace(router: RunningRouter, client: httpx2.Client) -> None:
    assert answer(client, "deaf") == SAYS
    (pid,) = notes(router, "deaf").births
    works(client)
    assert notes(router, "deaf").count("told to end") == 1
    assert not lives(pid)


def test_twenty_impatient_clients_of_a_crashing_engine_make_three_starts_at_most(
    router: RunningRouter, client: httpx2.Client
) -> None:
    works(client)

    def impatient(_: int) -> Json:
        with router.client() as one:
            return refused(one, "storm")

    with ThreadPoolExecutor(20) as pool:
        errors = list(pool.map(impatient, range(20)))
    assert 1 <= len(notes(router, "storm").births) <= 3
    assert {error["code"] for error in errors} == {"model_load_failed"}
    assert all("exit code 3" in error["message"] and "no such luck" in error["message"] for error in errors)
    works(client)


def test_an_engine_that_crashes_in_the_middle_gives_an_error_and_no_clean_end(
    router: RunningRouter, client: httpx2.Client
) -> None:
    works(client)
    (pid,) = [one["pid"] for one in router.status()["instances"]]
    with client.stream("POST", CHAT, json=wish("good", "die")) as response:
        chunks = list(events(response))
    errors = [chunk for chunk in chunks if isinstance(chunk, dict) and "error" in chunk]
    assert [error["error"]["code"] for error in errors] == ["engine_broke_off"]
    assert text_of(chunks) == "I am"
    assert not any('"stop"' in str(chunk).replace("'", '"') for chunk in chunks)
    assert not lives(pid)
    whole = client.post(CHAT, json=wish("good", "die", stream=False))
    assert whole.status_code == 502, whole.text
    assert whole.json()["error"]["code"] == "engine_broke_off"
    works(client)


def test_an_engine_that_dies_between_its_proof_and_the_grant_is_not_tried_for_ever(
    router: RunningRouter, client: httpx2.Client
) -> None:
    error = refused(client, "once")
    assert error["code"] in {"model_load_failed", "engine_broke_off", "engine_unreachable"}, error
    assert len(notes(router, "once").births) <= 3
    works(client)
    assert quiet(router)


def test_a_daemon_that_the_engine_leaves_ends_with_it(router: RunningRouter, client: httpx2.Client) -> None:
    assert answer(client, "daemon") == SAYS
    (daemon,) = (int(line.split()[1]) for line in notes(router, "daemon").lines if line.startswith("daemon "))
    assert lives(daemon)
    works(client)
    assert not lives(daemon)


def test_seventy_megabytes_of_log_cost_no_memory_and_stop_nobody(router: RunningRouter, client: httpx2.Client) -> None:
    works(client)
    before = memory(router)
    assert answer(client, "flood") == SAYS
    (engine,) = router.status()["instances"]
    os.kill(engine["pid"], signal.SIGKILL)
    until(lambda: state(router, "flood") == "gone")
    assert memory(router) - before < 25_000_000
    works(client)


def test_who_hangs_in_the_middle_is_ended_only_when_another_needs_the_room(
    router: RunningRouter, client: httpx2.Client
) -> None:
    with router.client() as other, client.stream("POST", CHAT, json=wish("good", "hang")) as response:
        chunks = events(response)
        first_text(chunks)
        assert answer(other, "deaf") == SAYS
        rest = list(chunks)
    assert [chunk["error"]["code"] for chunk in rest if isinstance(chunk, dict) and "error" in chunk] == ["stalled"]
    works(client)


def test_who_never_answers_a_whole_request_is_ended_by_the_longest_drain(
    router: RunningRouter, client: httpx2.Client
) -> None:
    """Whether a whole answer moves nobody can see, so it is not ended for standing still."""
    works(client)
    asked = notes(router, "good").count("asked mute")
    said: list[httpx2.Response] = []

    def wait() -> None:
        with router.client() as one:
            said.append(one.post(CHAT, json=wish("good", "mute", stream=False)))

    waiting = threading.Thread(target=wait)
    waiting.start()
    until(lambda: notes(router, "good").count("asked mute") > asked)
    assert answer(client, "deaf") == SAYS
    waiting.join(10)
    assert said[0].status_code >= 500
    assert said[0].json()["error"]["code"] == "drain_timeout"
    works(client)


def test_a_port_stolen_after_the_check_costs_another_start_and_the_thief_is_left_alone(tmp_path: Path) -> None:
    """The engine takes its time before it binds; meanwhile a stranger answers on its port as a healthy engine does."""
    gate = tmp_path / "gate"
    with running(tmp_path, wild(tmp_path, {"victim": (f"gate={gate}",)})) as router, router.client() as client:
        said: list[str] = []
        waiting = threading.Thread(target=lambda: said.append(answer(client, "victim")))
        waiting.start()
        until(lambda: notes(router, "victim").births != [])
        (first,) = router.status()["instances"]
        with thief(first["port"], tmp_path):
            until(lambda: len(notes(router, "victim").births) == 2, 5)
            assert f"another process answers on its port {first['port']}" in router.log
            say_so(gate)
            waiting.join(10)
            assert said == [SAYS]
            (second,) = router.status()["instances"]
            assert second["port"] != first["port"]
            # What is not ours is not killed, nor is it asked anything but the first question.
            assert not any(line.startswith(("asked", "told")) for line in Notes(tmp_path, "thief").lines)


class thief:  # noqa: N801 - used as a context
    """A wild engine that nobody of the router's has started, on this port."""

    def __init__(self, port: int, folder: Path) -> None:
        command = entry(folder, "thief")["command"]
        self._argv = [word.replace("{port}", str(port)) for word in command]
        self._folder = folder

    def __enter__(self) -> None:
        self._pid = os.posix_spawn(sys.executable, self._argv, os.environ)
        until(lambda: "ready" in Notes(self._folder, "thief").lines, 5)

    def __exit__(self, *_: object) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


def test_a_gate_that_opens_late_is_in_time(tmp_path: Path) -> None:
    """The limit is for what lasts too long, not for what lasts."""
    gate = tmp_path / "gate"
    with (
        running(tmp_path, wild(tmp_path, {"late": (f"gate={gate}",)})) as router,
        router.client() as client,
        client.stream("POST", CHAT, json=wish("late")) as response,
    ):
        chunks = events(response)
        next(chunks)
        assert state(router, "late") in {"starting", "checking"}
        say_so(gate)
        assert text_of(list(chunks)) == SAYS


@pytest.fixture(scope="module")
def watchful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRouter]:
    """A router that suffers no silence."""
    folder = tmp_path_factory.mktemp("watchful")
    models = {
        "good": (),
        "silent": (f"gate={folder / 'never'}",),
        "slow": (f"gate={folder / 'never'}", "chatty"),
        "elsewhere": ("elsewhere", "chatty"),
        "ill": (f"sick={folder / 'sick'}",),
        "single": ("one",),
    }
    config = wild(folder, models, load_silence=0.6, answer_silence=0.4, look_every=0.1)
    config["scheduler"] |= {"stall": 0.3, "starts_in_a_row": 1}
    config["backends"]["wild"]["grace"] = 0.2
    for name in ("slow", "elsewhere"):
        config["models"][name]["load_timeout"] = 0.5
    with running(folder, config) as router:
        yield router
        assert "Traceback" not in router.log


@pytest.mark.parametrize("stream", [False, True])
def test_a_load_beyond_its_limit_fails_with_the_limit_in_its_error(watchful: RunningRouter, stream: bool) -> None:
    with watchful.client() as client:
        client.post("/models/load", json={"model": "slow"})
        error = refused(client, "slow", stream)
        assert error["code"] == "model_load_failed"
        assert "not ready after 0.5 s" in error["message"]
        assert "load_timeout" in error["message"]
        works(client)
        assert not any(lives(pid) for pid in notes(watchful, "slow").births)


def test_an_engine_on_another_port_is_never_taken_for_ready(watchful: RunningRouter) -> None:
    with watchful.client() as client:
        error = refused(client, "elsewhere")
        assert error["code"] == "model_load_failed"
        assert notes(watchful, "elsewhere").count("ready") == 1
        works(client)


def test_an_engine_that_is_silent_while_it_loads_fails_long_before_its_limit(watchful: RunningRouter) -> None:
    with watchful.client() as client:
        error = refused(client, "silent")
        assert error["code"] == "model_load_failed"
        assert "makes no progress" in error["message"]
        assert "nothing moved for 1 s" in error["message"]
        works(client)
        assert not any(lives(pid) for pid in notes(watchful, "silent").births)


@pytest.mark.parametrize("how", ["frozen", "health"])
def test_an_engine_that_hangs_while_idle_is_found_out_and_replaced(watchful: RunningRouter, how: str) -> None:
    with watchful.client() as client:
        assert answer(client, "ill") == SAYS
        (engine,) = watchful.status()["instances"]
        if how == "frozen":
            os.kill(engine["pid"], signal.SIGSTOP)
            until(lambda: not lives(engine["pid"]), 10)
            assert answer(client, "ill") == SAYS
            assert watchful.status()["instances"][0]["pid"] != engine["pid"]
        else:
            # It still makes tokens: a health check that is only slow costs nobody his answer.
            say_so(watchful.folder / "sick")
            asked = notes(watchful, "ill").count("asked hi")
            until(lambda: notes(watchful, "ill").count("asked hi") > asked, 10)
            assert watchful.status()["instances"][0]["pid"] == engine["pid"]


def test_an_engine_that_freezes_in_the_middle_is_replaced_though_nobody_else_waits(watchful: RunningRouter) -> None:
    with watchful.client() as client:
        works(client)
        (engine,) = watchful.status()["instances"]
        with client.stream("POST", CHAT, json=wish("good", "endless")) as response:
            chunks = events(response)
            first_text(chunks)
            os.kill(engine["pid"], signal.SIGSTOP)
            codes = [chunk["error"]["code"] for chunk in chunks if isinstance(chunk, dict) and "error" in chunk]
        assert codes == ["stalled"]
        until(lambda: not lives(engine["pid"]), 5)
        works(client)


def test_a_long_pause_of_a_working_engine_costs_it_nothing(watchful: RunningRouter, tmp_path: Path) -> None:
    """As a long prompt does. It has a slot left, so it makes the token that it is asked for."""
    with watchful.client() as client:
        works(client)
        (engine,) = watchful.status()["instances"]
        asked = notes(watchful, "good").count("asked hi")
        with client.stream("POST", CHAT, json=wish("good", f"hold {tmp_path / 'go'}")) as response:
            chunks = events(response)
            first_text(chunks)
            until(lambda: notes(watchful, "good").count("asked hi") >= asked + 2, 10)
            say_so(tmp_path / "go")
            assert text_of(list(chunks)).endswith(" am wild.")
        assert watchful.status()["instances"][0]["pid"] == engine["pid"]


@pytest.mark.parametrize("wanted", [False, True], ids=["alone", "while another model is wanted"])
def test_a_long_prompt_on_the_only_slot_is_read_to_its_end(
    watchful: RunningRouter, tmp_path: Path, wanted: bool
) -> None:
    """It says nothing for five times as long as silence is suffered, and could make no other token meanwhile."""
    with watchful.client() as client, ThreadPoolExecutor(1) as pool:
        assert answer(client, "single") == SAYS
        (engine,) = watchful.status()["instances"]
        asked = notes(watchful, "single").count("asked hi")
        with client.stream("POST", CHAT, json=wish("single", f"read {tmp_path / 'read'}")) as response:
            chunks = events(response)
            next(chunks)
            other = pool.submit(works, client) if wanted else None
            time.sleep(2.0)
            say_so(tmp_path / "read")
            assert text_of(list(chunks)) == SAYS
        assert notes(watchful, "single").count("asked hi") == asked, "nobody doubted it"
        if other is not None:
            other.result(10)
        else:
            assert watchful.status()["instances"][0]["pid"] == engine["pid"]
        assert not [one for one in watchful.status()["failures"] if one["model"] == "single"]
