"""The demo's server behaves as llama-server where the router depends on it: flags, codes, signals."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
import xllamacpp

from fakes.running import REAL_LLAMA, Running, free_port, running
from llm_router.demo.llama_server import main, parser, settings
from llm_router.demo.tinymodel import write_model
from llm_router.engines.engine import Launch, Question

pytestmark = pytest.mark.real
SAYS = "I am alpha, I say words: grün, 日本, 🙂."


def parsed(text: str, **env: str) -> object:
    return settings(parser().parse_args(text.split()), env.get)


@pytest.mark.parametrize(
    ("text", "place", "value"),
    [
        ("-m a.gguf", "model.path", "a.gguf"),
        ("-m a --port 5", "port", 5),
        ("-m a", "port", 8080),
        ("-m a --host 127.0.0.1,127.0.0.2", "hostnames", ["127.0.0.1", "127.0.0.2"]),
        ("-m a -a x,y", "model_alias", {"x", "y"}),
        ("-m a -c 100", "n_ctx", 100),
        ("-m a -np 3", "n_parallel", 3),
        ("-m a", "n_parallel", 4),
        ("-m a", "kv_unified", True),
        ("-m a -np 3", "kv_unified", False),
        ("-m a -np 3 -kvu", "kv_unified", True),
        ("-m a -t 1", "cpuparams.n_threads", 1),
        ("-m a -t 1", "cpuparams_batch.n_threads", 1),
        ("-m a -t 1 -tb 2", "cpuparams_batch.n_threads", 2),
        ("-m a -ngl all", "n_gpu_layers", 9999),
        ("-m a -ngl auto", "n_gpu_layers", -1),
        ("-m a -ngl 0", "n_gpu_layers", 0),
        ("-m a -fit off", "fit_params", False),
        ("-m a", "fit_params", True),
        ("-m a --sse-ping-interval 1", "sse_ping_interval", 1),
        ("-m a -lv 4", "verbosity", 4),
        ("-m a -v", "verbosity", 5),
        ("-m a --offline", "offline", True),
        ("-m a --metrics", "endpoint_metrics", True),
        ("-m a --no-slots", "endpoint_slots", False),
        ("-m a --no-warmup", "warmup", False),
        ("-m a --embeddings", "embedding", True),
        ("-m a --rerank", "embedding", True),
        ("-m a --rerank", "pooling_type", xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK),
        ("-m a --pooling mean", "pooling_type", xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN),
        ("-m a -ctk q8_0", "cache_type_k", xllamacpp.ggml_type.GGML_TYPE_Q8_0),
        ("-m a -ctv iq4_nl", "cache_type_v", xllamacpp.ggml_type.GGML_TYPE_IQ4_NL),
        ("-m a -fa on", "flash_attn_type", xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED),
        ("-m a -fa auto", "flash_attn_type", xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_AUTO),
        ("-m a --no-mmap", "load_mode", xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_NONE),
        ("-m a -lm dio", "load_mode", xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_DIRECT_IO),
        ("-m a -sm row", "split_mode", xllamacpp.llama_split_mode.LLAMA_SPLIT_MODE_ROW),
        ("-m a --temp 0.25", "sampling.temp", 0.25),
        ("-m a --api-key a,b --api-key c", "api_keys", ["a", "b", "c"]),
    ],
)
def test_each_flag_goes_to_its_place(text: str, place: str, value: object) -> None:
    found = parsed(text)
    for part in place.split("."):
        found = getattr(found, part)
    assert found == value


def test_every_place_of_the_tables_exists_in_the_wheel() -> None:
    from llm_router.demo import llama_server as module

    params = xllamacpp.CommonParams()
    for place in (*module._NUMBERS, *module._TEXTS, *module._SWITCHES, *module._NAMES):
        found = params
        for part in place.split("."):
            assert hasattr(found, part), place
            found = getattr(found, part)
    for _, kind, prefix, _ in module._NAMES.values():
        assert [name for name in dir(getattr(xllamacpp, kind)) if name.startswith(prefix)]


def test_keys_come_from_the_environment_and_files_too(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("one\n\ntwo\n")
    assert parsed("-m a", LLAMA_API_KEY="x,y").api_keys == ["x", "y"]  # type: ignore[attr-defined]
    assert parsed(f"-m a --api-key-file {file}").api_keys == ["one", "two"]  # type: ignore[attr-defined]
    # As in the binary the flag wins over the environment.
    assert parsed("-m a --api-key z", LLAMA_API_KEY="x").api_keys == ["z"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("-m a --wonka 1", "error: invalid argument: --wonka"),
        ("-m a --ctx-siz 1", "error: invalid argument: --ctx-siz"),
        ("-m a -ctk wonka", "error while handling argument \"-ctk\": 'wonka' is none of its values"),
        ("-m a -ngl x", "error while handling argument \"-ngl\": 'x' is not a whole number"),
        ("-m a --api-key-file /nonexistent", "error: failed to open file '/nonexistent' (No such file or directory)"),
        ("", "error: no model: pass -m FILE"),
    ],
)
def test_a_wrong_argument_is_named_and_exits_with_1(text: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(text.split())
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else -1
    assert code == 1
    assert capsys.readouterr().err.strip() == said


def test_version_and_help_end_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert "xllamacpp" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "alpha.gguf"
    write_model(path, "alpha", SAYS)
    return path


@pytest.fixture
async def server(model: Path, tmp_path: Path) -> AsyncIterator[tuple[Running, int]]:
    port = free_port()
    argv = (*REAL_LLAMA, "-m", str(model), "-a", "alpha", "--port", str(port), "-t", "1", "--sse-ping-interval", "1")
    async with running(Launch(argv), tmp_path) as engine:
        while (await engine.ask("127.0.0.1", port, Question("GET", "/health"))).status != 200:
            assert engine.process.returncode is None, engine.lines
            await asyncio.sleep(0.01)
        # It answers a moment before it is told that it does, and only then signals are its own.
        while not catches(engine.process.pid, signal.SIGINT):
            await asyncio.sleep(0.01)
        yield engine, port


def catches(pid: int, number: int) -> bool:
    """Whether the process has a handler for the signal (proc_pid_status(5))."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(mask, 16) >> (number - 1) & 1)


async def say(engine: Running, port: int, **fields: object) -> str:
    body = {"messages": [{"role": "user", "content": "¿qué?"}], **fields}
    answer = await engine.client.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body)
    return str(answer.json()["choices"][0]["message"]["content"])


@pytest.mark.slow
async def test_the_model_says_its_sentence_at_any_temperature(server: tuple[Running, int]) -> None:
    engine, port = server
    for temperature in (0, 0.8, 2.0, 5.0):
        assert await say(engine, port, temperature=temperature, top_k=0, top_p=1, min_p=0) == SAYS
    assert await say(engine, port, max_tokens=2) == "I am"


@pytest.mark.slow
async def test_without_an_end_it_says_it_for_ever(server: tuple[Running, int]) -> None:
    text = await say(*server, ignore_eos=True, max_tokens=50)
    assert text.startswith(SAYS + SAYS)


@pytest.mark.slow
async def test_a_second_signal_ends_it_at_once(server: tuple[Running, int]) -> None:
    """A whole answer in flight keeps it after the first one for as long as its client stays."""
    engine, port = server
    body = {"messages": [{"role": "user", "content": "hi"}], "ignore_eos": True, "max_tokens": 10_000_000}

    async def ask() -> None:
        with pytest.raises(httpx2.HTTPError):
            await engine.client.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body, timeout=60)

    async with asyncio.TaskGroup() as group:
        group.create_task(ask())
        while not any("launch_slot_" in line or "processing task" in line for line in engine.lines):
            await asyncio.sleep(0.01)
        engine.process.send_signal(signal.SIGTERM)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(engine.process.wait(), 0.5)
        engine.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(engine.process.wait(), 2) == -signal.SIGTERM


@pytest.mark.slow
async def test_sigint_ends_it_well(server: tuple[Running, int]) -> None:
    engine, _ = server
    engine.process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(engine.process.wait(), 3) == 0


@pytest.mark.slow
async def test_the_module_runs_as_a_program(tmp_path: Path) -> None:
    async with running(
        Launch((sys.executable, "-m", "llm_router.demo.llama_server", "-m", "nosuch.gguf")), tmp_path
    ) as engine:
        assert await engine.process.wait() == 1
        assert any("No such file" in line for line in engine.lines)
        # Not always the last line: llama.cpp's log is written by a thread of its own.
        assert "error: Failed to init server, please check the input params." in engine.lines
