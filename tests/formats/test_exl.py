"""ExLlama's two formats, told apart and measured by their tensors."""

from llm_router.formats.exl import ExlMeasure, measure
from llm_router.formats.safetensors import Tensor
from llm_router.formats.words import Format


def trellis(stem: str, bits: int) -> list[Tensor]:
    """One EXL3 matrix of 256 x 128 numbers."""
    return [
        Tensor(f"{stem}.trellis", "I16", (16, 8, 16 * bits), 256 * 128 * bits // 8),
        Tensor(f"{stem}.suh", "F16", (256,), 512),
        Tensor(f"{stem}.svh", "F16", (128,), 256),
    ]


def test_exl3_body_and_head_are_measured_apart() -> None:
    tensors = [*trellis("model.layers.0.mlp.up_proj", 4), *trellis("lm_head", 6)]
    tensors.append(Tensor("model.embed_tokens.weight", "F16", (1000, 256), 512_000))
    assert measure(tensors) == ExlMeasure(Format.exl3, 4.19, 6.19)


def test_exl2_is_told_by_its_permutation() -> None:
    tensors = [
        Tensor("model.layers.0.mlp.up_proj.q_weight", "I32", (40, 128), 40 * 128 * 4),
        Tensor("model.layers.0.mlp.up_proj.q_invperm", "I32", (256,), 1024),
        Tensor("model.layers.0.mlp.up_proj.bias", "F16", (128,), 0),
    ]
    assert measure(tensors) == ExlMeasure(Format.exl2, 5.25, None)


def test_a_head_alone_is_the_body() -> None:
    assert measure(trellis("lm_head", 6)) == ExlMeasure(Format.exl3, 6.19, 6.19)


def test_other_weights_are_neither() -> None:
    assert measure([Tensor("a.qweight", "I32", (64, 4), 1024)]) is None
    assert measure([]) is None
    assert measure([Tensor("a.q_invperm", "I32", (0,), 0)]) is None
