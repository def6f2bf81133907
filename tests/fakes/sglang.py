"""A stand-in for SGLang 0.5.23 that follows its source and its recorded behaviour on a CPU, as a real process.

    python sglang.py serve --model-path DIR --served-model-name NAME --host 127.0.0.1 --port PORT ...

Followed to the letter: weights, cache and graphs come before the port; while the warm-up runs ``/v1/models`` is
200 and ``/ready`` 503; a busy port is found after the whole load and then it lives on; keys are printed in the
log; any model name works and is echoed; SIGTERM drains without limit in steps of 5 s and ends with 0; before the
first request SIGTERM kills; children die with their parent; a failed load is a SIGKILL of itself.

``FAKE_TRAP``: ``oom`` ``capture-oom`` ``torch-oom`` ``bad-quant`` ``unbalanced`` (fail so while loading), ``hang-load``
(never gets on), ``old`` (0.4.6: no ``/ready``, ``/health`` 200 at once, old names), ``base`` (no chat template),
``mute`` (ready, but a chat never answers), ``crash-midstream`` (the scheduler dies), ``stall-midstream``,
``deaf`` (ignores SIGTERM).
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
    opening={"role": "assistant", "content": ""},
    in_delta={"reasoning_content": None},
    in_choice={"logprobs": None, "matched_stop": None},
)
TRAPS = {
    "oom": "ValueError: Not enough memory. Please try to increase --mem-fraction-static. self.server_args.mem_fraction_static=0.5",
    "capture-oom": "Exception: Capture cuda graph failed: CUDA out of memory. Tried to allocate 1.20 GiB. GPU 1 has a total "
    "capacity of 79.11 GiB of which 512.00 MiB is free.",
    "torch-oom": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of "
    "23.64 GiB of which 1.13 GiB is free.",
    "bad-quant": "ValueError: Unknown quantization method: exl3. Must be one of ['awq', 'fp8', 'gptq'].",
    "unbalanced": "ValueError: The memory capacity is unbalanced. Some GPUs may be occupied by other processes. "
    "pre_model_load_memory=3.1, local_gpu_memory=79.1, local_gpu_memory * 0.9=71.2",
}
#: Seconds at speed 1: the framework's imports, each shard, the cache, each captured graph, the warm-up.
ASLEEP = 2**30
IMPORTS_S, SHARD_S, CACHE_S, GRAPH_S, WARM_UP_S = 8.0, 1.5, 0.5, 0.5, 2.0
WATCHDOG_S = 5.0


def parse(words: list[str]) -> argparse.Namespace:
    """The options, those of the ``--config`` file below those of the command line."""
    parser = argparse.ArgumentParser(prog="sglang serve")
    parser.add_argument("--model-path", "--model", required=True)
    parser.add_argument("--served-model-name")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=30000)
    parser.add_argument("--tp-size", "--tensor-parallel-size", type=int, default=1)
    parser.add_argument("--pp-size", "--pipeline-parallel-size", type=int, default=1)
    parser.add_argument("--dp-size", "--data-parallel-size", type=int, default=1)
    for name, kind in (("context-length", int), ("max-running-requests", int), ("max-total-tokens", int)):
        parser.add_argument(f"--{name}", type=kind)
    for name in (
        "kv-cache-dtype",
        "quantization",
        "chat-template",
        "reasoning-parser",
        "tool-call-parser",
        "log-level",
    ):
        parser.add_argument(f"--{name}")
    parser.add_argument("--mem-fraction-static", type=float)
    parser.add_argument("--speculative-draft-model-path")
    parser.add_argument("--lora-paths", nargs="+")
    parser.add_argument("--api-key")
    parser.add_argument("--admin-api-key")
    for name in (
        "sleep-on-idle", "enable-metrics", "enable-memory-saver", "enable-weights-cpu-backup", "is-embedding",
        "skip-server-warmup", "trust-remote-code", "disable-cuda-graph",
    ):  # fmt: skip
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--config", help="Read CLI options from a config file. Must be a YAML file.")
    if "--config" in words:
        at = words.index("--config")
        pairs = [line.split(":", 1) for line in Path(words[at + 1]).read_text().splitlines() if line.strip()]
        below = [word for name, value in pairs for word in (f"--{name.strip()}", value.strip().strip('"'))]
        words = below + words[:at] + words[at + 2 :]
    return parser.parse_args(words)


def log(text: str, rank: str = "") -> None:
    say(f"[{time.strftime('%Y-%m-%d %H:%M:%S')}{rank}] {text}")


class SGLang:
    """One server."""

    def __init__(self, options: argparse.Namespace, script: Script) -> None:
        self.options = options
        self.script = script
        self.name = options.served_model_name or options.model_path
        self.ranks = [f" TP{rank}" for rank in range(options.tp_size)] if options.tp_size > 1 else [""]
        self.children: list[int] = []
        self.up = self.unhealthy = self.draining = self.graceful = False
        self.released: set[str] = set()
        self.stop = asyncio.Event()
        self.server = Server(self._routes(), self._missing, self._before)

    # The load

    async def load(self) -> None:
        log(f"server_args={{'model_path': '{self.options.model_path}', 'api_key': '{self.options.api_key}', "
            f"'admin_api_key': '{self.options.admin_api_key}', 'port': {self.options.port}}}")  # fmt: skip
        await self.script.pause(IMPORTS_S)
        log("Ignore import error when loading sglang.srt.models.midashenglm: No module named 'torchaudio'")
        for rank in self.ranks:
            log("Init parallel begin.", rank)
            log("Init parallel ends. elapsed=0.21 s", rank)
            log("Memory baseline taken. mem usage=0.48 GB", rank)
            log("Load weight begin. avail mem=78.58 GB", rank)
        if self.script.has("hang-load"):
            await for_ever()
        self._fail_if("bad-quant", "unbalanced", "torch-oom")
        await self._shards()
        hold()
        for rank in self.ranks:
            log("Load weight end. elapsed=6.02 s, type=LlamaForCausalLM, avail mem=40.11 GB, mem usage=38.47 GB.", rank)
        self._fail_if("oom")
        await self.script.pause(CACHE_S)
        for rank in self.ranks:
            log("KV Cache is allocated. dtype: torch.bfloat16, #tokens: 160000, K size: 9.77 GB, V size: 9.77 GB", rank)
            log("Capture target decode CUDA graph begin. This can take up to several minutes. avail mem=20.1 GB", rank)
        await self._graphs()
        self._fail_if("capture-oom")
        for rank in self.ranks:
            log("Capture target decode CUDA graph end. elapsed=2.01 s, mem usage=0.61 GB. avail mem=19.5 GB.", rank)
        context = self.options.context_length or 4096
        log(f"max_total_num_tokens=160000, chunked_prefill_size=8192, max_running_requests=2048, context_len={context}, "
            "available_gpu_mem=19.48 GB", self.ranks[0])  # fmt: skip

    async def _shards(self) -> None:
        shape = "Multi-thread loading shards: {:3d}% Completed | {}/4 [00:0{}<00:0{}, 1.52s/it]"
        states = (shape.format(done * 25, done, done, 4 - done) for done in range(5))
        await bar(states, self.script.pauses(SHARD_S))

    async def _graphs(self) -> None:
        shape = "Capturing batches (bs={} avail_mem=19.70 GB): {:3d}%|{:4}| {}/4 [00:00<00:00]"
        states = (shape.format(batch, done * 25, "█" * done, done) for done, batch in enumerate((8, 4, 2, 1, 1)))
        await bar(states, self.script.pauses(GRAPH_S))

    def _fail_if(self, *traps: str) -> None:
        for trap in traps:
            if self.script.has(trap):
                log(f"Scheduler hit an exception: Traceback (most recent call last):\n  File \"scheduler.py\"\n{TRAPS[trap]}\n",
                    self.ranks[0])  # fmt: skip
                log("Received sigquit from a child process. It usually means the child failed.")
                os.kill(os.getpid(), signal.SIGKILL)

    # The server

    async def serve(self) -> None:
        log(f"INFO:     Started server process [{os.getpid()}]")
        log("INFO:     Waiting for application startup.")
        log("INFO:     Application startup complete.")
        try:
            bound = bind(self.options.host, self.options.port)
            await self.server.listen(bound)
        except OSError:
            address = f"('{self.options.host}', {self.options.port})"
            log(f"ERROR:    [Errno 98] error while attempting to bind on address {address}: address already in use")
            await for_ever()
        log(f"INFO:     Uvicorn running on http://{self.options.host}:{self.options.port} (Press CTRL+C to quit)")
        watch = start(self._watch())
        if not self.options.skip_server_warmup:
            self._take_signals()
            await self.script.pause(WARM_UP_S)
        self.up = True
        log("The server is fired up and ready to roll!")
        await self.stop.wait()
        await self._drain()
        watch.cancel()
        for child in self.children:
            kill(child, signal.SIGTERM)

    def _take_signals(self) -> None:
        """Its handler comes with the first request, not before."""
        if not self.graceful:
            self.graceful = True
            on_signal(signal.SIGTERM, self._asked_to_stop)

    def _asked_to_stop(self) -> None:
        if self.script.has("deaf"):
            return
        log("SIGTERM received. signum=None frame=None. Draining requests and shutting down...")
        self.draining = True
        self.stop.set()

    async def _drain(self) -> None:
        while True:
            await self.script.pause(WATCHDOG_S)
            running = [e for e in self.server.open if e.request.path.startswith(("/v1/", "/generate"))]
            if not running:
                break
            log(f"Gracefully exiting... Remaining number of requests {len(running)}.")
        log("Gracefully exiting... Remaining number of requests 0. Remaining requests remaining_rids=[].")
        log("INFO:     Shutting down")
        log(f"INFO:     Finished server process [{os.getpid()}]")

    async def _watch(self) -> None:
        """A dead child is found out, and then all of it is killed."""
        while not any(gone(child) for child in self.children):
            await self.script.pause(1.0)
        log("Received sigquit from a child process. It usually means the child failed.")
        for child in self.children:
            kill(child)
        os.kill(os.getpid(), signal.SIGKILL)

    def _crash(self, why: str) -> None:
        log(f"Scheduler hit an exception: Traceback (most recent call last):\n{why}", self.ranks[0])
        kill(self.children[0])

    # The answers

    def _routes(self) -> dict[str, Any]:
        old = self.script.has("old")
        info = "/get_model_info" if old else "/model_info"
        routes = {
            "GET /health": self._health, "GET /health_generate": self._health, "GET /ping": self._flags,
            "GET /v1/models": self._models, f"GET {info}": self._info, "GET /get_model_info": self._info,
            "POST /v1/chat/completions": self._chat, "POST /v1/completions": self._complete,
            "POST /v1/embeddings": self._embed, "POST /abort_request": self._abort,
            "POST /release_memory_occupation": self._release, "POST /resume_memory_occupation": self._resume,
            "GET /v1/loads": self._loads, "POST /v1/messages": self._messages,
        }  # fmt: skip
        return routes if old else {**routes, "GET /ready": self._flags}

    async def _before(self, exchange: Exchange) -> bool:
        request = exchange.request
        if request.path.startswith(("/health", "/ready", "/metrics")):
            return True
        self._take_signals()
        needed = self.options.api_key
        admin_paths = ("/release_memory", "/resume_memory", "/abort_request")
        if request.path.startswith(admin_paths) and self.options.admin_api_key:
            needed = self.options.admin_api_key
        if needed and request.bearer != needed:
            await exchange.send(401, {"error": "Unauthorized"})
            return False
        return True

    async def _missing(self, exchange: Exchange) -> None:
        await exchange.send(404, {"detail": "Not Found"})

    async def _flags(self, exchange: Exchange) -> None:
        await exchange.send(200 if self.up and not self.unhealthy and not self.draining else 503)

    async def _health(self, exchange: Exchange) -> None:
        if self.script.has("old"):
            await exchange.send(200)
            return
        if self.released:
            self._crash("RuntimeError: CUDA error: an illegal memory access was encountered")
        elif not self.up or self.draining:
            await exchange.send(503)
            return
        await self.script.pause(1.0)
        await exchange.send(200)

    async def _models(self, exchange: Exchange) -> None:
        card = {"id": self.name, "object": "model", "created": now(), "owned_by": "sglang", "root": self.name,
                "parent": None, "max_model_len": self.options.context_length or 4096}  # fmt: skip
        await exchange.send(200, {"object": "list", "data": [card]})

    async def _info(self, exchange: Exchange) -> None:
        await exchange.send(200, {
            "model_path": self.options.model_path, "served_model_name": self.name,
            "tokenizer_path": self.options.model_path, "is_generation": not self.options.is_embedding,
        })  # fmt: skip

    async def _loads(self, exchange: Exchange) -> None:
        running = sum(e.request.path.startswith("/v1/c") for e in self.server.open)
        await exchange.send(200, {"loads": [{"dp_rank": 0, "num_running_reqs": running, "num_waiting_reqs": 0}]})

    async def _chat(self, exchange: Exchange) -> None:
        if self.script.has("base"):
            text = "Cannot use chat template functions because tokenizer.chat_template is not set"
            await exchange.send(400, self._error(text))
            return
        await self._generate(exchange, chat=True)

    async def _complete(self, exchange: Exchange) -> None:
        await self._generate(exchange, chat=False)

    def _error(self, text: str, code: int = 400, kind: str = "BadRequestError") -> dict[str, object]:
        return {"object": "error", "message": text, "type": kind, "param": None, "code": code}

    async def _generate(self, exchange: Exchange, *, chat: bool) -> None:
        body = exchange.request.json()
        if ("messages" if chat else "prompt") not in body:
            await exchange.send(400, self._error("1 validation error: Field required"))
            return
        if self.released:
            self._crash("RuntimeError: CUDA error: an illegal memory access was encountered")
        if self.script.has("mute") or self.released:
            await exchange.until_left()
        model = str(body.get("model") or self.name)

        async def between(speech: Speech) -> None:
            if len(speech.spoken) == 2 and self.script.has("crash-midstream"):
                self._crash("RuntimeError: device-side assert triggered")
            if len(speech.spoken) == 2 and self.script.traps & {"crash-midstream", "stall-midstream"}:
                await exchange.until_left()

        await answer(exchange, self.script, FORM, model, chat=chat, between=between)

    async def _messages(self, exchange: Exchange) -> None:
        body = exchange.request.json()
        speech = Speech.of(self.script, body)
        async for _ in speech.paced(self.script):
            continue
        usage = speech.usage(body)
        await exchange.send(200, {
            "id": "msg_1", "type": "message", "role": "assistant", "model": body.get("model"),
            "content": [{"type": "text", "text": speech.text}], "stop_reason": "end_turn",
            "usage": {"input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"]},
        })  # fmt: skip

    async def _embed(self, exchange: Exchange) -> None:
        if not self.options.is_embedding:
            await exchange.send(400, self._error("This model does not appear to be an embedding model"))
            return
        entry = {"object": "embedding", "index": 0, "embedding": [0.5, 0.5, 0.5, 0.5]}
        await exchange.send(200, {"object": "list", "data": [entry], "model": self.name, "usage": {"prompt_tokens": 3}})

    async def _abort(self, exchange: Exchange) -> None:
        if exchange.request.json().get("abort_all"):
            for other in self.server.open - {exchange}:
                if other.request.path.startswith("/v1/c"):
                    other.abort()
        await exchange.send(200)

    async def _release(self, exchange: Exchange) -> None:
        busy = any(e.request.path.startswith("/v1/c") for e in self.server.open)
        if busy:
            self._crash("AssertionError: release_memory_occupation should be called only when server is idle.")
        elif self.options.enable_memory_saver:
            self.released = {"kv_cache", "weights", "cuda_graph"}
            hold(ASLEEP)
        await exchange.send(200, b"null")

    async def _resume(self, exchange: Exchange) -> None:
        if self.options.enable_memory_saver and not self.released:
            self._crash("KeyError: 'weights'")
        self.released = set()
        hold()
        await exchange.send(200, b"null")


async def run(engine: SGLang) -> None:
    await engine.load()
    await engine.serve()


def main(words: list[str]) -> int:
    options = parse([word for word in words if word != "serve"])
    script = Script.from_environment(options.served_model_name or options.model_path)
    ranks = [f"_TP{rank}" for rank in range(options.tp_size)] if options.tp_size > 1 else [""]
    titles = [f"sglang::scheduler{rank}" for rank in ranks] + ["sglang::detokenizer"]
    children = [spawn(title, signal.SIGKILL) for title in titles]
    engine = SGLang(options, script)
    engine.children = children
    asyncio.run(run(engine))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
