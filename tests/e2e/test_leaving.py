"""Clients that leave at every point, engines that die, a router that is killed: nothing hangs, nothing is left."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from llm_router.core.story import replay
from llm_router.host.machine.processes import is_alive
from support.router import (
    SLOW_MB,
    RunningRouter,
    ask,
    chat,
    configuration,
    events,
    first_text,
    running,
    says,
    text_of,
    until,
)

pytestmark = [pytest.mark.real, pytest.mark.slow]


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory, shelf: Callable[..., Path]) -> Iterator[RunningRouter]:
    models = {"alpha": shelf("alpha"), "beta": shelf("beta", SLOW_MB)}
    with running(tmp_path_factory.mktemp("router"), configuration(models)) as router:
        yield router


def quiet(router: RunningRouter) -> bool:
    """Nobody waits, nobody is answered."""
    status = router.status()
    return status["queue"] == [] and all(model["running"] == 0 for model in status["models"])


def engine_is_idle(router: RunningRouter, model: str) -> bool:
    """llama.cpp's own word: none of its slots generates."""
    with router.client() as client:
        slots = client.get(f"/upstream/{model}/slots").json()
    return not any(slot["is_processing"] for slot in slots)


def test_a_client_that_leaves_while_its_model_loads(router: RunningRouter) -> None:
    with router.client() as client:
        ask(client, "alpha")
        with client.stream("POST", "/v1/chat/completions", json=chat("beta")) as response:
            next(events(response))
    until(lambda: quiet(router), 1.0)
    with router.client() as client:
        assert text_of(ask(client, "alpha")) == says("alpha")


def test_a_client_that_leaves_before_any_answer_to_a_whole_request(router: RunningRouter) -> None:
    with router.client() as client:
        ask(client, "alpha")
        with pytest.raises(httpx2.ReadTimeout):
            client.post("/v1/chat/completions", json=chat("beta", stream=False), timeout=0.2)
    until(lambda: quiet(router), 1.0)


def test_a_client_that_leaves_in_the_queue(router: RunningRouter) -> None:
    endless = chat("alpha", ignore_eos=True, max_tokens=100_000)
    with (
        router.client() as client,
        router.client() as waiter,
        client.stream("POST", "/v1/chat/completions", json=endless) as answer,
    ):
        chunks = events(answer)
        first_text(chunks)
        with waiter.stream("POST", "/v1/chat/completions", json=chat("beta")) as waiting:
            told = events(waiting)
            next(told)
            assert [entry["model"] for entry in router.status()["queue"]] == ["beta"]
        until(lambda: router.status()["queue"] == [], 1.0)
        # The one who was there before goes on, and is not cut.
        assert "[DONE]" not in [next(chunks) for _ in range(20)]
    until(lambda: quiet(router), 1.0)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_in_the_middle_ends_the_generation(router: RunningRouter, stream: bool) -> None:
    body = chat("alpha", stream=stream, ignore_eos=True, max_tokens=1_000_000)
    with router.client() as client:
        ask(client, "alpha")
        if stream:
            with client.stream("POST", "/v1/chat/completions", json=body) as response:
                chunks = events(response)
                first_text(chunks)
        else:
            with pytest.raises(httpx2.ReadTimeout):
                client.post("/v1/chat/completions", json=body, timeout=0.5)
    until(lambda: quiet(router), 1.0)
    until(lambda: engine_is_idle(router, "alpha"), 2.0)


def test_an_engine_that_dies_in_the_middle_of_an_answer(router: RunningRouter) -> None:
    with router.client() as client:
        ask(client, "alpha")
        (engine,) = (e for e in router.status()["instances"] if e["model"] == "alpha")
        body = chat("alpha", ignore_eos=True, max_tokens=1_000_000)
        with client.stream("POST", "/v1/chat/completions", json=body) as response:
            chunks = events(response)
            first_text(chunks)
            os.kill(engine["pid"], signal.SIGKILL)
            rest = list(chunks)
        errors = [chunk for chunk in rest if isinstance(chunk, dict) and "error" in chunk]
        assert len(errors) == 1, "a broken answer must not look whole"
        assert rest[-1] == "[DONE]"
        assert not any("finish_reason" in str(chunk) and '"stop"' in str(chunk) for chunk in rest)
        assert text_of(ask(client, "alpha")) == says("alpha"), "the next request starts it anew"


def test_an_engine_that_hangs_is_drained_with_an_error_for_its_client(
    tmp_path: Path, shelf: Callable[..., Path]
) -> None:
    config = configuration({"alpha": shelf("alpha"), "beta": shelf("beta")})
    config["scheduler"] |= {"stall": 1.0}
    with running(tmp_path, config) as router, router.client() as client, router.client() as other:
        ask(client, "alpha")
        (engine,) = router.status()["instances"]
        body = chat("alpha", ignore_eos=True, max_tokens=1_000_000)
        with client.stream("POST", "/v1/chat/completions", json=body) as response:
            chunks = events(response)
            first_text(chunks)
            os.kill(engine["pid"], signal.SIGSTOP)
            assert text_of(ask(other, "beta")) == says("beta")
            rest = list(chunks)
        assert any(isinstance(chunk, dict) and chunk.get("error", {}).get("code") == "stalled" for chunk in rest)
        assert not is_alive(engine["pid"])


def test_kill_9_of_the_router_leaves_no_engine(tmp_path: Path, shelf: Callable[..., Path]) -> None:
    with running(tmp_path, configuration({"alpha": shelf("alpha")})) as router:
        with router.client() as client:
            ask(client, "alpha")
        assert router.engines()
        router.process.kill()
        router.process.wait()
        until(lambda: not router.engines(), 15.0)


def test_kept_engines_are_adopted_without_a_load(tmp_path: Path, shelf: Callable[..., Path]) -> None:
    config = configuration({"alpha": shelf("alpha")}, engines_on_exit="keep")
    with running(tmp_path, config, leave=True) as router:
        with router.client() as client:
            ask(client, "alpha")
        (before,) = router.status()["instances"]
        router.process.kill()
        router.process.wait()
        assert is_alive(before["pid"])
    config["server"]["engines_on_exit"] = "stop"
    with running(tmp_path, config) as router:
        until(lambda: [one["state"] for one in router.status()["instances"]] == ["ready"])
        (after,) = router.status()["instances"]
        assert (after["id"], after["pid"], after["port"]) == (before["id"], before["pid"], before["port"])
        with router.client() as client:
            assert text_of(ask(client, "alpha")) == says("alpha")


def test_every_run_can_be_lived_through_again_from_its_journal(tmp_path: Path, shelf: Callable[..., Path]) -> None:
    config = configuration({"alpha": shelf("alpha")})
    for _ in range(2):
        with running(tmp_path, config) as router, router.client() as client:
            ask(client, "alpha")
    runs = [(tmp_path / "state" / name).read_text().splitlines() for name in ("journal.jsonl.1", "journal.jsonl")]
    for lines in (runs[1], [*runs[0], *runs[1]]):
        told = list(replay(lines))
        assert any("< Grant 1 alpha#2" in line for line in told), told
        assert told[-1].endswith("< Finish")


def test_the_end_lets_running_answers_finish_and_refuses_who_waits(tmp_path: Path, shelf: Callable[..., Path]) -> None:
    config = configuration({"alpha": shelf("alpha", SLOW_MB), "beta": shelf("beta")}, shutdown_grace=20.0)
    with running(tmp_path, config) as router, router.client() as client, router.client() as waiter:
        ask(client, "alpha")
        refused: list[object] = []

        def wait_for_beta() -> None:
            with waiter.stream("POST", "/v1/chat/completions", json=chat("beta")) as response:
                # Refused before the wait was worth telling, it is an answer and no stream.
                refused.extend(events(response) if response.status_code == 200 else [response.read()])

        with client.stream(
            "POST", "/v1/chat/completions", json=chat("alpha", ignore_eos=True, max_tokens=60)
        ) as response:
            chunks = events(response)
            first_text(chunks)
            waiting = threading.Thread(target=wait_for_beta)
            waiting.start()
            until(lambda: router.status()["queue"] != [])
            router.process.send_signal(signal.SIGTERM)
            rest = list(chunks)
        waiting.join(10)
        assert rest[-1] == "[DONE]"
        assert not any(isinstance(chunk, dict) and "error" in chunk for chunk in rest)
        assert "shutting_down" in str(refused)
        assert router.process.wait(20) == 0
        assert not router.engines()
