"""A stand-in for ``transformers serve`` 5.23 that follows its recorded behaviour on a CPU, as a real process.

    python transformers.py serve DIR --host 127.0.0.1 --port PORT --device auto

Followed to the letter: with a model it loads before the port opens; a busy port is found after that (code 3);
the model is ``DIR@main``; another name is a 400, an unknown field a 422, missing messages a 500; streams end
without ``[DONE]`` and always with usage on the last chunk; the model list is a 500; without a model it is
healthy at once, blocks while it loads on demand, and unloads nothing here; SIGTERM waits for open streams and
then dies of the signal.

``FAKE_TRAP``: ``oom`` ``missing`` ``corrupt`` ``no-extra`` (fail so while loading), ``hang-load``, ``mute``,
``crash-midstream``, ``error-midstream``, ``deaf``.
"""

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fakes.engine_base import (
    Exchange,
    OverError,
    Script,
    Server,
    bar,
    bind,
    end_by,
    for_ever,
    hold,
    kill,
    on_signal,
    say,
)
from fakes.speaking import Form, Speech, answer

FORM = Form(
    opening={"role": "assistant"}, usage="last", done=False, finish_early=False, in_chunk={"system_fingerprint": ""}
)
TRAPS = {
    "oom": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.64 GiB "
    "of which 1.13 GiB is free.",
    "missing": "OSError: /nowhere does not appear to have a file named config.json. Checkout 'https://hub/main' for "
    "available files.",
    "corrupt": "safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata, file not fully covered",
    "no-extra": "ImportError: Missing dependencies for serving. Install with `pip install transformers[serving]`",
}
CHAT = frozenset(
    [
        "audio",
        "frequency_penalty",
        "function_call",
        "functions",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "metadata",
        "modalities",
        "model",
        "moderation",
        "n",
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning_effort",
        "response_format",
        "safety_identifier",
        "seed",
        "service_tier",
        "stop",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
        "web_search_options",
        "generation_config",
        "chat_template_kwargs",
    ]
)
TEXT = frozenset(
    [
        "best_of",
        "echo",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "max_tokens",
        "model",
        "n",
        "presence_penalty",
        "prompt",
        "seed",
        "stop",
        "stream",
        "stream_options",
        "suffix",
        "temperature",
        "top_p",
        "user",
        "generation_config",
    ]
)
IMPORTS_S, WEIGHTS_S = 2.0, 1.5


def parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="transformers serve")
    parser.add_argument("force_model", nargs="?")
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--device", default="auto")
    for name in ("dtype", "quantization", "attn-implementation", "log-level", "reasoning", "chat-template-kwargs"):
        parser.add_argument(f"--{name}")
    for name in ("continuous-batching", "compile", "trust-remote-code", "enable-cors"):
        parser.add_argument(f"--{name}", action=argparse.BooleanOptionalAction)
    return parser.parse_args(words)


class Transformers:
    """One server."""

    def __init__(self, options: argparse.Namespace, script: Script) -> None:
        self.options = options
        self.script = script
        self.stop = asyncio.Event()
        self.loaded: str | None = None
        self.server = Server(
            {
                "GET /health": self._health, "GET /v1/models": self._models,
                "POST /v1/chat/completions": self._chat, "POST /v1/completions": self._complete,
            },
            self._missing,
        )  # fmt: skip

    async def load(self, model: str) -> None:
        say(f"[transformers] Loading {model}@main")
        if self.script.has("hang-load"):
            await for_ever()
        for trap in filter(self.script.has, TRAPS):
            say("Traceback (most recent call last):")
            say(TRAPS[trap])
            raise SystemExit(1)
        shape = "Loading weights: {:3d}%|{:10}| {}/12 [00:00<00:00, 8.1it/s]"
        states = (shape.format(done * 100 // 12, "█" * done, done) for done in (0, 3, 6, 9, 12))
        await bar(states, self.script.pauses(WEIGHTS_S / 5))
        hold()
        self.loaded = model

    async def serve(self) -> int:
        await self.script.pause(IMPORTS_S)
        if self.options.force_model:
            await self.load(self.options.force_model)
        say(f"INFO:     Started server process [{os.getpid()}]")
        say("INFO:     Waiting for application startup.")
        say("INFO:     Application startup complete.")
        host, port = self.options.host, self.options.port
        try:
            bound = bind(host, port)
        except OSError:
            address = f"('{host}', {port})"
            say(f"ERROR:    [Errno 98] error while attempting to bind on address {address}: address already in use")
            return 3
        on_signal(signal.SIGTERM, self._asked_to_stop)
        await self.server.listen(bound)
        say(f"INFO:     Uvicorn running on http://{host}:{port} (Press CTRL+C to quit)")
        await self.stop.wait()
        say("INFO:     Shutting down")
        self.server.close()
        await self.server.idle()
        say(f"INFO:     Finished server process [{os.getpid()}]")
        return -signal.SIGTERM

    def _asked_to_stop(self) -> None:
        if not self.script.has("deaf"):
            self.stop.set()

    async def _missing(self, exchange: Exchange) -> None:
        await exchange.send(404, {"detail": "Not Found"})

    async def _health(self, exchange: Exchange) -> None:
        await exchange.send(200, {"status": "ok"})

    async def _models(self, exchange: Exchange) -> None:
        """The hub's cache on disk, which is not there."""
        await self._unhandled(exchange)

    async def _unhandled(self, exchange: Exchange) -> None:
        """An exception of its own: the connection is closed, and nobody was told that it would be."""
        await exchange.send(500, b"Internal Server Error", kind="text/plain; charset=utf-8")
        exchange.hang_up()

    async def _chat(self, exchange: Exchange) -> None:
        await self._generate(exchange, chat=True)

    async def _complete(self, exchange: Exchange) -> None:
        await self._generate(exchange, chat=False)

    async def _generate(self, exchange: Exchange, *, chat: bool) -> None:
        body = exchange.request.json()
        unexpected = set(body) - (CHAT if chat else TEXT)
        if unexpected:
            await exchange.send(422, {"detail": f"Unexpected fields in the request: {unexpected}"})
            return
        pinned, wanted = self.options.force_model, body.get("model")
        if pinned and wanted not in (None, pinned):
            await exchange.send(400, {"detail": f"Server is pinned to '{pinned}'; requested '{wanted}'."})
            return
        if not pinned and self.loaded != wanted:
            await self.load(str(wanted))
        say(f"[transformers] [Request received] Model: {self.loaded}@main, CB: False")
        if ("messages" if chat else "prompt") not in body:
            await self._unhandled(exchange)
            return
        if self.script.has("mute"):
            await for_ever()
        await answer(
            exchange,
            self.script,
            FORM,
            f"{self.loaded}@main",
            chat=chat,
            between=lambda speech: self._between(exchange, speech),
        )

    async def _between(self, exchange: Exchange, speech: Speech) -> None:
        if len(speech.spoken) == 2 and self.script.has("crash-midstream"):
            kill(os.getpid())
        if len(speech.spoken) == 2 and self.script.has("error-midstream"):
            await exchange.event({"error": "CUDA error: device-side assert triggered"})
            await exchange.finish()
            raise OverError


def main(words: list[str]) -> int:
    options = parse([word for word in words if word != "serve"])
    script = Script.from_environment(Path(options.force_model or "a model").name)
    engine = Transformers(options, script)
    code = asyncio.run(engine.serve())
    if code < 0:
        end_by(-code)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
