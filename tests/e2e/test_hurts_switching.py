"""Switches under people who do not agree, change their minds, or reload in the middle: counted by the engines' own notes."""

import json
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from support.guest import Guest
from support.router import Json, RunningRouter, events, running, statuses, text_of, until
from support.wild import CHAT, SAYS, answer, entry, files_open, lives, memory, notes, quiet, say_so, state, wild, wish

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRouter]:
    folder = tmp_path_factory.mktemp("router")
    config = wild(folder, {"one": (), "two": (), "long": ("load=1.4",), "late": (f"gate={folder / 'gate'}", "chatty")})
    with running(folder, config) as router:
        yield router
        assert "Traceback" not in router.log


@pytest.fixture
def client(router: RunningRouter) -> Iterator[httpx2.Client]:
    with router.client() as client:
        yield client
        until(lambda: quiet(router), 5)


def unload(client: httpx2.Client, router: RunningRouter, model: str) -> None:
    client.post("/models/unload", json={"model": model})
    until(lambda: state(router, model) == "gone")


def born(router: RunningRouter, *models: str) -> int:
    return sum(len(notes(router, model).births) for model in models)


def test_two_callers_of_two_models_cost_few_switches(router: RunningRouter, client: httpx2.Client) -> None:
    before = born(router, "one", "two")

    def call(model: str) -> int:
        with router.client() as one:
            return sum(answer(one, model) == SAYS for _ in range(30))

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(call, ("one", "two"))) == [30, 30]
    assert 2 <= born(router, "one", "two") - before <= 15, "sixty requests must cost far fewer switches"


def percent(router: RunningRouter, model: str) -> float:
    """How far the load of the model is, -1 if nobody knows."""
    found = [one["percent"] for one in router.status()["instances"] if one["model"] == model]
    return -1.0 if not found or found[0] is None else float(found[0])


def test_a_load_that_is_left_early_stops_and_one_that_is_left_late_goes_on(
    router: RunningRouter, client: httpx2.Client
) -> None:
    assert answer(client, "long") == SAYS
    unload(client, router, "long")
    log = notes(router, "long")
    assert (len(log.births), log.count("ready")) == (1, 1)
    with client.stream("POST", CHAT, json=wish("long")) as response:
        chunks = events(response)
        next(chunks)
        until(lambda: len(log.births) == 2)
    until(lambda: state(router, "long") == "gone", 1.0)
    assert not lives(log.births[1])
    assert log.count("ready") == 1, "left at its beginning, it was not worth to go on"
    with client.stream("POST", CHAT, json=wish("long")) as response:
        chunks = events(response)
        next(chunks)
        until(lambda: percent(router, "long") >= 60)
    until(lambda: state(router, "long") == "ready")
    assert answer(client, "long") == SAYS
    assert (len(log.births), log.count("ready")) == (3, 2), "a retry meets it warm"


def test_an_unload_while_it_loads_refuses_who_waits_and_ends_it(router: RunningRouter, client: httpx2.Client) -> None:
    guests = [Guest(router, "late") for _ in range(3)]
    until(lambda: notes(router, "late").births != [])
    until(lambda: next(model["waiting"] for model in router.status()["models"] if model["name"] == "late") == 3)
    unload(client, router, "late")
    assert [guest.gone().errors for guest in guests] == [["model_unloaded"]] * 3
    assert not any(lives(pid) for pid in notes(router, "late").births)
    assert answer(client, "one") == SAYS


def test_an_unload_under_streams_lets_them_end(router: RunningRouter, client: httpx2.Client, tmp_path: Path) -> None:
    guests = [Guest(router, "one", f"hold {tmp_path / 'go'}") for _ in range(3)]
    assert all(guest.heard.wait(10) for guest in guests)
    births = born(router, "one")
    client.post("/models/unload", json={"model": "one"})
    until(lambda: state(router, "one") == "draining")
    late = Guest(router, "one")
    until(lambda: next(model["waiting"] for model in router.status()["models"] if model["name"] == "one") == 1)
    say_so(tmp_path / "go")
    assert all(guest.gone().whole for guest in guests)
    assert late.gone().whole
    assert born(router, "one") == births + 1, "who asks after the unload is a new wish"


def test_a_pinned_model_stays_whoever_asks_and_unpinned_it_goes_at_once(
    router: RunningRouter, client: httpx2.Client
) -> None:
    assert answer(client, "one") == SAYS
    births = born(router, "one", "two")
    assert client.post("/api/models/pin", json={"model": "one", "pin": True}).status_code == 200
    for _ in range(5):
        refused = Guest(router, "two").gone()
        assert refused.errors == ["model_load_failed"]
        assert "cannot make room for two" in str(refused.chunks)
        assert answer(client, "one") == SAYS
    assert born(router, "one", "two") == births
    client.post("/api/models/pin", json={"model": "one", "pin": False})
    assert answer(client, "two") == SAYS
    assert state(router, "one") == "gone"


def reload(router: RunningRouter, config: Json | str) -> None:
    """Write the configuration and say so by SIGHUP; returns when it was taken in or refused."""
    path = router.folder / "llm-router.json.yml"
    path.write_text(config if isinstance(config, str) else json.dumps(config))
    before = told(router)
    router.process.send_signal(signal.SIGHUP)
    until(lambda: told(router) == before + 1)


def told(router: RunningRouter) -> int:
    return router.log.count(" reloaded: ") + router.log.count(" cannot reload, ")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[RunningRouter, Json, Callable[[], Guest]]]:
    """A router of its own with a stream of "one" in the middle, its configuration, and what ends the stream."""
    config = wild(tmp_path, {"one": (), "two": ()})
    with running(tmp_path, config) as router:
        guest = Guest(router, "one", f"hold {tmp_path / 'go'}")
        assert guest.heard.wait(10)

        def finish() -> Guest:
            say_so(tmp_path / "go")
            return guest.gone()

        yield router, config, finish
        finish()
        assert "Traceback" not in router.log


def test_a_reload_that_changes_a_model_lets_its_streams_end_first(
    served: tuple[RunningRouter, Json, Callable[[], Guest]],
) -> None:
    router, config, finish = served
    (first,) = notes(router, "one").births
    config["models"]["one"]["env"] = {"NEW": "yes"}
    reload(router, config)
    assert state(router, "one") == "draining"
    late = Guest(router, "one")
    assert finish().whole
    assert late.gone().whole
    assert len(notes(router, "one").births) == 2
    assert not lives(first)


def test_a_reload_that_removes_a_model_lets_its_streams_end_first(
    served: tuple[RunningRouter, Json, Callable[[], Guest]],
) -> None:
    router, config, finish = served
    (engine,) = notes(router, "one").births
    del config["models"]["one"]
    reload(router, config)
    with router.client() as client:
        assert client.post(CHAT, json=wish("one")).status_code == 404
        assert lives(engine)
        assert finish().whole
        until(lambda: not lives(engine), 5)
        assert answer(client, "two") == SAYS


def test_a_reload_that_changes_nothing_of_a_model_and_a_broken_one_leave_it_alone(
    served: tuple[RunningRouter, Json, Callable[[], Guest]],
) -> None:
    router, config, finish = served
    before = router.status()["instances"]
    config["models"]["three"] = entry(router.folder, "three")
    config["models"]["one"]["aliases"] = ["uno"]
    config["server"]["log_level"] = "debug"
    reload(router, config)
    for broken in ("models: [", json.dumps(config | {"modles": {}}), ""):
        reload(router, broken)
    assert router.log.count("cannot reload, everything stays as it is") == 3
    assert "Did you mean 'models'?" in router.log
    after = router.status()["instances"]
    assert [one["id"] for one in after] == [one["id"] for one in before]
    assert finish().whole
    with router.client() as client:
        assert answer(client, "uno") == SAYS
        assert answer(client, "three") == SAYS
    assert len(notes(router, "one").births) == 1


def test_twenty_reloads_under_load_lose_no_request(tmp_path: Path) -> None:
    config = wild(tmp_path, {"one": (), "two": ()})
    with running(tmp_path, config) as router:
        with ThreadPoolExecutor(4) as pool:

            def call(model: str) -> int:
                with router.client() as client:
                    return sum(answer(client, model) == SAYS for _ in range(40))

            calls = [pool.submit(call, model) for model in ("one", "two", "one", "two")]
            for number in range(20):
                config["models"]["one"]["env"] = {"NUMBER": str(number // 4)}
                config["models"]["two"]["description"] = str(number)
                reload(router, config)
            assert [one.result() for one in calls] == [40] * 4
        assert "Traceback" not in router.log


def test_a_wait_is_told_from_its_first_to_its_last_stage(router: RunningRouter, client: httpx2.Client) -> None:
    assert answer(client, "one") == SAYS
    with client.stream("POST", CHAT, json=wish("long")) as response:
        chunks = list(events(response))
    assert text_of(chunks) == SAYS
    stages = [status["description"] for status in statuses(chunks)]
    assert any("Loading long" in stage or "Starting long" in stage for stage in stages), stages


def test_twenty_switches_leave_nothing_behind(router: RunningRouter, client: httpx2.Client) -> None:
    def rest() -> int:
        for model in ("one", "two"):
            unload(client, router, model)
        until(lambda: router.status()["instances"] == [])
        return files_open(router)

    assert answer(client, "one") == SAYS
    files, used = rest(), memory(router)
    for _ in range(10):
        assert answer(client, "one") == SAYS
        assert answer(client, "two") == SAYS
    assert abs(rest() - files) <= 2
    assert memory(router) - used < 8_000_000
    kept = list((router.folder / "state" / "instances").iterdir())
    assert len(kept) <= 4 * 11, "of each model the last ten are kept, with their logs"
    assert not list((router.folder / "state" / "work").glob("*")), "their working folders go with them"
