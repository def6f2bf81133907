"""Each engine from cold to gone as a client sees it, and each trap of readiness, of the end, and of broken answers."""

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from llm_router.host.machine.processes import is_alive
from support import stand_ins
from support.router import Json, RunningRouter, ask, chat, events, first_text, running, statuses, text_of, until
from support.stand_ins import STAND_INS, descriptions

pytestmark = pytest.mark.slow

NAME = "alpha"
Shelf = Callable[..., Path]


@contextmanager
def router_with(
    folder: Path,
    engine: str,
    *traps: str,
    shelf: Shelf,
    speed: float = stand_ins.SPEED,
    grace: str = "1s",
    starts: int = 3,
    **more: object,
) -> Iterator[RunningRouter]:
    """A router with one model on this engine. ``more``: its environment, or settings of the server."""
    env: dict[str, Any] = {name: more.pop(name) for name in list(more) if name.isupper()}
    gguf = shelf(NAME) if engine == "llamacpp" else None
    config = stand_ins.one_model(folder, engine, *traps, gguf=gguf, speed=speed, **env)
    config["server"] |= more
    config["scheduler"]["starts_in_a_row"] = starts
    config["backends"][engine]["grace"] = grace
    with running(folder, config) as router:
        yield router


def instance(router: RunningRouter) -> Json:
    (found,) = router.status()["instances"]
    one: Json = found
    return one


def family(router: RunningRouter) -> list[psutil.Process]:
    leader = psutil.Process(instance(router)["pid"])
    return [leader, *leader.children(recursive=True)]


def stopped_within(router: RunningRouter, seconds: float) -> None:
    """Unload the model: no process of it is left, its port refuses."""
    processes, port = family(router), instance(router)["port"]
    with router.client() as client:
        assert client.post("/models/unload", json={"model": NAME}).json()["success"] is True
        until(lambda: not router.status()["instances"], seconds)
        assert not [one for one in processes if is_alive(one.pid)]
        with pytest.raises(httpx2.ConnectError):
            client.get(f"http://127.0.0.1:{port}/")


#: Phases that are the engines' own words, of which a client is told some, as time allows.
_PHASES = {
    "sglang": {"loading weights", "allocating cache", "capturing graphs", "warming up"},
    "vllm": {"loading weights", "compiling", "allocating cache", "capturing graphs", "warming up"},
    "tabbyapi": {"starting", "loading weights", "allocating cache", "warming up"},
    "tabbyapi-exl2": {"starting", "loading weights", "allocating cache", "warming up"},
    "transformers": {"starting", "loading weights", "warming up"},
    "llamacpp": {"loading weights", "allocating cache", "warming up"},
}


@pytest.mark.parametrize("engine", STAND_INS)
def test_from_cold_to_gone(tmp_path: Path, engine: str, shelf: Shelf) -> None:
    # So that each load takes about a second.
    speed = 20.0 if engine in {"sglang", "vllm"} else 4.0
    with router_with(tmp_path, engine, shelf=shelf, speed=speed, FAKE_LOAD_S=0.5) as router, router.client() as client:
        chunks = ask(client, NAME)
        assert text_of(chunks) == stand_ins.says(engine, NAME)
        told = descriptions(statuses(chunks))
        phases = {line.split(": ")[1].split(", ")[-1] for line in told if line.startswith("Loading alpha: ")}
        assert phases, told
        assert phases <= _PHASES[engine] | {"starting"}, told
        assert told[-1].startswith("⚡ ")
        assert [status["done"] for status in statuses(chunks)][-2:] == [True, True]
        stopped_within(router, 10.0)


def test_the_percent_of_tabbyapi_is_its_own(tmp_path: Path, shelf: Shelf) -> None:
    """Its load by API tells module after module; its log says nothing until the end."""
    with router_with(tmp_path, "tabbyapi", shelf=shelf, speed=0.55) as router, router.client() as client:
        told = descriptions(statuses(ask(client, NAME)))
    percents = [int(line.split(": ")[1].split(" ")[0]) for line in told if " %" in line and "loading weights" in line]
    assert any(30 < percent < 97 for percent in percents), told


# -- not ready, whatever it says


@pytest.mark.parametrize(
    ("engine", "trap", "cause"),
    [
        ("sglang", "mute", "first token"),
        ("vllm", "mute", "first token"),
        ("transformers", "mute", "first token"),
        ("tabbyapi", "mute", "first token"),
        ("llamacpp", "router", "router"),
        ("llamacpp", "dumb", "Compute error"),
        ("tabbyapi", "other-model", "has loaded another-model instead"),
        ("tabbyapi", "short", "a context of 1024 instead of 2048 tokens"),
        ("sglang", "hang-load", "is not ready after 3 s"),
    ],
)
def test_who_only_looks_ready_is_not(tmp_path: Path, engine: str, trap: str, cause: str, shelf: Shelf) -> None:
    with (
        router_with(tmp_path, engine, trap, shelf=shelf, load_timeout=3, starts=1) as router,
        router.client() as client,
    ):
        answer = client.post("/v1/chat/completions", json=chat(NAME, stream=False))
        assert answer.status_code in {502, 503}, answer.text
        assert cause in answer.text or (cause == "first token" and "is not ready after 3 s" in answer.text), answer.text


# -- the end


@pytest.mark.parametrize(
    ("engine", "trap"),
    [
        ("vllm", "hang-on-term"),
        ("vllm", "deaf"),
        ("sglang", "deaf"),
        ("tabbyapi", "deaf"),
        ("transformers", "deaf"),
        ("llamacpp", "deaf"),
    ],
)
def test_who_does_not_end_when_asked_is_ended_with_all_its_processes(
    tmp_path: Path, engine: str, trap: str, shelf: Shelf
) -> None:
    with router_with(tmp_path, engine, trap, shelf=shelf) as router, router.client() as client:
        ask(client, NAME)
        stopped_within(router, 10.0)


@pytest.mark.parametrize("engine", ["sglang", "vllm"])
def test_what_outlives_a_killed_server_is_swept(tmp_path: Path, engine: str, shelf: Shelf) -> None:
    """vLLM's EngineCore survives its server and keeps the memory of the GPU."""
    with router_with(tmp_path, engine, shelf=shelf) as router, router.client() as client:
        ask(client, NAME)
        processes = family(router)
        assert len(processes) > 1
        os.kill(processes[0].pid, signal.SIGKILL)
        until(lambda: not any(is_alive(one.pid) for one in processes))
        assert text_of(ask(client, NAME)) == stand_ins.says(engine, NAME), "the next request starts it anew"


@pytest.mark.parametrize("engine", ["sglang", "tabbyapi", "llamacpp"])
def test_an_engine_that_waits_for_its_streams_does_not_hold_up_a_stop_for_ever(
    tmp_path: Path, engine: str, shelf: Shelf
) -> None:
    """SGLang and TabbyAPI drain without a limit. An operator's unload waits for answers; at the drain's limit it ends."""
    gguf = shelf(NAME) if engine == "llamacpp" else None
    config = stand_ins.one_model(tmp_path, engine, gguf=gguf, FAKE_TOKENS_PER_S=1, FAKE_TOKEN_S=0.05)
    config["backends"][engine]["grace"] = "1s"
    config["scheduler"] |= {"drain_timeout": 1.0}
    with running(tmp_path, config) as router, router.client() as client:
        ask(client, NAME)
        body = chat(NAME, ignore_eos=True, max_tokens=100_000)
        with client.stream("POST", "/v1/chat/completions", json=body) as response:
            chunks = events(response)
            first_text(chunks)
            stopped_within(router, 15.0)
            rest = list(chunks)
    assert [chunk for chunk in rest if isinstance(chunk, dict) and "error" in chunk], "a cut answer must not look whole"


# -- answers that break


def broken_off(chunks: list[Json | str]) -> None:
    """The client is told of an error, once, and never sees a finish."""
    errors = [chunk for chunk in chunks if isinstance(chunk, dict) and "error" in chunk]
    assert len(errors) == 1, chunks
    assert not any(
        choice.get("finish_reason")
        for chunk in chunks
        if isinstance(chunk, dict)
        for choice in chunk.get("choices", ())
    )


@pytest.mark.parametrize(
    ("engine", "trap"),
    [
        ("sglang", "crash-midstream"),
        ("vllm", "crash-midstream"),
        ("tabbyapi", "crash-midstream"),
        ("tabbyapi", "error-midstream"),
        ("transformers", "crash-midstream"),
        ("transformers", "error-midstream"),
    ],
)
def test_an_answer_that_breaks_never_looks_whole(tmp_path: Path, engine: str, trap: str, shelf: Shelf) -> None:
    with router_with(tmp_path, engine, trap, shelf=shelf) as router, router.client() as client:
        broken_off(ask(client, NAME))


def test_an_answer_of_llama_cpp_that_sigterm_cut_does_not_look_whole(tmp_path: Path, shelf: Shelf) -> None:
    """It ends the stream properly, only without a finish and without ``[DONE]``."""
    with router_with(tmp_path, "llamacpp", shelf=shelf, FAKE_TOKEN_S=0.05) as router, router.client() as client:
        body = chat(NAME, ignore_eos=True, max_tokens=100_000)
        with client.stream("POST", "/v1/chat/completions", json=body) as response:
            chunks = events(response)
            first_text(chunks)
            os.kill(instance(router)["pid"], signal.SIGTERM)
            broken_off(list(chunks))


def test_an_answer_of_tabbyapi_that_an_unload_cut_does_not_hang(tmp_path: Path, shelf: Shelf) -> None:
    """It tells its streams nothing, and pings them for ever: with someone waiting, the drain has a limit."""
    config = stand_ins.one_model(tmp_path, "tabbyapi", FAKE_TOKENS_PER_S=1)
    config["models"]["other"] = stand_ins.entry(tmp_path, "tabbyapi", "other")
    config["backends"]["tabbyapi"]["grace"] = "1s"
    config["scheduler"] |= {"drain_timeout": 1.0}
    with running(tmp_path, config) as router, router.client() as client, router.client() as waiter:
        body = chat(NAME, ignore_eos=True, max_tokens=100_000)
        with client.stream("POST", "/v1/chat/completions", json=body) as response:
            chunks = events(response)
            first_text(chunks)
            _unload_behind_the_router(router)
            assert text_of(ask(waiter, "other")) == stand_ins.says("tabbyapi", "other")
            broken_off(list(chunks))


def _unload_behind_the_router(router: RunningRouter) -> None:
    here = instance(router)
    keys = next(Path(router.folder, "state", "work").glob("*/api_tokens.yml")).read_text()
    admin = next(line.split(":")[1].strip(" \"'") for line in keys.splitlines() if line.startswith("admin_key"))
    url = f"http://127.0.0.1:{here['port']}/v1/model/unload"
    with router.client() as client:
        assert client.post(url, headers={"x-admin-key": admin}).status_code == 200


def test_clients_see_whole_streams_of_every_engine(tmp_path: Path, shelf: Shelf) -> None:
    """Whatever the engine's own manners: one ``[DONE]``, and no usage that was not asked for."""
    backends = {engine: stand_ins.backend(engine) for engine in STAND_INS}
    models = {f"on-{one}": stand_ins.entry(tmp_path, one, f"on-{one}", shelf("on-llamacpp")) for one in STAND_INS}
    with running(tmp_path, stand_ins.configuration(backends, models)) as router, router.client() as client:
        for engine, asked in itertools.product(STAND_INS, (False, True)):
            options: dict[str, Any] = {"stream_options": {"include_usage": True}} if asked else {}
            # Fields of other engines: transformers would answer 422.
            body = chat(f"on-{engine}", top_k=20, min_p=0.1, cache_prompt=True, **options)
            response = client.post("/v1/chat/completions", json=body, headers={"x-router-status": "off"})
            assert response.status_code == 200, response.text
            assert response.content.endswith(b"data: [DONE]\n\n")
            assert response.content.count(b"[DONE]") == 1
            # transformers counts on its last chunk whether it is asked or not, and that is passed as it comes.
            counted = asked or engine == "transformers"
            assert (b'"usage":{' in response.content.replace(b" ", b"")) == counted, engine
            assert response.headers["content-type"].startswith("text/event-stream")
