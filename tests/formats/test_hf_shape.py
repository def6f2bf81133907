"""The cache's shape of real and of odd configurations."""

import pytest

from formats.build import CONFIGS
from llm_router.formats.document import Document
from llm_router.formats.hf_shape import shape
from llm_router.formats.words import Layers, Shape

SMALL: dict[str, object] = {"num_hidden_layers": 4, "num_attention_heads": 8, "hidden_size": 64}


def small(**fields: object) -> Shape:
    found = shape(Document(SMALL | fields))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("llama-3-8b", Shape(32, (Layers(32, 8, 128, 128),))),
        ("deepseek-v3", Shape(128, (Layers(61, 1, 576, 0, latent=True),))),
        ("gemma-3-27b", Shape(32, (Layers(52, 16, 128, 128, 1024), Layers(10, 16, 128, 128)))),
        ("qwen3-next-80b", Shape(16, (Layers(12, 2, 256, 256),), 36 * (4 * 32 * 128 * 128 + 2 * 8192 * 3))),
        ("gpt-oss-20b", Shape(64, (Layers(12, 8, 64, 64, 128), Layers(12, 8, 64, 64)))),
    ],
)
def test_real_models(name: str, found: Shape) -> None:
    assert shape(Document(CONFIGS[name])) == found


FULL = Layers(4, 8, 8, 8)


@pytest.mark.parametrize(
    ("fields", "cached"),
    [
        ({}, (FULL,)),
        ({"num_key_value_heads": 2, "head_dim": 16}, (Layers(4, 2, 16, 16),)),
        ({"multi_query": True}, (Layers(4, 1, 8, 8),)),
        ({"v_head_dim": 4}, (Layers(4, 8, 8, 4),)),
        ({"sliding_window": 32}, (Layers(4, 8, 8, 8, 32),)),
        ({"sliding_window": 32, "use_sliding_window": False}, (FULL,)),
        (
            {"sliding_window": 32, "use_sliding_window": True, "max_window_layers": 3},
            (Layers(3, 8, 8, 8), Layers(1, 8, 8, 8, 32)),
        ),
        ({"sliding_window": 32, "sliding_window_pattern": 4}, (Layers(3, 8, 8, 8, 32), Layers(1, 8, 8, 8))),
        ({"sliding_window": 32, "model_type": "gemma2"}, (Layers(2, 8, 8, 8, 32), Layers(2, 8, 8, 8))),
        ({"layer_types": ["chunked_attention"] * 4, "attention_chunk_size": 64}, (Layers(4, 8, 8, 8, 64),)),
        ({"layer_types": ["something_new"] * 4}, (FULL,)),
        ({"layer_types": ["mamba"]}, (FULL,)),
        ({"hybrid_override_pattern": "M*-E"}, (Layers(1, 8, 8, 8),)),
        ({"attn_layer_period": 4, "attn_layer_offset": 2}, (Layers(1, 8, 8, 8),)),
        ({"num_kv_shared_layers": 1}, (Layers(3, 8, 8, 8),)),
        (
            {
                "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
                "sliding_window": 16,
                "global_head_dim": 32,
                "num_global_key_value_heads": 2,
            },
            (Layers(3, 8, 8, 8, 16), Layers(1, 2, 32, 32)),
        ),
    ],
)
def test_variants(fields: dict[str, object], cached: tuple[Layers, ...]) -> None:
    assert small(**fields).cached == cached


def test_recurrent_models_keep_a_state() -> None:
    assert small(model_type="mamba", state_size=16) == Shape(8, (), 4 * 4 * 64 * 2 * 16)
    assert (
        small(layer_types=["mamba"] * 4, mamba_n_heads=2, mamba_d_head=8, mamba_d_state=16).state == 4 * 4 * 2 * 8 * 16
    )
    pure = {"num_hidden_layers": 2, "model_type": "mamba2", "hidden_size": 8}
    assert shape(Document(pure)) == Shape(0, (), 0)


@pytest.mark.parametrize(
    "fields",
    [{"num_hidden_layers": 0}, {"num_hidden_layers": 1 << 40}, {"num_attention_heads": None}, {"hidden_size": None}],
)
def test_too_little_is_unknown(fields: dict[str, object]) -> None:
    assert shape(Document(SMALL | fields)) is None
