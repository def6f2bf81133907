"""A stand-in for TabbyAPI (main of August 2026, or ``exl2-checkpoint`` with ``FAKE_BRANCH=exl2``), as a real process.

    python tabbyapi.py        with config.yml and api_tokens.yml in the working directory

Followed to the letter: a busy port means the next one, two busy ports exit code 0; without a model the port opens
at once, with one after the load; both keys are printed; ``/health`` is 200 with no model and 503 for ever after
one internal error; loads by API are event streams with CRLF in which a failure is an event of a 200; streams have
CRLF and pings; usage is only for who asks and rides on a chunk with choices; no ``[DONE]`` after an error or an
unload; a YAML file that cannot be read means defaults; SIGTERM waits for open streams without limit, code 0.

``FAKE_TRAP``: ``oom`` ``no-deps`` ``old-gpu`` (the load fails so), ``hang-load``, ``slow-cache`` (the model comes
seconds after its last event), ``other-model`` (loads another one), ``short`` (its ``tabby_config.yml`` halves the
context), ``mute``, ``no-template``, ``broken-generator`` (first answer breaks it), ``error-midstream``, ``crash-midstream``,
``cut-on-term`` (streams are cut), ``deaf``.
"""

import asyncio
import json
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
    bind,
    for_ever,
    kill,
    on_signal,
    say,
    start,
    taken,
)
from fakes.speaking import Form, Speech, answer

FORM = Form(
    ids=("chatcmpl-", "chatcmpl-"),
    usage="extra",
    whole_usage=False,
    line=b"\r\n",
    text_model="model_name",
)
CRLF = b"\r\n"
TRAPS = {
    "oom": "Insufficient VRAM in split for model and cache",
    "no-deps": "The exllamav3 backend is selected, but required dependencies are not installed.",
    "old-gpu": "Unable to run ExllamaV3 because an unsupported GPU is found in this configuration.\nAll GPUs must be ampere "
    "(30 series) or newer. AMD GPUs are not supported.",
}
IMPORTS_S, MODULE_S, CACHE_S, LATE_S, PING_S = 1.0, 0.1, 0.5, 60.0, 15.0
MODULES = 34


def log(text: str, level: str = "INFO") -> None:
    say(f"{time.strftime('%Y-%m-%d %H:%M:%S')}.000 {level}:     {text}")


def read_yaml(path: Path) -> dict[str, Any]:
    """As much of YAML as block mappings of scalars, with lists, two levels deep. Raises ``ValueError``."""
    found: dict[str, Any] = {}
    section: dict[str, Any] | None = None
    last = ""
    for line in path.read_text().splitlines():
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, colon, value = text.partition(":")
        place = section if line.startswith(" ") and section is not None else found
        if text.startswith("- "):
            if not isinstance(place.get(last), list):
                place[last] = []
            place[last].append(scalar(text[2:]))
        elif not colon:
            raise ValueError(f"mapping values are not allowed here: {text}")
        elif value.strip() or line.startswith(" "):
            place[name], last = scalar(value), name
        else:
            section = found[name] = {}
    return found


def scalar(text: str) -> Any:
    word = text.partition(" #")[0].strip()
    if word in ("true", "false", "null", "[]", ""):
        return {"true": True, "false": False, "[]": []}.get(word)
    return int(word) if word.lstrip("-").isdigit() else word.strip("'\"")


class Model:
    """The one that is loaded."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.id = folder.name
        self.settings = settings


class TabbyAPI:
    """One server."""

    def __init__(self, script: Script, exl2: bool) -> None:
        self.script = script
        self.exl2 = exl2
        self.config = self._read_config()
        self.api_key, self.admin_key = self._read_keys()
        self.model: Model | None = None
        self.issues: list[dict[str, str]] = []
        self.loading = asyncio.Lock()
        self.stop = asyncio.Event()
        self.unloaded = asyncio.Event()
        self.server = Server(self._routes(), self._missing)

    def _read_config(self) -> dict[str, Any]:
        path = Path("config.yml")
        try:
            return read_yaml(path) if path.exists() else {}
        except ValueError as error:
            log(f"The YAML config from '{path}' couldn't load because of the following error:\n{error}", "ERROR")
            return {}

    def _read_keys(self) -> tuple[str, str]:
        path = Path("api_tokens.yml")
        keys = read_yaml(path) if path.exists() else {"api_key": "generated-api", "admin_key": "generated-admin"}
        return str(keys["api_key"]), str(keys["admin_key"])

    def _setting(self, section: str, name: str, default: Any = None) -> Any:
        return self.config.get(section, {}).get(name, default)

    # The process

    async def serve(self) -> None:
        await self.script.pause(IMPORTS_S)
        host, port = self._setting("network", "host", "127.0.0.1"), self._setting("network", "port", 5000)
        if taken("localhost", port):
            if taken("localhost", port + 1):
                log(f"Ports {port} and {port + 1} are in use by different services.", "ERROR")
                log("Please free up those ports or specify a different one.\nExiting.", "ERROR")
                return
            log(f"Port {port} is currently in use. Switching to {port + 1}.", "WARNING")
            port += 1
        if name := self._setting("model", "model_name"):
            await self._start_with(Path(self._setting("model", "model_dir", "models")) / name)
        log(f"Your API key is: {self.api_key}")
        log(f"Your admin key is: {self.admin_key}")
        log("If these keys get compromised, make sure to delete api_tokens.yml and restart the server. Have fun!")
        log(f"Developer documentation: http://{host}:{port}/redoc")
        on_signal(signal.SIGTERM, self._asked_to_stop)
        await self.server.listen(bind(host, port))
        log("Application startup complete.")
        log(f"Uvicorn running on http://{host}:{port} (Press CTRL+C to quit)")
        await self.stop.wait()
        self.server.close()
        log("Shutting down")
        if self.script.has("cut-on-term"):
            for exchange in set(self.server.open):
                exchange.abort()
        await self.server.idle()
        log("Model unloaded.")

    def _asked_to_stop(self) -> None:
        if not self.script.has("deaf"):
            self.stop.set()

    async def _start_with(self, folder: Path) -> None:
        log(f"Loading model: {folder}")
        failure = self._failure(folder)
        if failure:
            say(f"Traceback (most recent call last):\nValueError: {failure}")
            raise SystemExit(1)
        await self.script.pause(MODULE_S * MODULES)
        self.model = Model(folder, {})
        self.script = Script.from_environment(folder.name)
        log("Model successfully loaded.")

    def _failure(self, folder: Path) -> str | None:
        for trap in filter(self.script.has, TRAPS):
            return TRAPS[trap]
        try:
            quantisation = json.loads((folder / "config.json").read_text()).get("quantization_config", {})
        except FileNotFoundError as error:
            return f"[Errno 2] No such file or directory: '{error.filename}'"
        method = quantisation.get("quant_method")
        if method in ("exl2", "gptq") and not self.exl2:
            return (
                f"Models quantized with '{method}' require the exllamav2 backend, which is no longer supported. "
                "Please use an exl3 or unquantized model."
            )
        return None

    # The answers

    def _routes(self) -> dict[str, Any]:
        return {
            "GET /health": self._health, "GET /.well-known/serviceinfo": self._service,
            "GET /v1/model": self._card, "GET /v1/models": self._models, "GET /props": self._props,
            "POST /v1/model/load": self._load, "POST /v1/model/unload": self._unload,
            "POST /v1/chat/completions": self._chat, "POST /v1/completions": self._complete,
        }  # fmt: skip

    async def _missing(self, exchange: Exchange) -> None:
        await exchange.send(404, {"detail": "Not Found"})

    async def _allowed(self, exchange: Exchange, *, admin: bool = False) -> bool:
        """The headers that each kind of route looks at, and no others."""
        if self._setting("network", "disable_auth"):
            return True
        request = exchange.request
        given = request.headers.get("x-admin-key" if admin else "x-api-key") or request.bearer
        allowed = (self.admin_key,) if admin else (self.api_key, self.admin_key)
        if given in allowed:
            return True
        what = "admin" if admin else "API"
        text = f"Invalid {what} key" if given else f"Please provide an {what} key"
        await exchange.send(401, {"detail": text})
        return False

    async def _health(self, exchange: Exchange) -> None:
        status = "unhealthy" if self.issues else "healthy"
        await exchange.send(503 if self.issues else 200, {"status": status, "issues": self.issues})

    async def _service(self, exchange: Exchange) -> None:
        await exchange.send(200, {
            "version": 0.1, "software": {"name": "TabbyAPI", "repository": "", "homepage": ""}, "api": {},
        })  # fmt: skip

    async def _props(self, exchange: Exchange) -> None:
        if await self._allowed(exchange) and await self._loaded(exchange):
            await exchange.send(200, {"total_slots": 1, "default_generation_settings": {"n_ctx": 4096}})

    async def _loaded(self, exchange: Exchange) -> bool:
        if self.model is None:
            code = 400 if self.exl2 else 503
            await exchange.send(code, {"detail": "No models are currently loaded."})
        return self.model is not None

    def _parameters(self) -> dict[str, Any]:
        settings = self.model.settings if self.model else {}
        length = settings.get("max_seq_len", 4096)
        return {
            "max_seq_len": length // 2 if self.script.has("short") else length,
            "cache_size": settings.get("cache_size", length), "cache_mode": settings.get("cache_mode", "FP16"),
            "max_batch_size": 4, "chunk_size": 2048, "prompt_template": "from_tokenizer_config", "use_vision": False,
        }  # fmt: skip

    async def _card(self, exchange: Exchange) -> None:
        if await self._allowed(exchange) and await self._loaded(exchange):
            assert self.model is not None
            await exchange.send(200, {
                "id": self.model.id, "object": "model", "owned_by": "tabbyAPI", "parameters": self._parameters(),
            })  # fmt: skip

    async def _models(self, exchange: Exchange) -> None:
        if not await self._allowed(exchange):
            return
        names = [self.model.id] if self.model else []
        if exchange.request.bearer == self.admin_key:
            names = sorted(folder.name for folder in Path(self._setting("model", "model_dir", "models")).iterdir())
        await exchange.send(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in names]})

    async def _load(self, exchange: Exchange) -> None:
        if not await self._allowed(exchange, admin=True):
            return
        body = exchange.request.json()
        folder = Path(self._setting("model", "model_dir", "models")) / str(body.get("model_name"))
        if "model_name" not in body:
            await exchange.send(400, {"detail": "A model name was not provided for load."})
        elif not folder.is_dir():
            text = "Could not find the model path for load. Check model name or config.yml?"
            await exchange.send(400, {"detail": text})
        else:
            await self._load_events(exchange, folder, body)

    async def _load_events(self, exchange: Exchange, folder: Path, body: dict[str, Any]) -> None:
        await exchange.stream()
        events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        # The load goes on if the client leaves.
        start(self._load_model(events, folder, body))
        while (event := await events.get()) is not None:
            await exchange.event(event, CRLF)
        await exchange.finish()

    async def _load_model(
        self, events: asyncio.Queue[dict[str, Any] | None], folder: Path, body: dict[str, Any]
    ) -> None:
        async with self.loading:
            if self.model and self.model.id == folder.name:
                # The older branch says nothing at all then.
                for status in () if self.exl2 else ("processing", "finished"):
                    events.put_nowait(self._event("model", 1, 1, status))
                events.put_nowait(None)
                return
            self.model = None
            log(f"Loading model: {folder}")
            log("Loading with autosplit")
            failure = self._failure(folder)
            if failure:
                events.put_nowait({"error": {"message": failure, "trace": None}})
                events.put_nowait(None)
                return
            if self.script.has("hang-load"):
                await for_ever()
            kinds = (["draft"] if body.get("draft_model") else []) + ["model"]
            for kind in kinds:
                await self._modules(events, kind, MODULES if kind == "model" else 4)
            late = self.script.has("slow-cache")
            if late:
                events.put_nowait(None)
            await self.script.pause(LATE_S if late else CACHE_S)
            name = folder.with_name("another-model") if self.script.has("other-model") else folder
            self.model = Model(name, body)
            self.script = Script.from_environment(name.name)
            log("Model successfully loaded.")
            if not late:
                events.put_nowait(None)

    async def _modules(self, events: asyncio.Queue[dict[str, Any] | None], kind: str, modules: int) -> None:
        for module in range(1, modules + 1):
            await self.script.pause(MODULE_S)
            events.put_nowait(self._event(kind, module, modules, "processing"))
        events.put_nowait(self._event(kind, modules, modules, "finished"))

    def _event(self, kind: str, module: int, modules: int, status: str) -> dict[str, Any]:
        return {"model_type": kind, "module": module, "modules": modules, "status": status}

    async def _unload(self, exchange: Exchange) -> None:
        if await self._allowed(exchange, admin=True) and await self._loaded(exchange):
            self.model = None
            # What runs is not told: its streams get neither an error nor an end.
            self.unloaded.set()
            self.unloaded = asyncio.Event()
            await exchange.send(200, b"null")

    async def _chat(self, exchange: Exchange) -> None:
        await self._generate(exchange, chat=True)

    async def _complete(self, exchange: Exchange) -> None:
        await self._generate(exchange, chat=False)

    async def _generate(self, exchange: Exchange, *, chat: bool) -> None:
        if not await self._allowed(exchange):
            return
        body = exchange.request.json()
        if self.model is None and body.get("model"):
            await exchange.send(500, b"Internal Server Error", kind="text/plain; charset=utf-8")
            return
        if not await self._loaded(exchange):
            return
        if chat and self.script.has("no-template"):
            text = "Chat completions are disabled because a chat template is not set."
            await exchange.send(422, {"detail": {"error": {"message": text, "trace": None}}})
            return
        if self.script.has("mute"):
            await for_ever()
        if self.script.has("broken-generator"):
            log("FATAL ERROR with generation. Attempting to recreate the generator.", "ERROR")
            self.issues = [{"time": "2026-11-20T12:00:00", "description": "generation failed: AssertionError"}]
        assert self.model is not None
        unloaded = self.unloaded

        async def between(speech: Speech) -> None:
            await self._between(exchange, speech, unloaded)

        await answer(exchange, self.script, FORM, self.model.id, chat=chat, between=between)

    async def _between(self, exchange: Exchange, speech: Speech, unloaded: asyncio.Event) -> None:
        if len(speech.spoken) == 2 and self.script.has("crash-midstream"):
            kill(os.getpid())
        if len(speech.spoken) == 2 and self.script.has("error-midstream"):
            await exchange.event(
                {"error": {"message": "Chat completion aborted. Please check the server console.", "trace": None}}, CRLF
            )
            await exchange.finish()
            raise OverError
        while unloaded.is_set():
            await self.script.pause(PING_S)
            await exchange.write(b": ping - 2026-11-20 12:00:00+00:00\r\n\r\n")


def main() -> int:
    exl2 = os.environ.get("FAKE_BRANCH") == "exl2"
    # SIGTERM before the server runs ends it with 0.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    asyncio.run(run(exl2))
    return 0


async def run(exl2: bool) -> None:
    engine = TabbyAPI(Script.from_environment("TabbyAPI"), exl2)
    await engine.serve()


if __name__ == "__main__":
    sys.exit(main())
