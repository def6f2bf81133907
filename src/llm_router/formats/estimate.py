"""How much memory a model will take on each device before anybody has started it, and whether that fits.

Weights come from the files' headers, the cache from the model's shape. The overheads are rules of thumb, named
below, until a load has been measured: a measured footprint is always better than this. It reads no device.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from llm_router.formats.recognise import Recognised
from llm_router.formats.words import Kind, Layers, Shape

MIB: Final = 1 << 20
GIB: Final = 1 << 30

# Rules of thumb, in bytes on each device; to be replaced by what the first loads measure.
#: A CUDA context with the libraries of one process.
CONTEXT_BYTES: Final = 500 * MIB
#: NCCL and custom all-reduce, as soon as there is a second device.
COLLECTIVES: Final = 600 * MIB
#: CUDA graphs of SGLang and vLLM; none with ``eager``.
GRAPHS: Final = 1024 * MIB
#: Activations and logits.
ACTIVATIONS: Final = {
    "sglang": 1536 * MIB,
    "vllm": 1536 * MIB,
    "tabbyapi": 800 * MIB,
    "tabbyapi-exl2": 800 * MIB,
    "llamacpp": 600 * MIB,
    "transformers": 800 * MIB,
}
OTHER_ACTIVATIONS: Final = 1024 * MIB
#: A vision tower while it looks at one picture.
VISION: Final = 1024 * MIB
#: Compute buffers without a GPU.
HOST_BUFFERS: Final = 200 * MIB
#: Norms that are not split, padding, one layer more on one device than on the other.
UNEVEN: Final = 1.04
#: What stays free: the larger of these, the share being of the free memory.
MARGIN_BYTES: Final = 512 * MIB
MARGIN_SHARE: Final = 0.03
#: Tokens beyond the window that a windowed layer keeps while a prompt is read.
WINDOW_SLACK: Final = 512
DEFAULT_CONTEXT: Final = 4096

#: Engines that divide every layer; the others put whole layers on each device.
TENSOR_PARALLEL: Final = frozenset({"sglang", "vllm"})
#: Engines whose context is one pool for all requests together.
SHARED_POOL: Final = frozenset({"llamacpp", "tabbyapi", "tabbyapi-exl2"})

#: Bytes of one cached number by the engines' own words. Blocks of 32 carry a 16-bit scale in llama.cpp.
CACHE_TYPES: Final = {
    "f32": 4.0,
    "auto": 2.0,
    "f16": 2.0,
    "fp16": 2.0,
    "float16": 2.0,
    "bf16": 2.0,
    "bfloat16": 2.0,
    "fp8": 1.0,
    "fp8_e4m3": 1.0,
    "fp8_e5m2": 1.0,
    "mxfp8": 33 / 32,
    "nvfp4": 0.5625,
    "q8_0": 34 / 32,
    "q5_1": 0.75,
    "q5_0": 0.6875,
    "q4_1": 0.625,
    "q4_0": 0.5625,
    "iq4_nl": 0.5625,
    "q8": 8.5 / 8,
    "q6": 6.5 / 8,
    "q4": 4.5 / 8,
}


@dataclass(frozen=True, slots=True)
class Setting:
    """How the model would be started. ``context`` is in tokens, ``None`` for the model's own.

    ``devices`` is the number of GPUs, 0 for none. ``cache`` is the engine's word for the cache's type, or two
    of them, or numbers of bits, for keys and values (``q8_0,q4_0``; ``8,6``). ``eager``: without CUDA graphs.
    """

    engine: str
    context: int | None = None
    parallel: int = 1
    devices: int = 1
    cache: str = "auto"
    eager: bool = False


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes. ``weights`` and ``kv`` are the whole model's, ``overhead`` and ``per_device`` each device's.

    ``known`` is false if the cache could not be computed and is missing in the sum. ``explain`` are lines for
    people.
    """

    weights: int
    kv: int
    overhead: int
    per_device: int
    devices: int
    known: bool
    explain: tuple[str, ...]


def cache_bytes(name: str) -> tuple[float, float]:
    """Bytes of one number among the keys and among the values. Raises ``ValueError`` for an unknown word."""
    first, _, second = name.lower().replace(" ", "").partition(",")
    key = _cache_type(first, name)
    return key, _cache_type(second, name) if second else key


def _cache_type(word: str, name: str) -> float:
    if word in CACHE_TYPES:
        return CACHE_TYPES[word]
    if word in ("2", "3", "4", "5", "6", "7", "8"):
        # ExLlama: so many bits, and a 16-bit scale for 32 numbers.
        return (int(word) + 0.5) / 8
    raise ValueError(f"cannot estimate the cache: its type {name!r} is not known")


def kv_bytes(shape: Shape, tokens: int, sequences: int = 1, cache: str = "auto", tp: int = 1) -> int:
    """Bytes of the cache on one of ``tp`` devices that divide the heads; with ``tp`` 1 the whole cache.

    ``tokens`` is the sum over all sequences. Raises ``ValueError`` for an unknown type of cache.
    """
    key, value = cache_bytes(cache)
    return math.ceil(sum(_layers_bytes(layers, tokens, sequences, key, value, tp) for layers in shape.cached)) + (
        math.ceil(shape.state / tp) * sequences
    )


def _layers_bytes(layers: Layers, tokens: int, sequences: int, key: float, value: float, tp: int) -> float:
    # A rank holds whole heads. Where there are more ranks than heads, each has its copy; so it is with the one
    # latent vector of MLA.
    heads = math.ceil(layers.heads / tp)
    kept = tokens if layers.window is None else min(tokens, (layers.window + WINDOW_SLACK) * sequences)
    return layers.count * heads * (layers.key * key + layers.value * value) * kept


def token_bytes(shape: Shape, cache: str = "auto") -> int:
    """Bytes that one more token takes in the layers that keep everything."""
    unlimited = tuple(layers for layers in shape.cached if layers.window is None)
    return kv_bytes(Shape(shape.heads, unlimited), 1, cache=cache)


def estimate(model: Recognised, setting: Setting) -> Estimate:
    """What the model takes when it is started like this. Raises ``ValueError`` for an unknown type of cache."""
    devices = max(1, setting.devices)
    weights = model.size + model.projector_size
    kv, on_each = _cache(model, setting)
    overhead, why = _overhead(model, setting)
    share = weights if devices == 1 else math.ceil(weights / devices * UNEVEN)
    per_device = share + on_each + overhead
    lines = [
        f"weights {_gib(weights)}, {_gib(share)} on each of {devices}" if devices > 1 else f"weights {_gib(weights)}",
        _cache_line(model, setting, kv),
        f"overhead about {_gib(overhead)}: {why}",
        f"in all about {_gib(per_device)}{' on each device' if devices > 1 else ''}",
    ]
    return Estimate(weights, kv, overhead, per_device, devices, model.shape is not None, tuple(lines))


def _tokens(model: Recognised, setting: Setting) -> tuple[int, int]:
    """Tokens that the cache holds, and the sequences that share them."""
    context = setting.context or model.context or DEFAULT_CONTEXT
    sequences = max(1, setting.parallel)
    return (context if setting.engine in SHARED_POOL else context * sequences), sequences


def _cache(model: Recognised, setting: Setting) -> tuple[int, int]:
    """Bytes of the whole cache, and on each device."""
    if model.shape is None:
        return 0, 0
    tokens, sequences = _tokens(model, setting)
    devices = max(1, setting.devices)
    whole = kv_bytes(model.shape, tokens, sequences, setting.cache)
    if devices == 1:
        return whole, whole
    if setting.engine in TENSOR_PARALLEL:
        return whole, kv_bytes(model.shape, tokens, sequences, setting.cache, tp=devices)
    return whole, math.ceil(whole / devices * UNEVEN)


def _cache_line(model: Recognised, setting: Setting, kv: int) -> str:
    if model.shape is None:
        return "cache not known: the files do not describe the model's shape"
    tokens, _ = _tokens(model, setting)
    each = token_bytes(model.shape, setting.cache)
    windowed = ", and windows" if any(layers.window for layers in model.shape.cached) else ""
    return f"cache {_gib(kv)} for {tokens} tokens at {each} bytes{windowed} ({setting.cache})"


def _overhead(model: Recognised, setting: Setting) -> tuple[int, str]:
    """Bytes on each device beside weights and cache, and what they are for."""
    if setting.devices == 0:
        return HOST_BUFFERS, "compute buffers"
    parts = {"CUDA": CONTEXT_BYTES, "activations": ACTIVATIONS.get(setting.engine, OTHER_ACTIVATIONS)}
    if setting.engine in TENSOR_PARALLEL and not setting.eager:
        parts["CUDA graphs"] = GRAPHS
    if setting.engine in TENSOR_PARALLEL and setting.devices > 1:
        parts["collectives"] = COLLECTIVES
    if model.kind is Kind.vision:
        parts["vision"] = VISION
    return sum(parts.values()), ", ".join(parts)


def margin(free: int) -> int:
    """What should stay free of ``free`` bytes on a device."""
    return max(MARGIN_BYTES, int(free * MARGIN_SHARE))


def shortage(estimated: Estimate, free_per_device: Sequence[int]) -> tuple[int, ...]:
    """How many bytes are missing on each of these devices, the margin kept; 0 where it fits."""
    return tuple(max(0, estimated.per_device + margin(free) - free) for free in free_per_device)


def fits(estimated: Estimate, free_per_device: Sequence[int]) -> bool:
    """Whether it fits on these devices, of which there must be as many as it was estimated for."""
    return len(free_per_device) >= estimated.devices and not any(shortage(estimated, free_per_device))


def largest_context(model: Recognised, setting: Setting, free_per_device: Sequence[int]) -> int | None:
    """The longest context, in steps of 256 tokens, with which the model fits; ``None`` if none does."""
    low, high = 0, (setting.context or model.context or DEFAULT_CONTEXT) // 256
    while low < high:
        middle = (low + high + 1) // 2
        tried = Setting(setting.engine, middle * 256, setting.parallel, setting.devices, setting.cache, setting.eager)
        low, high = (middle, high) if fits(estimate(model, tried), free_per_device) else (low, middle - 1)
    return low * 256 or None


def judge_split(shape: Shape, devices: int) -> str | None:
    """Why this model cannot be divided over so many devices by its heads; ``None`` if it can."""
    if devices <= 1 or shape.heads == 0:
        return None
    if shape.heads % devices:
        numbers = [number for number in range(1, 9) if shape.heads % number == 0]
        return (
            f"cannot divide {shape.heads} attention heads by {devices} devices; "
            f"use {' or '.join(map(str, numbers))}, or an engine that puts whole layers on each"
        )
    for layers in shape.cached:
        if layers.heads % devices and devices % layers.heads:
            return f"cannot divide {layers.heads} key-value heads by {devices} devices; use another number"
    return None


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB" if size >= GIB // 10 else f"{size / MIB:.1f} MiB"
