"""Routers that are ended or killed at a bad moment: the clients are told, no engine is left, the next router works."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from support.guest import Guest
from support.router import Json, RunningRouter, events, first_text, running, until
from support.wild import CHAT, SAYS, answer, lives, notes, say_so, state, wild, wish

pytestmark = pytest.mark.slow

#: What an engine must be gone within, once its router is dead (seconds): the guard's grace is not waited for.
SOON: Final = 8.0


@dataclass
class Moment:
    """A router in the middle of something. ``go`` lets the engines do what they are waiting to do."""

    router: RunningRouter
    config: Json
    go: Path
    guests: dict[str, Guest]


def loading(moment: Moment) -> None:
    moment.guests["waiting"] = Guest(moment.router, "late")
    until(lambda: notes(moment.router, "late").births != [])


def streaming(moment: Moment) -> None:
    moment.guests["served"] = Guest(moment.router, "one", f"hold {moment.go}")
    moment.guests["served"].heard.wait(10)


def draining(moment: Moment) -> None:
    streaming(moment)
    moment.guests["waiting"] = Guest(moment.router, "two")
    until(lambda: state(moment.router, "one") == "draining")


def stopping(moment: Moment) -> None:
    with moment.router.client() as client:
        assert answer(client, "slow") == SAYS
        client.post("/models/unload", json={"model": "slow"})
    until(lambda: notes(moment.router, "slow").count("told to end") == 1)


MOMENTS: Final[list[Callable[[Moment], None]]] = [loading, streaming, draining, stopping]


@contextmanager
def midst(tmp_path: Path, begin: Callable[[Moment], None], **server: object) -> Iterator[Moment]:
    go = tmp_path / "go"
    models = {"one": (), "two": (), "late": (f"gate={go}", "chatty"), "slow": (f"end={go}",)}
    config = wild(tmp_path, models, **{"shutdown_grace": 10.0, **server})
    with ExitStack() as stack:
        moment = Moment(stack.enter_context(running(tmp_path, config, leave=True)), config, go, {})
        try:
            begin(moment)
            yield moment
        finally:
            say_so(go)


def all_pids(moment: Moment) -> list[int]:
    return [pid for model in ("one", "two", "late", "slow") for pid in notes(moment.router, model).births]


@pytest.mark.parametrize(
    ("number", "begin"), [(signal.SIGINT, draining), *((signal.SIGTERM, begin) for begin in MOMENTS)]
)
def test_a_polite_end(tmp_path: Path, begin: Callable[[Moment], None], number: int) -> None:
    """Who is answered gets the rest, who waits is told, the engines are gone before the router is."""
    with midst(tmp_path, begin) as moment:
        moment.router.process.send_signal(number)
        until(lambda: "ending: running answers have" in moment.router.log)
        if "waiting" in moment.guests:
            assert moment.guests["waiting"].gone().errors == ["shutting_down"]
        if begin is not loading:
            assert moment.router.process.poll() is None, "it waits for those who are answered or end"
            say_so(moment.go)
        assert moment.router.process.wait(20) == 0, moment.router.log
        if "served" in moment.guests:
            assert moment.guests["served"].gone().whole, moment.guests["served"].chunks
        assert not any(lives(pid) for pid in all_pids(moment))
        assert "Traceback" not in moment.router.log


def test_an_answer_beyond_the_grace_is_ended_with_an_error(tmp_path: Path) -> None:
    with midst(tmp_path, streaming, shutdown_grace=0.3) as moment:
        moment.router.process.send_signal(signal.SIGTERM)
        served = moment.guests["served"].gone()
        assert served.errors == ["shutting_down"]
        assert not served.whole
        say_so(moment.go)
        assert moment.router.process.wait(20) == 0
        assert not any(lives(pid) for pid in all_pids(moment))


@pytest.mark.parametrize("begin", [loading, draining, stopping])
def test_a_second_signal_ends_the_patience(tmp_path: Path, begin: Callable[[Moment], None]) -> None:
    with midst(tmp_path, begin, shutdown_grace=60.0) as moment:
        moment.router.process.send_signal(signal.SIGTERM)
        until(lambda: "ending: running answers have" in moment.router.log)
        moment.router.process.send_signal(signal.SIGTERM)
        code = moment.router.process.wait(10)
        assert code in ({0, 130} if begin is loading else {130}), "a load ends at once, perhaps before the second"
        for guest in moment.guests.values():
            assert guest.gone().errors == ["shutting_down"] or guest.broken
            assert not guest.whole
        until(lambda: not any(lives(pid) for pid in all_pids(moment)), SOON)
        assert "Traceback" not in moment.router.log


@pytest.mark.parametrize("begin", MOMENTS)
def test_a_killed_router_leaves_nothing_and_the_next_one_works_at_once(
    tmp_path: Path, begin: Callable[[Moment], None]
) -> None:
    with midst(tmp_path, begin) as moment:
        before = all_pids(moment)
        moment.router.process.kill()
        moment.router.process.wait()
        with running(tmp_path, moment.config) as router, router.client() as client:
            assert not any(lives(pid) for pid in before), "it ends what it finds before it serves"
            assert answer(client, "two") == SAYS
            assert len(router.status()["instances"]) == 1
            ids = [line.split()[5] for line in router.log.splitlines() if " Start " in line]
            assert len(ids) == len(set(ids)), "an id is never used again"
        for guest in moment.guests.values():
            assert not guest.gone().whole


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_kept_engines_go_on_with_the_next_router(tmp_path: Path, number: int) -> None:
    """Also one that drained for somebody who is gone now."""
    with midst(tmp_path, draining, engines_on_exit="keep") as moment:
        (engine,) = notes(moment.router, "one").births
        moment.router.process.send_signal(number)
        if number == signal.SIGTERM:
            until(lambda: "ending: running answers have" in moment.router.log)
            say_so(moment.go)
            assert moment.guests["served"].gone().whole
        moment.router.process.wait(20)
        assert lives(engine)
        moment.config["server"]["engines_on_exit"] = "stop"
        with running(tmp_path, moment.config) as router, router.client() as client:
            until(lambda: state(router, "one") == "ready")
            assert [one["pid"] for one in router.status()["instances"]] == [engine]
            assert answer(client, "one") == SAYS
            assert len(notes(router, "one").births) == 1
        assert not lives(engine)


def test_a_guard_that_is_killed_takes_its_engine_along_and_the_model_comes_back(tmp_path: Path) -> None:
    with running(tmp_path, wild(tmp_path, {"one": ("daemon",)})) as router, router.client() as client:
        assert answer(client, "one") == SAYS
        guards = [one for one in router.engines() if "guard.py" in " ".join(one.cmdline())]
        pids = {one.pid for one in router.engines()}
        with client.stream("POST", CHAT, json=wish("one", "endless")) as response:
            chunks = events(response)
            first_text(chunks)
            os.kill(guards[0].pid, signal.SIGKILL)
            until(lambda: not any(lives(pid) for pid in pids), 5)
            assert any("error" in chunk for chunk in chunks if isinstance(chunk, dict))
        assert answer(client, "one") == SAYS
