"""What the keys of a GGUF file mean for serving: kind, context and the shape of the cache.

The rules follow llama.cpp (``src/llama-arch.cpp``, ``src/llama-hparams.cpp``, ``src/llama-model.cpp``). It
knows no bytes, and nothing of folders.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from llm_router.formats.gguf import GgufHeader, Items
from llm_router.formats.words import Kind, Layers, Shape, merge_layers

#: ``enum llama_pooling_type``.
POOLING_NONE: Final = 0
POOLING_RANK: Final = 4

ENCODERS: Final = frozenset(
    {
        "bert",
        "eurobert",
        "gemma-embedding",
        "jina-bert-v2",
        "jina-bert-v3",
        "llama-embed",
        "modern-bert",
        "neo-bert",
        "nomic-bert",
        "nomic-bert-moe",
        "t5encoder",
    }
)
#: Written by the tools of picture generators into the same container.
PICTURE_MAKERS: Final = frozenset(
    {
        "aura",
        "cosmos",
        "flux",
        "hidream",
        "hyvid",
        "ltxv",
        "lumina2",
        "qwen_image",
        "sd1",
        "sd3",
        "sdxl",
        "wan",
        "z_image",
    }
)
#: Every n-th layer sees everything, the others a window, where the file does not say it itself.
WINDOW_PATTERNS: Final = {
    "cohere2": 4,
    "exaone4": 4,
    "gemma-embedding": 6,
    "gemma2": 2,
    "gemma3": 6,
    "gemma3n": 5,
    "gpt-oss": 2,
    "llama4": 4,
    "smallthinker": 4,
}
#: Every n-th layer has attention, the others are recurrent, where the file does not say it itself.
ATTENTION_INTERVALS: Final = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4}
#: More layers than llama.cpp can load (``LLAMA_MAX_LAYERS`` is 512).
MAX_LAYERS: Final = 1024


class Role(Enum):
    """What a GGUF file is in a set of files."""

    model = "model"
    #: Turns pictures or sound into tokens for a model (``--mmproj``).
    projector = "projector"
    adapter = "adapter"
    #: Vocabularies, importance matrices, control vectors.
    tool = "tool"
    picture_maker = "picture_maker"


_OTHER_KINDS: Final = {Role.projector: Kind.projector, Role.picture_maker: Kind.image}


@dataclass(frozen=True, slots=True)
class GgufModel:
    """What a header says of the model. ``context`` is in tokens, ``shape`` ``None`` if it is not written down."""

    role: Role
    kind: Kind
    context: int | None
    shape: Shape | None


def describe(header: GgufHeader) -> GgufModel:
    """Read the meaning of a first or only part's keys. Any header is answered."""
    role = _role(header)
    kind = _OTHER_KINDS.get(role, Kind.part) if role is not Role.model else _kind(header)
    return GgufModel(role, kind, _positive(header, "context_length"), _shape(header))


def _role(header: GgufHeader) -> Role:
    declared, architecture = header.text("general.type"), header.architecture
    if declared in ("mmproj", "projector") or architecture == "clip":
        return Role.projector
    if declared == "adapter":
        return Role.adapter
    if declared in ("imatrix", "vocab") or architecture in ("imatrix", "controlvector"):
        return Role.tool
    if architecture in PICTURE_MAKERS:
        return Role.picture_maker
    # A model's first part may be without tensors, its keys alone (``gguf-split --no-tensor-first-split``).
    return Role.model if header.tensors or header.part[1] > 1 else Role.tool


def _kind(header: GgufHeader) -> Kind:
    pooling = header.of_architecture("pooling_type")
    if pooling == POOLING_RANK or header.of_architecture("classifier.output_labels") is not None:
        return Kind.rerank
    if header.architecture in ENCODERS or (isinstance(pooling, int) and pooling > POOLING_NONE):
        return Kind.embedding
    if header.architecture == "wavtokenizer-dec":
        return Kind.audio
    return Kind.chat if header.has_template else Kind.base


def _positive(header: GgufHeader, name: str) -> int | None:
    value = header.of_architecture(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 40:
        return None
    return value


def _per_layer(header: GgufHeader, name: str, layers: int) -> list[int] | None:
    """A number that is written once for all layers, or as an array with one for each."""
    value = header.of_architecture(name)
    if isinstance(value, Items):
        numbers = [int(number) for number in value.values if isinstance(number, int) and 0 <= number < 1 << 32]
        return numbers[:layers] if len(numbers) >= layers else None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 32:
        return None
    return [value] * layers


def _shape(header: GgufHeader) -> Shape | None:
    layers = _positive(header, "block_count")
    if layers is None or layers > MAX_LAYERS:
        return None
    heads = _per_layer(header, "attention.head_count", layers)
    if heads is None:
        return None
    kv_heads = _per_layer(header, "attention.head_count_kv", layers) or heads
    recurrent = _recurrent(header, layers, kv_heads)
    state = sum(recurrent) * _state(header)
    if not any(heads):
        return Shape(0, (), state)
    cached = _cached(header, layers, max(heads), kv_heads)
    if cached is None:
        return None
    return Shape(
        max(heads), merge_layers(layer for layer, gone in zip(cached, recurrent, strict=True) if not gone), state
    )


def _recurrent(header: GgufHeader, layers: int, kv_heads: list[int]) -> list[bool]:
    """Which layers keep a state of fixed size instead of a cache."""
    interval = _positive(header, "full_attention_interval") or ATTENTION_INTERVALS.get(header.architecture)
    if interval:
        return [(index + 1) % interval != 0 for index in range(layers)]
    return [heads == 0 for heads in kv_heads]


def _state(header: GgufHeader) -> int:
    """Bytes of one recurrent layer and sequence: the state and the last inputs of the convolution, in F32."""
    inner, size = _positive(header, "ssm.inner_size"), _positive(header, "ssm.state_size")
    if inner is None or size is None:
        return 0
    groups, kernel = _positive(header, "ssm.group_count") or 0, _positive(header, "ssm.conv_kernel") or 1
    return 4 * (inner * size + (kernel - 1) * (inner + 2 * groups * size))


def _cached(header: GgufHeader, layers: int, heads: int, kv_heads: list[int]) -> list[Layers] | None:
    embedding = _positive(header, "embedding_length")
    key = _positive(header, "attention.key_length") or (embedding // heads if embedding else None)
    if key is None:
        return None
    value = _positive(header, "attention.value_length") or key
    rank, rope = _positive(header, "attention.kv_lora_rank"), _positive(header, "rope.dimension_count")
    # Conversions without this key are run with full heads, although the model was made for MLA.
    if rank and rope and _positive(header, "attention.key_length_mla"):
        return [Layers(1, 1, rank + rope, 0, latent=True)] * layers
    windows = _windows(header, layers)
    return [Layers(1, kv_heads[index], key, value, windows[index]) for index in range(layers)]


def _windows(header: GgufHeader, layers: int) -> list[int | None]:
    window = _positive(header, "attention.sliding_window")
    if window is None:
        return [None] * layers
    pattern = header.of_architecture("attention.sliding_window_pattern")
    if isinstance(pattern, Items) and len(pattern.values) >= layers:
        return [window if pattern.values[index] else None for index in range(layers)]
    every = pattern if isinstance(pattern, int) and pattern > 0 else WINDOW_PATTERNS.get(header.architecture)
    # An unknown pattern is taken as no window at all, which never promises too much room.
    return [window if every and (index + 1) % every else None for index in range(layers)]
