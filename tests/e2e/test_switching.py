"""The main job on real input: two models on a real llama.cpp, switched by asking for them."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.router import (
    SLOW_MB,
    Json,
    RunningRouter,
    ask,
    chat,
    configuration,
    running,
    says,
    statuses,
    text_of,
    until,
)

pytestmark = [pytest.mark.real, pytest.mark.slow]


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory, shelf: Callable[..., Path]) -> Iterator[RunningRouter]:
    models = {"alpha": shelf("alpha"), "beta": shelf("beta"), "gamma": shelf("gamma", SLOW_MB)}
    with running(tmp_path_factory.mktemp("router"), configuration(models)) as router:
        yield router


def test_asking_for_a_model_switches_to_it_and_says_so(router: RunningRouter) -> None:
    with router.client() as client:
        ask(client, "alpha")
        chunks = ask(client, "gamma")
    assert text_of(chunks) == says("gamma")
    told = statuses(chunks)
    assert not told[0]["done"]
    assert any(status["description"].startswith("Loading gamma") for status in told)
    ready = next(number for number, status in enumerate(told) if status["done"])
    assert not any(status["done"] for status in told[:ready])
    assert told[-1]["done"]
    assert "tok/s" in told[-1]["description"]
    assert chunks[-1] == "[DONE]"
    assert all(isinstance(chunk, str) or len(chunk["choices"]) == 1 for chunk in chunks)


def test_a_warm_answer_has_no_waiting_status(router: RunningRouter) -> None:
    with router.client() as client:
        ask(client, "alpha")
        chunks = ask(client, "alpha")
        assert text_of(chunks) == says("alpha")
        assert [status["done"] for status in statuses(chunks)] == [True]
        assert ask(client, "alpha", stream_options={"include_usage": True})


def test_a_whole_answer_comes_through_a_switch(router: RunningRouter) -> None:
    with router.client() as client:
        ask(client, "alpha")
        response = client.post("/v1/chat/completions", json=chat("beta", stream=False))
    body = response.json()
    assert response.status_code == 200
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"]["content"] == says("beta")
    assert body["usage"]["completion_tokens"] > 5
    assert response.headers["x-llm-router-model"] == "beta"
    assert float(response.headers["x-llm-router-waited"]) >= float(response.headers["x-llm-router-loaded"]) > 0


def test_everything_that_llama_cpp_serves_passes(router: RunningRouter) -> None:
    with router.client() as client:
        completion = client.post("/v1/completions", json={"model": "alpha", "prompt": "Who"}).json()
        assert completion["choices"][0]["text"] == says("alpha")
        tokens = client.post("/tokenize", json={"model": "alpha", "content": "hi"}).json()
        assert tokens["tokens"]
        assert client.post("/detokenize", json={"model": "alpha", **tokens}).json()["content"]
        message = client.post(
            "/v1/messages", json={"model": "alpha", "max_tokens": 99, "messages": [{"role": "user", "content": "Who?"}]}
        ).json()
        assert message["content"][0]["text"] == says("alpha")
        count = client.post("/v1/messages/count_tokens", json={"model": "alpha", "messages": message["content"][:0]})
        assert count.status_code in {200, 400}
        answer = client.post("/v1/responses", json={"model": "alpha", "input": "Who are you?"}).json()
        assert answer["output"][0]["content"][0]["text"] == says("alpha")
        props = client.get("/upstream/alpha/props").json()
        assert props["model_alias"] == "alpha"
        refused = client.post("/v1/embeddings", json={"model": "alpha", "input": "x"})
        assert refused.status_code == 501
        assert "error" in refused.json()


def test_two_hundred_streams_over_two_models_and_twenty_switches(router: RunningRouter) -> None:
    """No request is lost, every answer comes from the right model, nothing is cut."""
    rounds = [("alpha", "beta")[number % 2] for number in range(20)]

    def one(model: str) -> tuple[str, list[Json | str]]:
        with router.client() as client:
            return model, ask(client, model)

    switches_before = _loads(router)
    with ThreadPoolExecutor(10) as pool:
        for model in rounds:
            # The last answer of a round overlaps with the first waiters of the next one.
            early = pool.submit(one, model)
            answers = [early, *(pool.submit(one, model) for _ in range(9))]
            for answer in answers:
                asked, chunks = answer.result()
                assert text_of(chunks) == says(asked)
                assert chunks[-1] == "[DONE]"
    assert _loads(router) - switches_before >= 19
    assert router.status()["queue"] == []


def _loads(router: RunningRouter) -> int:
    return sum(" Started " in line for line in router.log.splitlines())


def test_many_clients_that_want_different_models_at_once_are_served_in_batches(router: RunningRouter) -> None:
    before = _loads(router)

    def one(number: int) -> bool:
        model = ("alpha", "beta")[number % 2]
        with router.client() as client:
            return text_of(ask(client, model)) == says(model)

    with ThreadPoolExecutor(40) as pool:
        assert all(pool.map(one, range(40)))
    assert _loads(router) - before <= 8, "forty requests for two models must not cost a switch each"


def test_the_list_says_what_is_loaded_at_all_times(router: RunningRouter) -> None:
    with router.client() as client:
        ask(client, "alpha")
        listed = {entry["id"]: entry for entry in client.get("/v1/models").json()["data"]}
        assert listed["alpha"]["loaded"] is True
        assert listed["alpha"]["status"] == {"value": "loaded"}
        assert listed["beta"]["loaded"] is False
        assert listed["beta"]["status"] == {"value": "unloaded"}
        assert listed["alpha"]["format"] == "gguf"
        first = client.get("/v1/models")
        again = client.get("/v1/models", headers={"if-none-match": first.headers["etag"]})
        assert again.status_code == 304
        assert client.get("/v1/models/alpha").json()["id"] == "alpha"
        assert client.get("/v1/models/alfa").status_code == 404
        assert client.get("/health").json()["current_model"] == "alpha"


def test_load_and_unload_by_hand(router: RunningRouter) -> None:
    with router.client() as client:
        assert client.post("/models/load", json={"model": "beta"}).json()["success"] is True
        until(lambda: _state(router, "beta") == "ready")
        assert client.post("/models/unload", json={"model": "beta"}).json()["success"] is True
        until(lambda: _state(router, "beta") == "gone")
        assert client.post("/models/load", json={"model": "bta"}).json()["error"]["code"] == "model_not_found"
        assert client.request("DELETE", "/models", params={"model": "beta"}).status_code == 405


def _state(router: RunningRouter, model: str) -> str:
    state: str = next(entry["state"] for entry in router.status()["models"] if entry["name"] == model)
    return state
