"""What a GGUF header means: role, kind, context, and the cache's shape for every way of writing it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats.build import LLAMA_TENSORS, gguf, key, tiny_gguf
from llm_router.formats.gguf import GgufHeader, read_header
from llm_router.formats.gguf_model import GgufModel, Role, describe
from llm_router.formats.words import Kind, Layers, Shape


def model(data: bytes) -> GgufModel:
    header = read_header(data, len(data))
    assert isinstance(header, GgufHeader), header
    return describe(header)


def small(architecture: str, *extra: bytes, without: str = "") -> GgufModel:
    """Eight layers with four heads of 16, and what is given."""
    fields = {"block_count": 8, "attention.head_count": 4, "embedding_length": 64, "context_length": 2048}
    keys = [key(f"{architecture}.{name}", value) for name, value in fields.items() if name != without]
    return model(gguf([key("general.architecture", architecture), *keys, *extra], LLAMA_TENSORS))


def test_a_chat_model() -> None:
    found = model(tiny_gguf())
    assert found == GgufModel(Role.model, Kind.chat, 8192, Shape(32, (Layers(32, 8, 128, 128),)))
    assert model(tiny_gguf(template=False)).kind is Kind.base


@pytest.mark.parametrize(
    ("extra", "architecture", "kind"),
    [
        (key("qwen3.pooling_type", 4), "qwen3", Kind.rerank),
        (key("qwen3.pooling_type", 3), "qwen3", Kind.embedding),
        (key("qwen3.pooling_type", 0), "qwen3", Kind.chat),
        (key("bert.x", 1), "bert", Kind.embedding),
        (key("bert.classifier.output_labels", ["LABEL_0"]), "bert", Kind.rerank),
        (key("x", 1), "wavtokenizer-dec", Kind.audio),
    ],
)
def test_kinds(extra: bytes, architecture: str, kind: Kind) -> None:
    assert model(tiny_gguf(extra, architecture=architecture)).kind is kind


@pytest.mark.parametrize(
    ("keys", "role", "kind"),
    [
        ([key("general.architecture", "clip")], Role.projector, Kind.projector),
        ([key("general.type", "mmproj")], Role.projector, Kind.projector),
        ([key("general.type", "adapter"), key("general.architecture", "llama")], Role.adapter, Kind.part),
        ([key("general.type", "imatrix")], Role.tool, Kind.part),
        ([key("general.architecture", "controlvector")], Role.tool, Kind.part),
        ([key("general.architecture", "flux")], Role.picture_maker, Kind.image),
    ],
)
def test_files_that_are_no_language_model(keys: list[bytes], role: Role, kind: Kind) -> None:
    found = model(gguf(keys, LLAMA_TENSORS))
    assert (found.role, found.kind, found.shape) == (role, kind, None)


def test_no_tensors_means_a_vocabulary_unless_it_is_a_first_part() -> None:
    assert model(gguf([key("general.architecture", "llama")], [])).role is Role.tool
    assert model(gguf([key("general.architecture", "llama"), key("split.count", 2, "u16")], [])).role is Role.model


FULL = Layers(8, 4, 16, 16)


@pytest.mark.parametrize(
    ("architecture", "extra", "cached"),
    [
        ("llama", [], (FULL,)),
        (
            "llama",
            [key("llama.attention.key_length", 32), key("llama.attention.value_length", 8)],
            (Layers(8, 4, 32, 8),),
        ),
        (
            "deci",
            [key("deci.attention.head_count_kv", [4, 2, 2, 0, 4, 4, 4, 4], "u32")],
            (Layers(5, 4, 16, 16), Layers(2, 2, 16, 16)),
        ),
        ("phi3", [key("phi3.attention.sliding_window", 99)], (FULL,)),
        ("gemma2", [key("gemma2.attention.sliding_window", 99)], (Layers(4, 4, 16, 16, 99), Layers(4, 4, 16, 16))),
        (
            "new",
            [key("new.attention.sliding_window", 99), key("new.attention.sliding_window_pattern", 4)],
            (Layers(6, 4, 16, 16, 99), Layers(2, 4, 16, 16)),
        ),
        (
            "new",
            [
                key("new.attention.sliding_window", 99),
                key("new.attention.sliding_window_pattern", [True] * 7 + [False], "bool"),
            ],
            (Layers(7, 4, 16, 16, 99), Layers(1, 4, 16, 16)),
        ),
        (
            "deepseek2",
            [
                key("deepseek2.attention.kv_lora_rank", 512),
                key("deepseek2.rope.dimension_count", 64),
                key("deepseek2.attention.key_length_mla", 192),
            ],
            (Layers(8, 1, 576, 0, latent=True),),
        ),
        (
            "deepseek2",
            [key("deepseek2.attention.kv_lora_rank", 512), key("deepseek2.rope.dimension_count", 64)],
            (FULL,),
        ),
        ("qwen3next", [], (Layers(2, 4, 16, 16),)),
        ("x", [key("x.attention.head_count_kv", [1, 2], "u32")], (FULL,)),
        ("x", [key("x.attention.head_count_kv", -1, "i32")], (FULL,)),
    ],
)
def test_shapes(architecture: str, extra: list[bytes], cached: tuple[Layers, ...]) -> None:
    found = small(architecture, *extra).shape
    assert found is not None
    assert (found.heads, found.cached) == (4, cached)


def test_recurrent_layers_have_a_state() -> None:
    ssm = [
        key(f"jamba.ssm.{name}", value) for name, value in (("inner_size", 128), ("state_size", 16), ("conv_kernel", 4))
    ]
    found = small("jamba", key("jamba.attention.head_count_kv", [0, 0, 0, 4] * 2, "u32"), *ssm)
    assert found.shape == Shape(4, (Layers(2, 4, 16, 16),), 6 * 4 * (128 * 16 + 3 * 128))


def test_a_model_without_attention_has_only_a_state() -> None:
    keys = [key("general.architecture", "mamba"), key("mamba.block_count", 4), key("mamba.attention.head_count", 0)]
    keys += [key("mamba.ssm.inner_size", 8), key("mamba.ssm.state_size", 2)]
    assert model(gguf(keys, LLAMA_TENSORS)).shape == Shape(0, (), 4 * 4 * 8 * 2)


@pytest.mark.parametrize("without", ["block_count", "attention.head_count", "embedding_length"])
def test_too_little_is_unknown(without: str) -> None:
    assert small("llama", without=without).shape is None


def test_absurd_numbers_are_absent() -> None:
    keys = [key("general.architecture", "a"), key("a.block_count", 1 << 30), key("a.context_length", True, "bool")]
    found = model(gguf(keys, LLAMA_TENSORS))
    assert (found.shape, found.context) == (None, None)


NUMBERS = st.sampled_from(["u32", "i32", "u64", "i64", "bool", "f32"])
NAMES = st.sampled_from(
    [
        "block_count",
        "attention.head_count",
        "attention.head_count_kv",
        "embedding_length",
        "attention.key_length",
        "context_length",
        "attention.sliding_window",
        "attention.sliding_window_pattern",
        "full_attention_interval",
        "ssm.inner_size",
        "ssm.state_size",
        "pooling_type",
        "attention.kv_lora_rank",
        "attention.key_length_mla",
        "rope.dimension_count",
    ]
)


@given(st.dictionaries(NAMES, st.tuples(NUMBERS, st.integers(0, 9) | st.lists(st.integers(0, 9), max_size=12))))
def test_any_header_is_answered(fields: dict[str, tuple[str, int | list[int]]]) -> None:
    keys = [key(f"a.{name}", value, kind) for name, (kind, value) in fields.items()]
    found = model(gguf([key("general.architecture", "a"), *keys], LLAMA_TENSORS))
    assert found.shape is None or all(layers.count > 0 for layers in found.shape.cached)
