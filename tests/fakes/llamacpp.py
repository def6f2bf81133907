"""A stand-in for ``llama-server`` that follows its recorded behaviour, as a program of the standard library.

    python llamacpp.py -m FILE --alias NAME --host 127.0.0.1 --port PORT ...

Followed to the letter: the port opens before the load and answers 503 "Loading model" to everything; the texts
of the log with their prefix; exit codes 1 (file, port, argument), -15 (SIGTERM while loading), 0 (after);
the listener closes at SIGTERM and an open stream ends without ``[DONE]``; a whole answer in flight keeps the
process alive; an unknown ``model`` in a request is ignored; 401 and 501 bodies; timings.

The environment makes it misbehave: ``FAKE_LOAD_S`` and ``FAKE_TOKEN_S`` (seconds), and ``FAKE_TRAP``, one of
``hang`` (loads for ever, without moving), ``router`` (healthy, but a router), ``oom``, ``arch``, ``abort`` (dies
so while loading), ``dumb`` (healthy, but every chat is a 500), ``dumb-later`` (so from the third chat on), ``mute`` (healthy, but never answers a chat),
``deaf`` (ignores SIGTERM).
"""

import argparse
import json
import os
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NoReturn

from llm_router.formats.gguf import GgufHeader, read_header

BEGAN = time.monotonic()
TRAP = os.environ.get("FAKE_TRAP", "")
LOAD_S = float(os.environ.get("FAKE_LOAD_S", "0.05"))
TOKEN_S = float(os.environ.get("FAKE_TOKEN_S", "0.001"))
LOADING = {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}


def log(text: str, level: str = "I") -> None:
    """A line with the elapsed minutes, seconds, milliseconds and microseconds before it."""
    micros = int((time.monotonic() - BEGAN) * 1e6)
    stamp = f"{micros // 60_000_000}.{micros // 1_000_000 % 60:02}.{micros // 1000 % 1000:03}.{micros % 1000:03}"
    print(f"{stamp} {level} {text}", file=sys.stderr, flush=True)


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"error: invalid argument: {message.rsplit(': ', maxsplit=1)[-1].split(maxsplit=1)[0]}", file=sys.stderr)
        raise SystemExit(1)


def arguments() -> argparse.Namespace:
    flags = Parser(allow_abbrev=False)
    for names in (
        "-m --model",
        "-a --alias",
        "--host",
        "-ngl --gpu-layers",
        "-fit",
        "-ctk",
        "-ctv",
        "-fa",
        "-lm --load-mode",
        "--api-key-file",
        "--pooling",
    ):
        flags.add_argument(*names.split())
    for names in (
        "--port",
        "-c --ctx-size",
        "-np --parallel",
        "-t --threads",
        "-lv --verbosity",
        "--sse-ping-interval",
        "--cache-ram",
    ):
        flags.add_argument(*names.split(), type=int, default=0)
    for names in ("-kvu --kv-unified", "--offline", "--metrics", "--embeddings", "--rerank", "--check-tensors"):
        flags.add_argument(*names.split(), action="store_true")
    return flags.parse_args()


class State:
    """What the server is at the moment."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.alias = (options.alias or Path(options.model).name).split(",")[0]
        self.key = os.environ.get("LLAMA_API_KEY")
        self.ready = False
        self.stopping = threading.Event()
        self.context = min(options.ctx_size or 4096, 4096) // (1 if options.kv_unified else max(options.parallel, 1))
        self.name = ""
        self.answering = threading.Condition()
        self.answers = 0
        self.chats = 0

    def words(self) -> list[str]:
        return ["I", " am", f" {self.name},", " a", " fake", " model."]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: State

    def version_string(self) -> str:
        return "llama.cpp"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """The real one does not log requests either."""

    def answer(self, status: int, body: object) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def fail(self, status: int, kind: str, message: str) -> None:
        self.answer(status, {"error": {"message": message, "type": kind, "code": status}})

    def allowed(self) -> bool:
        """Whether the model is loaded and the key is right; answers otherwise."""
        if not self.state.ready:
            self.answer(503, LOADING)
            return False
        path = self.path.split("?")[0]
        if path in ("/health", "/v1/health") or not self.state.key:
            return True
        given = self.headers.get("X-Api-Key") or (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if given != self.state.key:
            self.fail(401, "authentication_error", "Invalid API Key")
            return False
        return True

    def do_GET(self) -> None:
        if not self.allowed():
            return
        state, path = self.state, self.path.split("?")[0]
        if path in ("/health", "/v1/health"):
            self.answer(200, {"status": "ok"})
        elif path == "/props" and TRAP == "router":
            self.answer(200, {"role": "router", "max_instances": 4, "models_autoload": True})
        elif path == "/props":
            self.answer(
                200,
                {
                    "default_generation_settings": {"n_ctx": state.context},
                    "total_slots": max(state.options.parallel, 1),
                    "model_alias": state.alias,
                    "model_path": state.options.model,
                    "is_sleeping": False,
                    "build_info": "b0-fake",
                },
            )
        elif path in ("/v1/models", "/models"):
            meta = {"n_ctx": state.context, "n_ctx_train": 4096}
            card = {
                "id": state.alias,
                "aliases": [state.alias],
                "object": "model",
                "owned_by": "llamacpp",
                "meta": meta,
            }
            self.answer(200, {"object": "list", "data": [card]})
        else:
            self.fail(404, "not_found_error", "File Not Found")

    def do_POST(self) -> None:
        state = self.state
        with state.answering:
            state.answers += 1
        try:
            self.post()
        finally:
            with state.answering:
                state.answers -= 1
                state.answering.notify()

    def post(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self.allowed():
            return
        try:
            asked = json.loads(raw)
        except ValueError:
            self.fail(400, "invalid_request_error", "failed to parse request body as JSON")
            return
        path, options = self.path.split("?")[0], self.state.options
        if path == "/v1/embeddings" and options.embeddings:
            self.answer(200, {"object": "list", "data": [{"embedding": [0.6, 0.8], "index": 0, "object": "embedding"}]})
        elif path == "/v1/rerank" and options.rerank:
            self.answer(200, {"object": "list", "results": [{"index": 0, "relevance_score": 0.5}]})
        elif path in ("/v1/embeddings", "/v1/rerank"):
            self.fail(
                501, "not_supported_error", f"This server does not support {path[4:]}. Start it with `--{path[4:]}`"
            )
        elif path == "/v1/chat/completions":
            self.chat(asked)
        else:
            self.fail(404, "not_found_error", "File Not Found")

    def chat(self, asked: dict[str, Any]) -> None:
        if TRAP == "mute":
            time.sleep(3600)
        self.state.chats += 1
        if TRAP == "dumb" or (TRAP == "dumb-later" and self.state.chats > 2):
            self.fail(500, "server_error", "Compute error.")
        elif not isinstance(asked.get("messages"), list):
            self.fail(400, "invalid_request_error", "'messages' is required")
        elif asked.get("stream"):
            self.stream(asked)
        else:
            # It does not notice that its client leaves, nor that it should stop.
            words = list(self.generate(asked, deaf=True))
            self.answer(200, self.whole(words, asked))

    def generate(self, asked: dict[str, Any], *, deaf: bool = False) -> Any:
        sentence = self.state.words()
        limit = asked.get("max_tokens") or (10**9 if asked.get("ignore_eos") else len(sentence))
        limit = limit if asked.get("ignore_eos") else min(limit, len(sentence))
        for number in range(limit):
            if self.state.stopping.is_set() and not deaf:
                return
            time.sleep(TOKEN_S)
            yield sentence[number % len(sentence)]

    def usage(self, count: int) -> dict[str, Any]:
        timings = {"cache_n": 0, "prompt_n": 6, "prompt_ms": 1.0, "predicted_n": count, "predicted_ms": count * 1.0}
        return {
            "usage": {"prompt_tokens": 6, "completion_tokens": count, "total_tokens": 6 + count},
            "timings": timings,
        }

    def head(self, kind: str) -> dict[str, Any]:
        return {"id": "chatcmpl-fake", "object": kind, "created": int(time.time()), "model": self.state.alias}

    def reason(self, count: int) -> str:
        return "stop" if count >= len(self.state.words()) else "length"

    def whole(self, words: list[str], asked: dict[str, Any]) -> dict[str, Any]:
        message = {"role": "assistant", "content": "".join(words)}
        choice = {"index": 0, "message": message, "finish_reason": self.reason(len(words))}
        return self.head("chat.completion") | {"choices": [choice]} | self.usage(len(words))

    def stream(self, asked: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            self.stream_events(asked)
        except OSError:
            log("srv  operator(): the client left", "W")
        self.close_connection = True

    def stream_events(self, asked: dict[str, Any]) -> None:
        def event(body: object) -> None:
            raw = b"data: " + (body.encode() if isinstance(body, str) else json.dumps(body).encode()) + b"\n\n"
            self.wfile.write(f"{len(raw):x}\r\n".encode() + raw + b"\r\n")

        def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            return self.head("chat.completion.chunk") | {"choices": [choice]}

        event(chunk({"role": "assistant", "content": None}))
        count = 0
        for word in self.generate(asked):
            event(chunk({"content": word}))
            count += 1
        if not self.state.stopping.is_set():
            event(chunk({}, self.reason(count)))
            if (asked.get("stream_options") or {}).get("include_usage"):
                event(self.head("chat.completion.chunk") | {"choices": []} | self.usage(count))
            event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")


class Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def server_bind(self) -> None:
        # The name look-up of the base class is of no use and may take seconds.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])


def load(state: State) -> None:
    """Read the file as far as the real one would complain of it. Raises ``SystemExit``."""
    path = Path(state.options.model)
    log("srv          init: loading model")
    log(f"srv    load_model: loading model '{path}'")
    try:
        raw = path.read_bytes()
    except OSError as error:
        fail_load(path, f"E gguf_init_from_file: failed to open GGUF file '{path}' ({error.strerror})", "")
    if raw[:4] != b"GGUF":
        fail_load(path, "E gguf_init_from_reader: invalid magic characters: '????', expected 'GGUF'", "")
    header = read_header(raw, len(raw))
    if not isinstance(header, GgufHeader):
        fail_load(
            path,
            "",
            "tensor 'blk.0.attn_q.weight' data is not within the file bounds, model is corrupted or incomplete",
        )
    state.name = header.text("general.name")
    log("load_tensors: loading model tensors, this can take a while... (load_mode = mmap)")
    if TRAP == "hang":
        time.sleep(3600)
    time.sleep(LOAD_S)
    if TRAP == "arch":
        fail_load(path, "", "unknown model architecture: 'wonka'")
    if TRAP == "oom":
        log(
            "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 38912.00 MiB on device 1: cudaMalloc failed: out of memory",
            "E",
        )
        fail_load(path, "", "unable to allocate CUDA1 buffer")
    if TRAP == "abort":
        print(
            "/src/ggml/src/ggml-cuda/ggml-cuda.cu:98: CUDA error: an illegal memory access", file=sys.stderr, flush=True
        )
        os.abort()
    log("llama_context: constructing llama_context")
    log("llama_kv_cache: size =    1.00 MiB (  4096 cells,   1 layers,  1/1 seqs)")
    log("cmn  common_init_: warming up the model with an empty run - please wait ... (--no-warmup to disable)")


def fail_load(path: Path, first: str, cause: str) -> NoReturn:
    if first:
        log(first[2:], first[0])
    log(
        f"llama_model_load: error loading model: {cause or f'llama_model_loader: failed to load model from {path}'}",
        "E",
    )
    log(f"srv    load_model: failed to load model, '{path}'", "E")
    log("srv          init: exiting due to model loading error", "E")
    os._exit(1)


def main() -> None:
    options = arguments()
    state = State(options)
    Handler.state = state
    log("srv          init: initializing ...")
    try:
        server = Server((options.host or "127.0.0.1", options.port), Handler)
    except OSError:
        log(f"srv         start: couldn't bind HTTP server socket, hostname: {options.host}, port: {options.port}", "E")
        log("srv          init: exiting due to HTTP server error", "E")
        raise SystemExit(1) from None
    serving = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    serving.start()
    load(state)
    state.ready = True
    signal.signal(signal.SIGTERM, signal.SIG_IGN if TRAP == "deaf" else lambda *_: state.stopping.set())
    log("srv          init: model loaded")
    log(f"srv          init: listening on http://{options.host}:{options.port}")
    state.stopping.wait()
    server.shutdown()
    server.socket.close()
    # An open whole answer keeps the process, an idle connection does not; streams end by themselves.
    with state.answering:
        state.answering.wait_for(lambda: not state.answers)
    os._exit(0)


if __name__ == "__main__":
    main()
