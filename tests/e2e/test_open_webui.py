"""What Open WebUI does with a router, request by request, on a real llama.cpp: its headers, its order, its haste."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import openai
import pytest

from support.router import (
    SLOW_MB,
    Json,
    RunningRouter,
    ask,
    chat,
    configuration,
    events,
    running,
    says,
    statuses,
    text_of,
)

pytestmark = [pytest.mark.real, pytest.mark.slow]

TITLE = {"role": "user", "content": "### Task:\nGenerate a concise, 3-5 word title with an emoji."}


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory, shelf: Callable[..., Path]) -> Iterator[RunningRouter]:
    models = {"alpha": shelf("alpha"), "beta": shelf("beta", SLOW_MB)}
    with running(tmp_path_factory.mktemp("router"), configuration(models)) as router:
        yield router


@pytest.fixture
def client(router: RunningRouter) -> Iterator[httpx2.Client]:
    with router.client() as client:
        ask(client, "alpha")
        yield client


def task(client: httpx2.Client, model: str, name: str) -> httpx2.Response:
    """A request that nobody waits for, as Open WebUI sends it."""
    body = {"model": model, "stream": False, "messages": [TITLE], "max_tokens": 1000}
    return client.post("/v1/chat/completions", json=body, headers={"X-Router-Task": name})


def turn(client: httpx2.Client, model: str) -> list[Json | str]:
    """A chat turn in a chat of its own."""
    headers = {"X-Router-Client": "open-webui", "X-Router-Task": "", "X-Router-Chat": f"chat-{model}"}
    with client.stream("POST", "/v1/chat/completions", json=chat(model), headers=headers) as response:
        return list(events(response))


def starts(router: RunningRouter) -> int:
    return router.log.count(" Start ")


def test_a_task_for_a_model_that_is_not_loaded_is_refused_soon_and_starts_nothing(
    router: RunningRouter, client: httpx2.Client
) -> None:
    before, began = starts(router), time.monotonic()
    refused = task(client, "beta", "tags_generation")
    assert time.monotonic() - began < 3
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "background_refused")
    assert starts(router) == before


def test_a_new_chat_and_the_title_before_it_cause_one_load_and_the_chat_is_served_first(
    router: RunningRouter, client: httpx2.Client
) -> None:
    before = starts(router)
    with ThreadPoolExecutor(2) as pool:
        title = pool.submit(task, client, "beta", "title_generation")
        time.sleep(0.1)  # that is what lies between the two
        assert text_of(turn(client, "beta")) == says("beta")
        answer = title.result()
    assert answer.json()["choices"][0]["message"]["content"] == says("beta")
    assert starts(router) == before + 1


def test_two_chats_side_by_side_and_what_follows_them_cause_two_loads(
    router: RunningRouter, client: httpx2.Client
) -> None:
    before = starts(router)
    follow = ("follow_up_generation", "tags_generation")
    with ThreadPoolExecutor(8) as pool:
        chats = {model: pool.submit(turn, client, model) for model in ("beta", "alpha")}
        for model, said in chats.items():
            assert text_of(said.result()) == says(model)
        tasks = [pool.submit(task, client, model, name) for name in follow for model in chats]
        codes = {answer.result().status_code for answer in tasks}
    assert codes <= {200, 503}
    # Both, if beta came first; beta alone if alpha, which was loaded, was answered before it left.
    assert starts(router) - before in (1, 2)


def test_a_chat_after_an_answer_that_failed_has_two_user_messages_in_a_row(client: httpx2.Client) -> None:
    twice = [{"role": "user", "content": "Who are you?"}, {"role": "user", "content": "And now?"}]
    answer = client.post("/v1/chat/completions", json={"model": "alpha", "messages": twice}).json()
    assert answer["choices"][0]["message"]["content"] == says("alpha")


def test_the_list_comes_at_once_while_a_model_loads(client: httpx2.Client) -> None:
    with client.stream("POST", "/v1/chat/completions", json=chat("beta")) as response:
        chunks = events(response)
        assert statuses([next(chunks)])
        began = time.monotonic()
        listed = {entry["id"]: entry for entry in client.get("/v1/models").json()["data"]}
        assert time.monotonic() - began < 1
        assert listed["beta"]["status"]["value"] in ("loading", "unloaded")
        assert text_of(list(chunks)) == says("beta")


def test_eject(client: httpx2.Client) -> None:
    assert client.post("/models/unload", json={"model": "alpha"}).status_code == 200
    assert client.delete("/models?model=alpha").status_code == 405


def test_the_tries_of_a_library_meet_the_same_load(tmp_path: Path, shelf: Callable[..., Path]) -> None:
    """Each try is held for a moment, refused with an honest time to wait, and the load goes on."""
    models = {"alpha": shelf("alpha"), "beta": shelf("beta", SLOW_MB)}
    config = configuration(models, hold="200ms")
    config["models"]["beta"]["preload"] = False
    with running(tmp_path, config) as router, router.client() as client:
        assert ask(client, "alpha")
        refused = client.post("/v1/chat/completions", json=chat("beta", stream=False))
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_loading")
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["loading"]["model"] == "beta"
        with openai.OpenAI(base_url=f"{router.url}/v1", api_key="x", max_retries=8) as sdk:
            answer = sdk.chat.completions.create(model="beta", messages=[{"role": "user", "content": "Who are you?"}])
        assert answer.choices[0].message.content == says("beta")
        assert starts(router) == 2
