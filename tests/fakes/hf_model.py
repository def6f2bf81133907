"""The demo's tiny model as a Hugging Face folder, for the engines that read safetensors.

The technique is in ``llm_router.demo.tinymodel``; here are only the names and files of the other format. The
answers are the same.
"""

import json
import struct
from pathlib import Path
from typing import Any

from llm_router.demo.tinymodel import BEGIN, CHAT_TEMPLATE, END, MARKERS, UNKNOWN, TinyModel

HEAD_WIDTH = 64


def write_folder(folder: Path, model: TinyModel, *, chat: bool = True) -> Path:
    """Write the model; without ``chat`` it has no chat template. Gives the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in _documents(model, chat=chat).items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False))
    (folder / "model.safetensors").write_bytes(_weights(model))
    return folder


def _documents(model: TinyModel, *, chat: bool) -> dict[str, dict[str, Any]]:
    ends = {"bos_token_id": BEGIN, "eos_token_id": END, "pad_token_id": UNKNOWN}
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16", "hidden_act": "silu",
        "vocab_size": len(model.vocabulary), "hidden_size": model.width, "intermediate_size": model.feed_forward,
        "num_hidden_layers": model.layers, "num_attention_heads": model.width // HEAD_WIDTH, "num_key_value_heads": 1,
        "head_dim": HEAD_WIDTH, "max_position_embeddings": model.context, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False, **ends,
    }  # fmt: skip
    words = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
        "pad_token": "<unk>", "clean_up_tokenization_spaces": False, "model_max_length": model.context,
        **({"chat_template": "{{- bos_token -}}" + CHAT_TEMPLATE} if chat else {}),
    }  # fmt: skip
    return {
        "config.json": config,
        "generation_config.json": ends,
        "tokenizer_config.json": words,
        "tokenizer.json": _tokenizer(model),
    }


def _tokenizer(model: TinyModel) -> dict[str, Any]:
    """No merges and a fallback to bytes: each byte of a prompt is a token, each token of the answer a whole piece."""
    special = [
        {"id": number, "content": marker, "special": True, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False}
        for number, marker in enumerate(MARKERS)
    ]  # fmt: skip
    begin, text = {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "pre_tokenizer": None,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
        "post_processor": {
            "type": "TemplateProcessing", "single": [begin, text], "pair": [begin, text, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [BEGIN], "tokens": ["<s>"]}},
        },
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        ]},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None, "merges": [],
            "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
            "vocab": {word: number for number, word in enumerate(model.vocabulary)},
        },
    }  # fmt: skip


def _weights(model: TinyModel) -> bytes:
    width, words, inner = model.width, len(model.vocabulary), model.feed_forward
    shapes: dict[str, tuple[int, ...]] = {"model.norm.weight": (width,)}
    for layer in range(model.layers):
        start = f"model.layers.{layer}."
        shapes |= {f"{start}{name}_layernorm.weight": (width,) for name in ("input", "post_attention")}
        shapes |= {f"{start}self_attn.{name}_proj.weight": (width, width) for name in "qo"}
        shapes |= {f"{start}self_attn.{name}_proj.weight": (HEAD_WIDTH, width) for name in "kv"}
        shapes |= {f"{start}mlp.{name}_proj.weight": (inner, width) for name in ("gate", "up")}
        shapes[f"{start}mlp.down_proj.weight"] = (width, inner)
    blocks = {
        name: _bf16(1.0) * width if len(shape) == 1 else bytes(2 * shape[0] * shape[1])
        for name, shape in shapes.items()
    }
    shapes |= {"model.embed_tokens.weight": (words, width), "lm_head.weight": (words, width)}
    blocks["model.embed_tokens.weight"] = _sparse(words, width, {(token, token): 1.0 for token in range(words)})
    blocks["lm_head.weight"] = _sparse(words, width, model.successors())
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, block in blocks.items():
        header[name] = {"dtype": "BF16", "shape": shapes[name], "data_offsets": [offset, offset + len(block)]}
        offset += len(block)
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    return struct.pack("<Q", len(raw)) + raw + b"".join(blocks.values())


def _sparse(rows: int, columns: int, entries: dict[tuple[int, int], float]) -> bytes:
    matrix = bytearray(rows * columns * 2)
    for (row, column), value in entries.items():
        at = (row * columns + column) * 2
        matrix[at : at + 2] = _bf16(value)
    return bytes(matrix)


def _bf16(value: float) -> bytes:
    """The upper half of a 32-bit number."""
    return struct.pack("<f", value)[2:]
