"""The shape of a model's cache, from its ``config.json``: heads, windows, latent vectors, recurrent layers.

Field names follow transformers' configurations. What the shape costs is ``estimate``'s.
"""

from typing import Final

from llm_router.formats.document import Document
from llm_router.formats.hf_config import text_section
from llm_router.formats.words import Layers, Shape, merge_layers

MAX_LAYERS: Final = 4096
FULL: Final = "full"
SLIDING: Final = "sliding"
RECURRENT: Final = "recurrent"
NOTHING: Final = "nothing"

#: The words of ``layer_types`` and ``layers_block_type``.
_LAYER_WORDS: Final = {
    "full_attention": FULL,
    "attention": FULL,
    "hybrid": FULL,
    "sliding_attention": SLIDING,
    "sliding_window_attention": SLIDING,
    "chunked_attention": SLIDING,
    "linear_attention": RECURRENT,
    "mamba": RECURRENT,
    "mamba2": RECURRENT,
    "recurrent": RECURRENT,
    "conv": RECURRENT,
    "mlp": NOTHING,
    "moe": NOTHING,
}
#: The letters of ``hybrid_override_pattern`` (Nemotron-H).
_LAYER_LETTERS: Final = {"M": RECURRENT, "*": FULL, "-": NOTHING, "E": NOTHING}
_RECURRENT_MODELS: Final = frozenset({"mamba", "mamba2", "falcon_mamba", "rwkv", "rwkv6", "rwkv7", "xlstm"})
#: What holds for a family whose older configurations do not say how its windows are spread.
_WINDOW_PATTERNS: Final = {"gemma2": 2, "gemma3_text": 6, "cohere2": 4, "gpt_oss": 2}


def shape(config: Document) -> Shape | None:
    """The shape of the cache; ``None`` if the configuration does not say enough."""
    section = text_section(config)
    layers = section.whole("num_hidden_layers", "n_layer", "num_layers", "n_layers", "decoder_layers")
    if not layers or layers > MAX_LAYERS:
        return None
    kinds = _kinds(section, layers)
    state = kinds.count(RECURRENT) * _state(section)
    heads = section.whole("num_attention_heads", "n_head", "num_heads", "n_heads", "decoder_attention_heads")
    if not heads:
        return Shape(0, (), state) if set(kinds) <= {RECURRENT, NOTHING} else None
    full = _full(section, heads)
    if full is None:
        return None
    if section.whole("num_kv_shared_layers"):
        # The last layers use the cache of earlier ones (Gemma 3n and 4).
        kinds = kinds[: max(0, layers - (section.whole("num_kv_shared_layers") or 0))]
    cached = [_layer(section, full, layer_kind) for layer_kind in kinds if layer_kind in (FULL, SLIDING)]
    return Shape(heads, merge_layers(cached), state)


def _full(section: Document, heads: int) -> Layers | None:
    """One layer that keeps everything, by the general fields."""
    rank, rope = section.whole("kv_lora_rank"), section.whole("qk_rope_head_dim")
    if rank and rope:
        return Layers(1, 1, rank + rope, 0, latent=True)
    hidden = section.whole("hidden_size", "n_embd", "d_model")
    size = section.whole("head_dim", "attention_head_dim", "kv_channels") or (hidden // heads if hidden else None)
    if not size:
        return None
    kv_heads = section.whole("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num") or heads
    if section.flag("multi_query") and not section.has("num_key_value_heads") and not section.has("num_kv_heads"):
        kv_heads = section.whole("multi_query_group_num") or 1
    return Layers(1, kv_heads, size, section.whole("v_head_dim") or size)


def _layer(section: Document, full: Layers, layer_kind: str) -> Layers:
    if full.latent:
        return full
    window = section.whole("sliding_window", "attention_chunk_size")
    if layer_kind == SLIDING and window:
        return Layers(1, full.heads, full.key, full.value, window)
    if not section.has("global_head_dim"):
        return full
    # Gemma 4: the layers that see everything have heads of their own size and number.
    size = section.whole("global_head_dim") or full.key
    return Layers(1, section.whole("num_global_key_value_heads") or full.heads, size, size)


def _kinds(section: Document, layers: int) -> list[str]:
    """What each layer keeps; the most exact statement wins."""
    named = section.texts("layer_types") or section.texts("layers_block_type")
    if len(named) >= layers:
        return [_LAYER_WORDS.get(word, FULL) for word in named[:layers]]
    letters = section.text("hybrid_override_pattern")
    if len(letters) >= layers:
        return [_LAYER_LETTERS.get(letter, FULL) for letter in letters[:layers]]
    if section.text("model_type") in _RECURRENT_MODELS:
        return [RECURRENT] * layers
    period, offset = section.whole("attn_layer_period"), section.whole("attn_layer_offset") or 0
    if period:
        return [FULL if index % period == offset else RECURRENT for index in range(layers)]
    interval = section.whole("full_attention_interval")
    if interval:
        return [RECURRENT if (index + 1) % interval else FULL for index in range(layers)]
    return _windowed(section, layers)


def _windowed(section: Document, layers: int) -> list[str]:
    if not section.whole("sliding_window") or section.flag("use_sliding_window") is False:
        return [FULL] * layers
    pattern = section.whole("sliding_window_pattern") or _WINDOW_PATTERNS.get(section.text("model_type"))
    if pattern:
        return [SLIDING if (index + 1) % pattern else FULL for index in range(layers)]
    first = section.whole("max_window_layers") if section.flag("use_sliding_window") else 0
    return [FULL if index < (first or 0) else SLIDING for index in range(layers)]


def _state(section: Document) -> int:
    """Bytes of one recurrent layer and sequence. The engines keep the state in F32, the convolution in 16 bits."""
    values, key, value = (section.whole(f"linear_{n}") for n in ("num_value_heads", "key_head_dim", "value_head_dim"))
    if values and key and value:
        channels = 2 * (section.whole("linear_num_key_heads") or values) * key + values * value
        return 4 * values * key * value + 2 * channels * ((section.whole("linear_conv_kernel_dim") or 4) - 1)
    size = section.whole("ssm_state_size", "mamba_d_state", "state_size")
    heads, width = section.whole("mamba_num_heads", "mamba_n_heads"), section.whole("mamba_head_dim", "mamba_d_head")
    if size and heads and width:
        return 4 * heads * width * size
    hidden = section.whole("hidden_size")
    return 4 * hidden * (section.whole("mamba_expand", "expand") or 2) * size if size and hidden else 0
