"""ExLlama's formats: which of the two a folder holds, and what its tensors measure.

EXL2 and EXL3 share nothing but the author: TabbyAPI's main branch reads EXL3, the older branch EXL2. Early
conversions carry no ``quantization_config``; the tensors' names tell them. It knows no engine.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from llm_router.formats.safetensors import Tensor, count_parameters
from llm_router.formats.words import Format


@dataclass(frozen=True, slots=True)
class ExlMeasure:
    """What the quantised tensors really take: ``bits`` per number, ``head_bits`` for the last layer's."""

    format: Format
    bits: float
    head_bits: float | None


def measure(tensors: Iterable[Tensor]) -> ExlMeasure | None:
    """Measure a folder's tensors; ``None`` if they are neither EXL2 nor EXL3."""
    tensors = list(tensors)
    for format_, mark in ((Format.exl3, "trellis"), (Format.exl2, "q_invperm")):
        stems = {tensor.name.rpartition(".")[0] for tensor in tensors if tensor.name.endswith(f".{mark}")}
        if stems:
            heads = {stem for stem in stems if stem.rpartition(".")[2] == "lm_head"}
            bits = _bits(tensors, stems - heads) or _bits(tensors, stems)
            return None if bits is None else ExlMeasure(format_, bits, _bits(tensors, heads))
    return None


def _bits(tensors: list[Tensor], stems: set[str]) -> float | None:
    """Bits per number over the tensors below these names, permutations and scales included."""
    chosen = [tensor for tensor in tensors if tensor.name.rpartition(".")[0] in stems]
    numbers = count_parameters(tensor for tensor in chosen if not tensor.name.endswith(".bias"))
    return round(sum(tensor.size for tensor in chosen) * 8 / numbers, 2) if numbers else None
