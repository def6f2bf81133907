"""Real clients over real switches: the SDKs, as people use them."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import anthropic
import openai
import pytest

from support.router import SLOW_MB, RunningRouter, ask, configuration, running, says

pytestmark = [pytest.mark.real, pytest.mark.slow]

NODE = Path(__file__).parent / "node"
HELLO: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "Who are you?"}]


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory, shelf: Callable[..., Path]) -> Iterator[RunningRouter]:
    models = {"alpha": shelf("alpha"), "beta": shelf("beta", SLOW_MB)}
    with running(tmp_path_factory.mktemp("router"), configuration(models)) as router:
        yield router


@pytest.fixture
def cold(router: RunningRouter) -> RunningRouter:
    """The router with alpha loaded, so that asking for beta is a switch."""
    with router.client() as client:
        ask(client, "alpha")
    return router


@pytest.fixture
def sdk(cold: RunningRouter) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{cold.url}/v1", api_key="sk-local", max_retries=0) as client:
        yield client


def test_openai_python_streams_over_a_switch_in_a_strict_loop(sdk: openai.OpenAI) -> None:
    text, finished = "", []
    for chunk in sdk.chat.completions.create(model="beta", messages=HELLO, stream=True):
        text += chunk.choices[0].delta.content or ""
        finished.append(chunk.choices[0].finish_reason)
    assert text == says("beta")
    assert [reason for reason in finished if reason] == ["stop"]


def test_openai_python_gets_usage_with_the_router_s_own_figures(sdk: openai.OpenAI) -> None:
    stream = sdk.chat.completions.create(
        model="beta", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    (usage,) = [chunk.usage for chunk in stream if chunk.usage is not None]
    assert usage.completion_tokens > 5
    figures = (usage.model_extra or {})["llm_router"]
    assert figures["loaded_s"] > 0
    assert figures["waited_s"] >= figures["loaded_s"]
    assert figures["tokens_per_s"] > 0


def test_openai_python_helper(sdk: openai.OpenAI) -> None:
    with sdk.chat.completions.stream(model="beta", messages=HELLO) as stream:
        assert stream.get_final_completion().choices[0].message.content == says("beta")


def test_openai_python_whole_answer_with_its_headers(sdk: openai.OpenAI) -> None:
    raw = sdk.chat.completions.with_raw_response.create(model="beta", messages=HELLO)
    answer = raw.parse()
    assert answer.choices[0].message.content == says("beta")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert raw.headers["x-llm-router-model"] == "beta"
    assert raw.headers["x-request-id"]


def test_openai_python_text_completions(sdk: openai.OpenAI) -> None:
    assert sdk.completions.create(model="beta", prompt="Who").choices[0].text == says("beta")
    stream = sdk.completions.create(model="alpha", prompt="Who", stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == says("alpha")


def test_openai_python_responses(sdk: openai.OpenAI) -> None:
    kinds, text = [], ""
    for event in sdk.responses.create(model="beta", input="Who are you?", stream=True):
        kinds.append(event.type)
        if event.type == "response.output_text.delta":
            text += event.delta
    assert kinds[0] == "response.created"
    assert kinds.count("response.created") == 1
    assert kinds[-1] == "response.completed"
    assert text == says("beta")


def test_openai_python_errors_say_what_to_do(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="did you mean alpha") as missing:
        sdk.chat.completions.create(model="alpah", messages=HELLO)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError):
        sdk.chat.completions.create(model="alpha", messages=5)  # type: ignore[call-overload]


def test_anthropic_python_streams_over_a_switch(cold: RunningRouter) -> None:
    with anthropic.Anthropic(base_url=cold.url, api_key="sk-local", max_retries=0) as client:
        with client.messages.stream(
            model="beta", max_tokens=100, messages=[{"role": "user", "content": "Who are you?"}]
        ) as stream:
            assert "".join(stream.text_stream) == says("beta")
            message = stream.get_final_message()
        assert message.stop_reason == "end_turn"
        with pytest.raises(anthropic.NotFoundError) as missing:
            client.messages.create(model="nobody", max_tokens=5, messages=[{"role": "user", "content": "x"}])
        body = missing.value.body
        assert isinstance(body, dict)
        assert body["error"]["type"] == "not_found_error"


@pytest.mark.node
def test_openai_node(cold: RunningRouter, tmp_path_factory: pytest.TempPathFactory) -> None:
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node.js and npm are not installed")
    folder = tmp_path_factory.mktemp("node")
    for name in ("package.json", "client.mjs"):
        shutil.copy(NODE / name, folder)
    npm = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--silent", "--ignore-scripts"]
    subprocess.run(npm, cwd=folder, check=True, timeout=110)
    done = subprocess.run(
        ["node", "client.mjs", f"{cold.url}/v1", "alpha", "beta"],
        cwd=folder, check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    assert got["loop"] == got["whole"] == says("alpha")
    assert got["helper"] == got["responses"] == says("beta")
    assert got["header"] == "alpha"
    assert got["models"] == ["alpha", "beta"]
    assert got["error"]["status"] == 404
    assert got["error"]["code"] == "model_not_found"
