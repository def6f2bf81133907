"""``python -m llm_router.demo.llama_server``: the server inside the ``xllamacpp`` wheel, used like ``llama-server``.

This file knows the names of llama-server's flags and where the wheel keeps each setting. Flags that the wheel
cannot honour are unknown here, and an unknown flag is an error, as in the binary. It knows nothing of the
router. Exit codes as the binary's: 0 after SIGTERM, 1 when the load fails, and death by the signal while the model
loads (llama.cpp, tools/server/server.cpp: handlers are set after the load). One differs: a second SIGTERM ends it
at once by the signal instead of with code 1.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

#: Where a flag's value goes: an attribute of ``CommonParams``, dotted for a part of it.
Place = str
#: ``-np -1``: the binary takes four slots that share one cache.
AUTOMATIC_SLOTS: Final = 4
EVERY_LAYER: Final = 9999

_NUMBERS: Final[dict[str, tuple[tuple[str, ...], type[int] | type[float], str]]] = {
    "port": (("--port",), int, "port to listen on"),
    "n_ctx": (("-c", "--ctx-size"), int, "context in tokens, 0 = the model's"),
    "n_predict": (("-n", "--predict", "--n-predict"), int, "tokens to generate at most, -1 = no limit"),
    "n_batch": (("-b", "--batch-size"), int, "logical batch size"),
    "n_ubatch": (("-ub", "--ubatch-size"), int, "physical batch size"),
    "n_threads_http": (("--threads-http",), int, "threads for HTTP requests"),
    "main_gpu": (("-mg", "--main-gpu"), int, "the GPU to use without a split"),
    "cache_ram_mib": (("-cram", "--cache-ram"), int, "host memory for the prompt cache in MiB, 0 = off"),
    "n_cache_reuse": (("--cache-reuse",), int, "smallest chunk to reuse from the cache"),
    "n_ctx_checkpoints": (("-ctxcp", "--ctx-checkpoints"), int, "context checkpoints per slot"),
    "fit_params_min_ctx": (("-fitc", "--fit-ctx"), int, "smallest context that fitting may choose"),
    "sleep_idle_seconds": (("--sleep-idle-seconds",), int, "idle seconds before the model is unloaded, -1 = never"),
    "sse_ping_interval": (("--sse-ping-interval",), int, "seconds between pings of a silent stream, -1 = never"),
    "timeout_read": (("-to", "--timeout"), int, "server timeout in seconds"),
    "verbosity": (("-lv", "--verbosity", "--log-verbosity"), int, "3 = info, 4 = trace, 5 = debug"),
    "rope_freq_base": (("--rope-freq-base",), float, "RoPE base frequency"),
    "rope_freq_scale": (("--rope-freq-scale",), float, "RoPE frequency scale"),
    "slot_prompt_similarity": (("-sps", "--slot-prompt-similarity"), float, "likeness that a slot's prompt needs"),
    "sampling.temp": (("--temp", "--temperature"), float, "default temperature"),
    "sampling.top_k": (("--top-k",), int, "default top-k"),
    "sampling.top_p": (("--top-p",), float, "default top-p"),
    "sampling.min_p": (("--min-p",), float, "default min-p"),
    "sampling.seed": (("-s", "--seed"), int, "seed of the sampling"),
}
_TEXTS: Final[dict[str, tuple[tuple[str, ...], str]]] = {
    "model.path": (("-m", "--model"), "model file"),
    "mmproj.path": (("-mm", "--mmproj"), "vision projector file"),
    "chat_template": (("--chat-template",), "chat template"),
    "slot_save_path": (("--slot-save-path",), "folder for saved slots"),
    "api_prefix": (("--api-prefix",), "path before every endpoint"),
}
#: ``--x`` sets True, ``--no-x`` sets False; an empty tuple where the binary has no such form.
_SWITCHES: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...], str]]] = {
    "warmup": (("--warmup",), ("--no-warmup",), "an empty run after the load"),
    "endpoint_metrics": (("--metrics",), (), "the endpoint /metrics"),
    "endpoint_slots": (("--slots",), ("--no-slots",), "the endpoint /slots"),
    "endpoint_props": (("--props",), (), "changes by POST /props"),
    "embedding": (("--embedding", "--embeddings"), (), "embeddings only"),
    "use_jinja": (("--jinja",), ("--no-jinja",), "Jinja templates for chat"),
    "cont_batching": (("-cb", "--cont-batching"), ("-nocb", "--no-cont-batching"), "continuous batching"),
    "kv_unified": (("-kvu", "--kv-unified"), ("-no-kvu", "--no-kv-unified"), "one cache that the slots share"),
    "swa_full": (("--swa-full",), (), "a full-size cache for sliding windows"),
    "check_tensors": (("--check-tensors",), (), "look for invalid values while loading"),
    "ctx_shift": (("--context-shift",), ("--no-context-shift",), "shift the context when it is full"),
    "cache_prompt": (("--cache-prompt",), ("--no-cache-prompt",), "keep prompts for reuse"),
    "offline": (("--offline",), (), "never use the network"),
    "ui": (("--ui", "--webui"), ("--no-ui", "--no-webui"), "the web page"),
    "no_kv_offload": (("-nkvo", "--no-kv-offload"), ("-kvo", "--kv-offload"), "keep the cache in host memory"),
}
#: Values that are names: the place, its flags, its type in the wheel and that type's prefix.
_NAMES: Final[dict[str, tuple[tuple[str, ...], str, str, str]]] = {
    "cache_type_k": (("-ctk", "--cache-type-k"), "ggml_type", "GGML_TYPE_", "type of the cache's keys"),
    "cache_type_v": (("-ctv", "--cache-type-v"), "ggml_type", "GGML_TYPE_", "type of the cache's values"),
    "pooling_type": (("--pooling",), "llama_pooling_type", "LLAMA_POOLING_TYPE_", "none, mean, cls, last, rank"),
    "split_mode": (("-sm", "--split-mode"), "llama_split_mode", "LLAMA_SPLIT_MODE_", "none, layer, row, tensor"),
    "load_mode": (("-lm", "--load-mode"), "llama_load_mode", "LLAMA_LOAD_MODE_", "auto, mmap, none, mlock, dio"),
    "flash_attn_type": (("-fa", "--flash-attn"), "llama_flash_attn_type", "LLAMA_FLASH_ATTN_TYPE_", "on, off, auto"),
    "reasoning_format": (
        ("--reasoning-format",),
        "common_reasoning_format",
        "COMMON_REASONING_FORMAT_",
        "auto, none, deepseek, deepseek-legacy",
    ),
}
_OTHER_WORDS: Final = {"ON": "ENABLED", "OFF": "DISABLED", "DIO": "DIRECT_IO"}


class _Parser(argparse.ArgumentParser):
    """Fails as the binary does: one line and exit code 1."""

    def error(self, message: str) -> NoReturn:
        unknown = message.removeprefix("unrecognized arguments: ")
        text = f"invalid argument: {unknown.split()[0]}" if unknown != message else message
        print(f"error: {text}", file=sys.stderr)  # noqa: T201 - the engine's own log
        raise SystemExit(1)


def parser() -> argparse.ArgumentParser:
    """All flags, each with the place of its value as ``dest``."""
    flags = _Parser(prog="llama_server", allow_abbrev=False, description=__doc__, argument_default=argparse.SUPPRESS)
    add = flags.add_argument
    add("--version", action="store_true", help="print the version")
    for place, (numbers, kind, says) in _NUMBERS.items():
        add(*numbers, dest=place, type=kind, metavar="N", help=says)
    for place, (texts, says) in _TEXTS.items():
        add(*texts, dest=place, metavar="TEXT", help=says)
    for place, (names, _, _, says) in _NAMES.items():
        add(*names, dest=place, metavar="WORD", help=says)
    for place, (yes, no, says) in _SWITCHES.items():
        add(*yes, dest=place, action="store_const", const=True, help=says)
        if no:
            add(*no, dest=place, action="store_const", const=False, help=f"not: {says}")
    add("-a", "--alias", dest="alias", metavar="A[,B]", help="names of the model in answers")
    add("--host", dest="host", metavar="ADDRESS[,ADDRESS]", help="addresses to listen on")
    add("-np", "--parallel", dest="parallel", type=int, metavar="N", help="slots, -1 = automatic")
    add("-t", "--threads", dest="threads", type=int, metavar="N", help="threads for generating")
    add("-tb", "--threads-batch", dest="threads_batch", type=int, metavar="N", help="threads for prompts")
    add("-ngl", "--gpu-layers", "--n-gpu-layers", dest="layers", metavar="N|auto|all", help="layers on the GPU")
    add("-fit", "--fit", dest="fit", choices=("on", "off"), help="change settings so that they fit the memory")
    add("-ts", "--tensor-split", dest="shares", metavar="A,B,...", help="shares of the GPUs")
    add("--mmap", dest="load_mode", action="store_const", const="mmap", help="map the file")
    add("--no-mmap", dest="load_mode", action="store_const", const="none", help="read the file")
    add("--mlock", dest="load_mode", action="store_const", const="mlock", help="keep the model in memory")
    add("--rerank", "--reranking", dest="rerank", action="store_true", help="rank documents only")
    add("--lora", dest="lora", action="append", metavar="FILE", help="an adapter, repeatable")
    add("--chat-template-file", dest="template_file", metavar="FILE", help="file of the chat template")
    add("--api-key", dest="keys", action="append", metavar="K[,K2]", help="accepted keys; also LLAMA_API_KEY")
    add("--api-key-file", dest="key_file", metavar="FILE", help="accepted keys, one a line")
    add("-v", "--verbose", "--log-verbose", dest="verbosity", action="store_const", const=5, help="log everything")
    return flags


def settings(arguments: argparse.Namespace, environ: Callable[[str], str | None] = os.environ.get) -> Any:
    """The wheel's parameters for these arguments. Raises ``ValueError`` and ``OSError`` for what they name wrongly."""
    import xllamacpp  # noqa: PLC0415 - takes 0.1 s, which --help and --version need not pay

    params = xllamacpp.CommonParams()
    params.port = 8080
    given = vars(arguments)
    for place in (*_NUMBERS, *_TEXTS, *_SWITCHES):
        if place in given:
            _put(params, place, given[place])
    for place, (flags, kind, prefix, _) in _NAMES.items():
        if place in given:
            _put(params, place, _named(getattr(xllamacpp, kind), prefix, given[place], flags[0]))
    _put_the_rest(params, given)
    params.api_keys = _keys(given, environ)
    if "lora" in given:
        params.lora_adapters = [_adapter(xllamacpp, path) for path in given["lora"]]
    if given.get("rerank"):
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK
    return params


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; gives the exit code."""
    arguments = parser().parse_args(argv)
    if "version" in arguments:
        return _print_version()
    if "model.path" not in arguments:
        # The binary would start in router mode here; the wheel has none.
        print("error: no model: pass -m FILE", file=sys.stderr)  # noqa: T201
        return 1
    try:
        params = settings(arguments)
    except ValueError as wrong:
        print(wrong, file=sys.stderr)  # noqa: T201
        return 1
    except OSError as wrong:
        print(f"error: failed to open file '{wrong.filename}' ({wrong.strerror})", file=sys.stderr)  # noqa: T201
        return 1
    return _serve(params)


def _serve(params: Any) -> int:
    import xllamacpp  # noqa: PLC0415

    # While the constructor loads, no Python handler could run, so the signals keep their default action.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as failed:
        print(f"error: {failed}", file=sys.stderr)  # noqa: T201
        return 1
    _wait_for_signal()
    # This joins the server's threads, which may wait for a stream. No handler could run meanwhile either.
    del server
    return 0


def _wait_for_signal() -> None:
    """Return at the first SIGTERM or SIGINT; further ones have their default action.

    The C++ threads do not block signals, so any thread may be the one that is interrupted: hence the pipe.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    os.read(reading, 1)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


def _put(params: Any, place: Place, value: object) -> None:
    *parents, last = place.split(".")
    for parent in parents:
        params = getattr(params, parent)
    setattr(params, last, value)


def _put_the_rest(params: Any, given: dict[str, Any]) -> None:
    params.hostnames = given.get("host", "127.0.0.1").split(",")
    if "alias" in given:
        params.model_alias = set(given["alias"].split(","))
    slots = given.get("parallel", -1)
    if slots < 0:
        params.kv_unified = True
    params.n_parallel = AUTOMATIC_SLOTS if slots < 0 else slots
    if given.get("threads", 0) > 0:
        params.cpuparams.n_threads = given["threads"]
    if (batch := given.get("threads_batch", given.get("threads", 0))) > 0:
        params.cpuparams_batch.n_threads = batch
    if "layers" in given:
        params.n_gpu_layers = {"auto": -1, "all": EVERY_LAYER}.get(given["layers"]) or _number(given["layers"], "-ngl")
    params.fit_params = given.get("fit", "on") == "on"
    if "shares" in given:
        shares = [_number(share, "-ts") for share in given["shares"].split(",")]
        params.tensor_split = shares + [0] * (len(params.tensor_split) - len(shares))
    if "template_file" in given:
        params.chat_template = Path(given["template_file"]).read_text(encoding="utf-8")


def _named(kind: Any, prefix: str, word: str, flag: str) -> Any:
    upper = word.upper().replace("-", "_")
    for spelling in (upper, _OTHER_WORDS.get(upper, upper)):
        # The K of the block-wise types (q4_K) is a capital there, and so are all letters of the others.
        if (found := getattr(kind, prefix + spelling, None)) is not None:
            return found
    raise ValueError(f'error while handling argument "{flag}": {word!r} is none of its values')


def _number(text: str, flag: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f'error while handling argument "{flag}": {text!r} is not a whole number') from None


def _keys(given: dict[str, Any], environ: Callable[[str], str | None]) -> list[str]:
    keys = [key for value in given.get("keys", ()) for key in value.split(",")]
    if not keys and (from_environment := environ("LLAMA_API_KEY")):
        keys = from_environment.split(",")
    if "key_file" in given:
        keys += Path(given["key_file"]).read_text(encoding="utf-8").splitlines()
    return [key for key in keys if key]


def _adapter(wheel: Any, path: str) -> Any:
    adapter = wheel.CommonAdapterLoraInfo()
    adapter.path = path
    adapter.scale = 1.0
    return adapter


def _print_version() -> int:
    from importlib.metadata import version  # noqa: PLC0415

    # The binary writes its version to stderr too.
    print(f"version: xllamacpp {version('xllamacpp')}", file=sys.stderr)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
