"""Real clients over real switches: the SDKs, as people use them."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import anthropic
import ollama
import openai
import pytest

from support.router import SLOW_MB, RunningRouter, ask, configuration, running, says, until

pytestmark = [pytest.mark.real, pytest.mark.slow]

NODE = Path(__file__).parent / "node"
PYTHON = Path(__file__).parent / "python"
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


def test_openai_python_responses_helper(sdk: openai.OpenAI) -> None:
    with sdk.responses.stream(model="beta", input="Who are you?") as stream:
        kinds = [event.type for event in stream]
        answer = stream.get_final_response()
    assert answer.output_text == says("beta")
    assert answer.status == "completed"
    assert answer.usage is not None
    assert answer.usage.output_tokens > 5
    assert kinds.count("response.created") == 1
    assert "response.in_progress" in kinds
    assert sdk.responses.create(model="beta", input="Who are you?").output_text == says("beta")


@pytest.mark.parametrize("mode", ["event", "content", "reasoning", "comment", "off"])
def test_openai_python_in_every_mode_and_the_next_turn_is_clean(sdk: openai.OpenAI, mode: str) -> None:
    headers = {"X-Router-Status": mode}
    with sdk.chat.completions.stream(model="beta", messages=HELLO, extra_headers=headers) as stream:
        message = stream.get_final_completion().choices[0].message
    assert message.content is not None
    if mode == "content":
        assert "Loading beta" in message.content
        assert "✅ beta ready" in message.content
        assert "tok/s" in message.content.rsplit("\n\n", 1)[1]
    else:
        assert message.content == says("beta")
    thought = (message.model_extra or {}).get("reasoning_content") or ""
    assert ("Loading beta" in thought) is (mode == "reasoning")
    turn: list[openai.types.chat.ChatCompletionMessageParam] = [
        *HELLO,
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": "And?"},
    ]
    clean: list[openai.types.chat.ChatCompletionMessageParam] = [
        *HELLO,
        {"role": "assistant", "content": says("beta")},
        turn[-1],
    ]
    told = [sdk.chat.completions.create(model="beta", messages=messages).usage for messages in (turn, clean)]
    assert told[0] is not None
    assert told[1] is not None
    assert told[0].prompt_tokens == told[1].prompt_tokens


def test_openai_python_meets_one_load_however_often_it_tries(cold: RunningRouter) -> None:
    """The SDK gives up and tries again; all its tries wait for the same load."""
    before = cold.log.count(" Start beta#")
    with openai.OpenAI(base_url=f"{cold.url}/v1", api_key="x", max_retries=8, timeout=1.0) as impatient:
        whole = impatient.chat.completions.create(model="beta", messages=HELLO)
    assert whole.choices[0].message.content == says("beta")
    assert cold.log.count(" Start beta#") == before + 1


def test_what_a_client_may_not_change_is_told(sdk: openai.OpenAI) -> None:
    raw = sdk.chat.completions.with_raw_response.create(model="alpha", messages=HELLO, extra_body={"num_ctx": 99})
    assert raw.headers["x-llm-router-changed"] == "drop num_ctx"
    assert int(raw.headers["x-llm-router-tokens"]) > 5
    assert float(raw.headers["x-llm-router-tokens-per-second"]) > 0
    assert float(raw.headers["x-llm-router-prompt-tokens-per-second"]) > 0


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


def test_anthropic_python_whole_with_tools_and_counting(cold: RunningRouter) -> None:
    with anthropic.Anthropic(base_url=cold.url, api_key="sk-local", max_retries=0) as client:
        asked: list[anthropic.types.MessageParam] = [{"role": "user", "content": "Who are you?"}]
        message = client.messages.create(model="beta", max_tokens=100, messages=asked)
        assert [block.text for block in message.content if block.type == "text"] == [says("beta")]
        assert message.usage.output_tokens > 5
        assert client.messages.count_tokens(model="beta", messages=asked).input_tokens > 1


@pytest.fixture
def client(cold: RunningRouter) -> Iterator[ollama.Client]:
    with ollama.Client(host=cold.url) as client:
        yield client


def test_ollama_python_over_a_switch(client: ollama.Client) -> None:
    hello = [{"role": "user", "content": "Who are you?"}]
    parts = list(client.chat("beta:latest", hello, stream=True, options={"num_ctx": 99}))
    assert "".join(part.message.content or "" for part in parts) == says("beta")
    last = parts[-1]
    assert last.done
    assert (last.eval_count or 0) > 5
    assert (last.load_duration or 0) > 0
    assert client.generate("alpha", "Who are you?").response == says("alpha")
    assert client.chat("alpha", hello).message.content == says("alpha")
    assert [model.model for model in client.list().models] == ["alpha", "beta"]
    assert [model.model for model in client.ps().models] == ["alpha"]
    assert client.show("alpha").capabilities
    with pytest.raises(ollama.ResponseError, match="cannot find the model"):
        client.chat("nobody", hello)


def test_ollama_s_wish_to_let_a_model_go_is_kept(client: ollama.Client) -> None:
    client.generate("alpha", "Who?", keep_alive=0)
    until(lambda: not client.ps().models)
    assert client.generate("alpha").done_reason == "load"
    assert [model.model for model in client.ps().models] == ["alpha"]


@pytest.mark.parametrize("http", ["--http1.1", "--http1.0"])
def test_curl(cold: RunningRouter, http: str) -> None:
    body = json.dumps({"model": "beta", "stream": True, "messages": HELLO})
    command = ["curl", "-sS", "-N", http, f"{cold.url}/v1/chat/completions", "-d", body]
    told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    assert told.endswith("data: [DONE]\n\n")
    chunks = [json.loads(line[6:]) for line in told.splitlines() if line.startswith("data: {")]
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks) == says("beta")
    assert any("Loading beta" in chunk["event"]["data"]["description"] for chunk in chunks if "event" in chunk)


@pytest.mark.clients
def test_langchain_and_litellm(cold: RunningRouter) -> None:
    python = Path(__file__).parents[2] / ".venv-clients" / "bin" / "python"
    if not python.exists():
        pytest.skip("scripts/client_libraries.sh was not run")
    command = [str(python), str(PYTHON / "client.py"), f"{cold.url}/v1", "beta", "alpha"]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=110,
        env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout.splitlines()[-1])
    assert got["langchain"] == got["litellm"] == says("beta")
    assert got["langchain_whole"] == got["litellm_whole"] == says("alpha")
    assert got["langchain_tokens"] > 5


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
    assert got["helper"] == got["responses"] == got["responsesHelper"] == says("beta")
    assert got["header"] == "alpha"
    assert got["models"] == ["alpha", "beta"]
    assert got["error"]["status"] == 404
    assert got["error"]["code"] == "model_not_found"
