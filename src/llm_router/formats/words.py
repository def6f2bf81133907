"""The nouns of model files: formats, kinds, and the shape that decides how much memory a context takes.

Meaning only; how each is found in a file is the readers' business.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Format(Enum):
    """How the weights are stored, as far as it decides which engine can read them."""

    gguf = "gguf"
    awq = "awq"
    gptq = "gptq"
    compressed_tensors = "compressed-tensors"
    fp8 = "fp8"
    mxfp4 = "mxfp4"
    modelopt = "modelopt"
    quark = "quark"
    auto_round = "auto-round"
    torchao = "torchao"
    bitsandbytes = "bitsandbytes"
    exl2 = "exl2"
    exl3 = "exl3"
    #: Not quantised: the 16 or 32 bits of the training.
    none = "none"
    mlx = "mlx"
    #: A method that has a name, which is shown, but no engine of ours except transformers.
    other = "other"
    unknown = "unknown"


class Kind(Enum):
    """What the model is for."""

    chat = "chat"
    base = "base"
    embedding = "embedding"
    rerank = "rerank"
    classify = "classify"
    vision = "vision"
    audio = "audio"
    #: Makes pictures; none of the engines serves it.
    image = "image"
    #: Turns pictures or sound into tokens for the model beside it.
    projector = "projector"
    #: A LoRA, a vocabulary: belongs to a model and is none.
    part = "part"


@dataclass(frozen=True, slots=True)
class Layers:
    """``count`` layers that cache alike: per token ``heads`` x (``key`` + ``value``) numbers.

    ``window`` is how many tokens of a sequence are kept at most, ``None`` for all. ``latent``: one compressed
    vector serves all heads (DeepSeek's MLA), so splitting over devices does not divide it.
    """

    count: int
    heads: int
    key: int
    value: int
    window: int | None = None
    latent: bool = False


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a model's architecture decides the memory of a context.

    ``heads`` are the attention heads, 0 if unknown. ``state`` is what one sequence takes in recurrent layers
    however long it is, in bytes.
    """

    heads: int
    cached: tuple[Layers, ...]
    state: int = 0


def merge_layers(layers: Iterable[Layers]) -> tuple[Layers, ...]:
    """Join layers that cache alike; those that cache nothing are left out."""
    counts: Counter[tuple[int, int, int, int | None, bool]] = Counter()
    for layer in layers:
        if layer.heads and layer.key + layer.value:
            counts[(layer.heads, layer.key, layer.value, layer.window, layer.latent)] += layer.count
    return tuple(Layers(count, *alike) for alike, count in counts.items())
