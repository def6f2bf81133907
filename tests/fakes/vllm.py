"""A stand-in for vLLM 0.32/0.33 that follows its source and its recorded behaviour on a CPU, as real processes.

    python vllm.py serve DIR --served-model-name NAME --host 127.0.0.1 --port PORT ...

Followed to the letter: the port is bound at once (a busy one fails with 1) and listens only when ready;
``/health`` is an empty 200, also asleep; a wrong model is a 404; only ``/v1`` asks for the key; a stream
ends with ``[DONE]`` after an error too; sleeping exists with ``VLLM_SERVER_DEV_MODE=1`` and keeps requests
without an answer; EngineCore and Worker outlive a SIGKILL of the server; a dead EngineCore gives 503 for
2.5 s and then exit 0; SIGTERM aborts what runs, or drains up to ``--shutdown-timeout``.

``FAKE_TRAP``: ``no-share`` ``no-kv`` ``long-context`` ``profiling`` ``torch-oom`` ``bad-quant`` (fail so while
loading), ``hang-load``, ``mute`` (healthy, but a chat never answers), ``base`` (no chat template),
``crash-midstream`` (EngineCore dies), ``stall-midstream``, ``hang-on-term`` (with a stream open it never
ends), ``deaf``, ``hang-sleep``, ``light-sleep`` (says that it sleeps and keeps its memory), ``no-wake``.
"""

import argparse
import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from fakes.engine_base import (
    Exchange,
    OverError,
    Script,
    Server,
    bar,
    bind,
    for_ever,
    gone,
    hold,
    kill,
    on_signal,
    say,
    spawn,
    start,
)
from fakes.speaking import Form, Speech, answer, now

FORM = Form(
    ids=("chatcmpl-", "cmpl-"),
    opening={"role": "assistant", "content": ""},
    closing={"content": ""},
    in_choice={"logprobs": None, "stop_reason": None, "token_ids": None},
)
TRAPS = {
    "no-share": "ValueError: Free memory on device cuda:1 (3.20/79.11 GiB) on startup is less than desired GPU memory "
    "utilization (0.92, 72.78 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes.",
    "no-kv": "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when "
    "initializing the engine.",
    "long-context": "ValueError: To serve at least one request with the models's max seq len (131072), (16.00 GiB KV cache "
    "is needed, which is larger than the available KV cache memory (8.12 GiB). Based on the available memory, the "
    "estimated maximum model length is 66512. Try increasing `gpu_memory_utilization` or decreasing `max_model_len`.",
    "profiling": "AssertionError: Error in memory profiling. Initial free memory 70.1 GiB, current free memory 75.2 GiB.",
    "torch-oom": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of "
    "23.64 GiB of which 1.13 GiB is free.",
    "bad-quant": "  Value error, Unknown quantization method: exl3. Must be one of ['awq', 'fp8', 'gptq'].",
}
#: Seconds at speed 1: the imports, each shard, compilation, each captured graph, the rest.
ASLEEP = 2**30
IMPORTS_S, SHARD_S, COMPILE_S, GRAPH_S, REST_S = 12.0, 1.5, 4.0, 0.5, 1.0


def parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="vllm serve", add_help=False)
    parser.add_argument("--help", nargs="?", const="groups")
    parser.add_argument("model_tag")
    parser.add_argument("--served-model-name", nargs="+")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--tensor-parallel-size", "-tp", type=int, default=1)
    parser.add_argument("--pipeline-parallel-size", "-pp", type=int, default=1)
    parser.add_argument("--data-parallel-size", "-dp", type=int, default=1)
    for name in ("max-model-len", "max-num-seqs", "max-num-batched-tokens", "shutdown-timeout"):
        parser.add_argument(f"--{name}", type=int)
    for name in (
        "kv-cache-dtype", "quantization", "dtype", "load-format", "chat-template", "reasoning-parser", "tool-call-parser",
        "runner", "convert", "speculative-config", "disable-access-log-for-endpoints", "kv-cache-memory-bytes",
    ):  # fmt: skip
        parser.add_argument(f"--{name}")
    parser.add_argument("--gpu-memory-utilization", type=float)
    parser.add_argument("--lora-modules", nargs="+")
    for name in ("enable-sleep-mode", "enforce-eager", "trust-remote-code", "enable-auto-tool-choice", "enable-lora"):
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--enable-prefix-caching", action=argparse.BooleanOptionalAction)
    if (asked := next((word for word in words if word.startswith("--help")), None)) is not None:
        # Plain help names groups; only the full one lists the options.
        sys.stdout.write(parser.format_help() if asked == "--help=all" else "Config Groups: use --help=all\n")
        raise SystemExit(0)
    return parser.parse_args(words)


def log(who: str, text: str, pid: int = 0) -> None:
    say(f"({who} pid={pid or os.getpid()}) INFO {time.strftime('%m-%d %H:%M:%S')} [core.py:402] {text}")


class VLLM:
    """One API server with its engine core."""

    def __init__(self, options: argparse.Namespace, script: Script, core: int) -> None:
        self.options = options
        self.script = script
        self.core = core
        self.names: list[str] = options.served_model_name or [options.model_tag]
        self.key = os.environ.get("VLLM_API_KEY")
        self.dead = self.asleep = False
        self.awake = asyncio.Event()
        self.stop = asyncio.Event()
        self.aborted = asyncio.Event()
        self.server = Server(self._routes(), self._missing, self._before)
        ranks = range(options.tensor_parallel_size)
        self.workers = [f"Worker_TP{rank}" for rank in ranks] if len(ranks) > 1 else ["Worker"]

    async def load(self) -> None:
        log("APIServer", f"non-default args: {{'model_tag': '{self.options.model_tag}', 'port': {self.options.port}}}")
        await self.script.pause(IMPORTS_S)
        for worker in self.workers:
            log(worker, f"Starting to load model {self.options.model_tag}...", self.core)
        if self.script.has("hang-load"):
            await for_ever()
        self._fail_if("bad-quant", "no-share", "torch-oom")
        shape = "Loading safetensors checkpoint shards: {:3d}% Completed | {}/4 [00:0{}<00:0{}, 1.52s/it]\n"
        await bar((shape.format(done * 25, done, done, 4 - done) for done in range(5)), self.script.pauses(SHARD_S))
        hold()
        for worker in self.workers:
            log(worker, "Loading weights took 6.02 seconds", self.core)
            log(worker, "Model loading took 38.47 GiB memory and 6.31 seconds", self.core)
        if not self.options.enforce_eager:
            log(self.workers[0], "Dynamo bytecode transform time: 3.02 s", self.core)
            await self.script.pause(COMPILE_S)
            log(self.workers[0], "Compiling a graph for compile range (1, 8192) takes 4.01 s", self.core)
        self._fail_if("no-kv", "long-context", "profiling")
        log(self.workers[0], "Available KV cache memory: 26.11 GiB", self.core)
        log("EngineCore", "GPU KV cache size: 213,904 tokens, Maximum concurrency for 4,096 tokens per request: 52.22x",
            self.core)  # fmt: skip
        if not self.options.enforce_eager:
            graphs = "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE): {:3d}%|{:4}| {}/4 [00:00<00:00]"
            await bar((graphs.format(done * 25, "█" * done, done) for done in range(5)), self.script.pauses(GRAPH_S))
            log(self.workers[0], "Graph capturing finished in 3 secs, took 0.61 GiB", self.core)
        log("EngineCore", "init engine (profile, create kv cache, warmup model) took 9.90 s", self.core)
        await self.script.pause(REST_S)

    def _fail_if(self, *traps: str) -> None:
        for trap in filter(self.script.has, traps):
            say(f"(EngineCore pid={self.core}) ERROR 11-20 11:20:06 [core.py:1584] EngineCore failed to start.")
            say(f"(EngineCore pid={self.core}) ERROR 11-20 11:20:06 [core.py:1584] Traceback (most recent call last):")
            say(f"(EngineCore pid={self.core}) ERROR 11-20 11:20:06 [core.py:1584] {TRAPS[trap]}")
            say(f"(APIServer pid={os.getpid()}) Traceback (most recent call last):")
            say(f"(APIServer pid={os.getpid()}) RuntimeError: Engine core initialization failed. See root cause above. "
                "Failed core proc(s): {}")  # fmt: skip
            kill(self.core)
            raise SystemExit(1)

    async def serve(self, bound: Any) -> None:
        on_signal(signal.SIGTERM, self._asked_to_stop)
        host = self.options.host or "0.0.0.0"
        log("APIServer", f"Starting vLLM server on http://{host}:{self.options.port}")
        await self.server.listen(bound)
        say("INFO:     Started server process [1]")
        say("INFO:     Waiting for application startup.")
        say("INFO:     Application startup complete.")
        watch = start(self._watch())
        await self.stop.wait()
        watch.cancel()
        if not self.dead:
            await self._leave()
        for line in ("Shutting down", "Waiting for application shutdown.", "Application shutdown complete."):
            say(f"INFO:     {line}")

    def _asked_to_stop(self) -> None:
        if not self.script.has("deaf"):
            self.stop.set()

    async def _leave(self) -> None:
        """Without a drain everything under way is aborted; then engine core and workers are ended."""
        self.server.close()
        limit = self.options.shutdown_timeout or 0
        log(
            "APIServer",
            f"[shutdown] API server: stopping engine client mode={'drain' if limit else 'abort'} timeout={limit}s",
        )
        if self.script.has("hang-on-term") and self.server.open and not limit:
            kill(self.core)
            log("APIServer", "Waiting for connections to close. (CTRL+C to force quit)")
            await for_ever()
        if limit:
            try:
                async with asyncio.timeout(limit / self.script.speed):
                    await self.server.idle()
            except TimeoutError:
                pass
        self.aborted.set()
        await self.server.idle()
        kill(self.core, signal.SIGTERM)
        while not gone(self.core):
            await asyncio.sleep(0.005)

    async def _watch(self) -> None:
        while not gone(self.core):
            await asyncio.sleep(0.01)
        self.dead = True
        self.aborted.set()
        await self.script.pause(3.0)
        self.stop.set()

    # The answers

    def _routes(self) -> dict[str, Any]:
        routes = {
            "GET /health": self._health, "GET /ping": self._health, "POST /ping": self._health,
            "GET /v1/models": self._models, "GET /version": self._version,
            "POST /v1/chat/completions": self._chat, "POST /v1/completions": self._complete, "GET /load": self._load,
        }  # fmt: skip
        if self.options.runner == "pooling":
            routes["POST /v1/embeddings"] = self._embed
        if os.environ.get("VLLM_SERVER_DEV_MODE") == "1":
            routes |= {"POST /sleep": self._sleep, "POST /wake_up": self._wake, "GET /is_sleeping": self._sleeping}
        return routes

    async def _before(self, exchange: Exchange) -> bool:
        guarded = exchange.request.path.startswith(("/v1", "/v2", "/inference", "/cohere"))
        if guarded and self.key and exchange.request.bearer != self.key:
            await exchange.send(401, {"error": "Unauthorized"})
            return False
        return True

    async def _missing(self, exchange: Exchange) -> None:
        await exchange.send(404, {"detail": "Not Found"})

    async def _health(self, exchange: Exchange) -> None:
        await exchange.send(503 if self.dead else 200)

    async def _version(self, exchange: Exchange) -> None:
        await exchange.send(200, {"version": "0.33.0"})

    async def _load(self, exchange: Exchange) -> None:
        await exchange.send(200, {"server_load": len(self.server.open) - 1})

    async def _models(self, exchange: Exchange) -> None:
        cards = [
            {"id": name, "object": "model", "created": now(), "owned_by": "vllm", "root": self.options.model_tag,
             "parent": None, "max_model_len": self.options.max_model_len or 4096}
            for name in self.names
        ]  # fmt: skip
        await exchange.send(200, {"object": "list", "data": cards})

    async def _sleep(self, exchange: Exchange) -> None:
        level = int(exchange.request.query.get("level", ["1"])[0])
        self.asleep = True
        self.awake.clear()
        if self.script.has("hang-sleep"):
            await for_ever()
        if not self.script.has("light-sleep"):
            hold(ASLEEP)
        log("EngineCore", "Sleep mode freed 62.10 GiB memory, 1.61 GiB memory is still in use.", self.core)
        await exchange.send(200, {"status": "sleeping", "level": level})

    async def _wake(self, exchange: Exchange) -> None:
        if self.script.has("no-wake"):
            await exchange.send(500, b"Internal Server Error", kind="text/plain")
            return
        hold()
        self.asleep = False
        self.awake.set()
        await exchange.send(200, {"status": "awake", "tags": None})

    async def _sleeping(self, exchange: Exchange) -> None:
        await exchange.send(200, {"is_sleeping": self.asleep})

    def _error(self, message: str, kind: str, code: int, param: str | None = None) -> dict[str, object]:
        return {"error": {"message": message, "type": kind, "param": param, "code": code}}

    async def _chat(self, exchange: Exchange) -> None:
        if self.script.has("base"):
            text = "As of transformers v4.44, default chat template is no longer allowed, so you must provide a chat template"
            await exchange.send(400, self._error(text, "BadRequestError", 400))
            return
        await self._generate(exchange, chat=True)

    async def _complete(self, exchange: Exchange) -> None:
        await self._generate(exchange, chat=False)

    async def _generate(self, exchange: Exchange, *, chat: bool) -> None:
        body = exchange.request.json()
        if ("messages" if chat else "prompt") not in body:
            await exchange.send(400, self._error("1 validation error: Field required", "Bad Request", 400))
            return
        name = body.get("model") or self.names[0]
        if name not in self.names:
            text = f"The model `{name}` does not exist. Valid aliases: {', '.join(self.names)}."
            await exchange.send(404, self._error(text, "NotFoundError", 404, "model"))
            return
        if self.asleep:
            await self.awake.wait()
        if self.script.has("mute"):
            await exchange.until_left()
        await answer(
            exchange, self.script, FORM, str(name), chat=chat, between=lambda speech: self._between(exchange, speech)
        )

    async def _between(self, exchange: Exchange, speech: Speech) -> None:
        if len(speech.spoken) == 2 and self.script.has("crash-midstream"):
            kill(self.core)
            await self.aborted.wait()
        if len(speech.spoken) == 2 and self.script.has("stall-midstream"):
            await exchange.until_left()
        if self.script.has("hang-on-term") and self.stop.is_set():
            await for_ever()
        if not self.aborted.is_set():
            return
        if self.dead:
            text = "EngineCore encountered an issue. See stack trace (above) for the root cause."
            await exchange.event(self._error(text, "InternalServerError", 500))
        else:
            choice = FORM.choice({}, "abort", chat=True)
            await exchange.event({**FORM.frame(self.names[0], "chat.completion.chunk", chat=True), "choices": [choice]})
        await exchange.event("[DONE]")
        await exchange.finish()
        raise OverError

    async def _embed(self, exchange: Exchange) -> None:
        entry = {"object": "embedding", "index": 0, "embedding": [0.5, 0.5, 0.5, 0.5]}
        await exchange.send(200, {"object": "list", "data": [entry], "model": self.names[0]})


async def run(options: argparse.Namespace, script: Script, core: int, bound: Any) -> None:
    engine = VLLM(options, script, core)
    await engine.load()
    await engine.serve(bound)


def core_with_workers(workers: list[str]) -> None:
    """The engine core: its workers watch it through a pipe and end with it, it watches nobody."""
    pids = [spawn(f"VLLM::{worker}", signal.SIGKILL) for worker in workers]
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    while pids:
        signal.pause()


def main(words: list[str]) -> int:
    options = parse([word for word in words if word != "serve"])
    script = Script.from_environment((options.served_model_name or [options.model_tag])[0])
    try:
        bound = bind(options.host or "0.0.0.0", options.port)
    except OSError as error:
        say(f"(APIServer pid={os.getpid()}) OSError: [Errno 98] Address already in use: {error}")
        return 1
    ranks = range(options.tensor_parallel_size)
    workers = [f"Worker_TP{rank}" for rank in ranks] if len(ranks) > 1 else ["Worker"]
    # The engine core must not hold the port, or it would stay taken after a SIGKILL of the server.

    def engine_core() -> None:
        bound.close()
        core_with_workers(workers)

    core = spawn("VLLM::EngineCore", then=engine_core)
    asyncio.run(run(options, script, core, bound))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
