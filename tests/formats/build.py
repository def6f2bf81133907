"""Builds small but real model files: GGUF, safetensors, and folders as they come from the hubs."""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llm_router.formats.gguf_types import TENSOR_TYPES

#: The number of a type in a GGUF file, by its name here.
KINDS = {
    "u8": (0, "<B"),
    "i8": (1, "<b"),
    "u16": (2, "<H"),
    "i16": (3, "<h"),
    "u32": (4, "<I"),
    "i32": (5, "<i"),
    "f32": (6, "<f"),
    "bool": (7, "<?"),
    "u64": (10, "<Q"),
    "i64": (11, "<q"),
    "f64": (12, "<d"),
}
STRING, ARRAY = 8, 9
TYPE_NUMBERS = {kind.name: number for number, kind in TENSOR_TYPES.items()}


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def key(name: str, value: object, kind: str = "u32") -> bytes:
    """One key: a ``str`` is a string, a ``list`` of them or of numbers of ``kind`` an array."""
    if isinstance(value, str):
        return text(name) + struct.pack("<I", STRING) + text(value)
    if isinstance(value, list) and value and isinstance(value[0], str):
        return text(name) + struct.pack("<IIQ", ARRAY, STRING, len(value)) + b"".join(map(text, value))
    number, code = KINDS[kind]
    if isinstance(value, list):
        items = b"".join(struct.pack(code, item) for item in value)
        return text(name) + struct.pack("<IIQ", ARRAY, number, len(value)) + items
    return text(name) + struct.pack("<I", number) + struct.pack(code, value)


@dataclass(frozen=True)
class Tensor:
    """One tensor of a GGUF file; ``shape`` has the row's length first."""

    name: str
    shape: tuple[int, ...]
    type: str = "F16"

    @property
    def size(self) -> int:
        kind = TENSOR_TYPES[TYPE_NUMBERS[self.type]]
        elements = 1
        for length in self.shape:
            elements *= length
        return elements // kind.block * kind.size


def gguf_head(keys: Sequence[bytes], tensors: Sequence[Tensor], *, version: int = 3, alignment: int = 32) -> bytes:
    """The head up to where the weights begin, padding included."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys)) + b"".join(keys)
    offset = 0
    for tensor in tensors:
        head += text(tensor.name) + struct.pack("<I", len(tensor.shape))
        head += struct.pack(f"<{len(tensor.shape)}QIQ", *tensor.shape, TYPE_NUMBERS[tensor.type], offset)
        offset += -(-tensor.size // alignment) * alignment
    return head + bytes(-len(head) % alignment) if tensors else head


def gguf(keys: Sequence[bytes], tensors: Sequence[Tensor], *, version: int = 3, alignment: int = 32) -> bytes:
    """A whole file, with weights of zeros."""
    weights = b"".join(bytes(tensor.size) + bytes(-tensor.size % alignment) for tensor in tensors)
    return gguf_head(keys, tensors, version=version, alignment=alignment) + weights


def llama_keys(*extra: bytes, architecture: str = "llama", template: bool = True) -> list[bytes]:
    """The keys of a Llama-3-8B, but for its vocabulary."""
    shape = {
        "context_length": 8192,
        "embedding_length": 4096,
        "block_count": 32,
        "attention.head_count": 32,
        "attention.head_count_kv": 8,
    }
    keys = [
        key("general.architecture", architecture),
        key("general.type", "model"),
        key("general.name", "Tiny"),
        key("general.file_type", 15),
        *(key(f"{architecture}.{name}", value) for name, value in shape.items()),
        key("tokenizer.ggml.model", "gpt2"),
        key("tokenizer.ggml.tokens", [f"<{number}>" for number in range(40)]),
        key("tokenizer.ggml.scores", [0.5] * 2000, "f32"),
        key("tokenizer.ggml.token_type", [1] * 40, "i32"),
        key("tokenizer.ggml.add_bos_token", True, "bool"),
    ]
    if template:
        keys.append(key("tokenizer.chat_template", "{{ messages }}" * 100))
    return keys + list(extra)


LLAMA_TENSORS = [
    Tensor("token_embd.weight", (256, 40), "Q6_K"),
    Tensor("blk.0.attn_q.weight", (256, 256), "Q4_K"),
    Tensor("blk.0.attn_norm.weight", (5,), "F32"),
    Tensor("output.weight", (256, 40), "Q4_K"),
]


def tiny_gguf(*extra: bytes, architecture: str = "llama", template: bool = True) -> bytes:
    """A whole small file whose keys are those of a Llama-3-8B."""
    return gguf(llama_keys(*extra, architecture=architecture, template=template), LLAMA_TENSORS)


DTYPE_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "F8_E4M3": 1, "U8": 1, "I8": 1}


def safetensors(tensors: Mapping[str, tuple[str, tuple[int, ...]]], *, metadata: bool = True) -> bytes:
    """A whole safetensors file: name -> (dtype, shape), with weights of zeros."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}} if metadata else {}
    offset = 0
    for name, (dtype, shape) in tensors.items():
        size = DTYPE_BYTES[dtype]
        for length in shape:
            size *= length
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + bytes(offset)


def head_of(data: bytes) -> bytes:
    """A safetensors file without its weights."""
    return data[: 8 + struct.unpack_from("<Q", data)[0]]


#: ``config.json`` of real models, cut to what is read.
CONFIGS: dict[str, dict[str, object]] = {
    "llama-3-8b": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 4096,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "num_hidden_layers": 32,
        "max_position_embeddings": 131072,
        "rope_scaling": {"factor": 8.0, "original_max_position_embeddings": 8192, "rope_type": "llama3"},
        "torch_dtype": "bfloat16",
    },
    "deepseek-v3": {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        "hidden_size": 7168,
        "num_attention_heads": 128,
        "num_key_value_heads": 128,
        "num_hidden_layers": 61,
        "kv_lora_rank": 512,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "max_position_embeddings": 163840,
        "rope_scaling": {"factor": 40, "original_max_position_embeddings": 4096, "type": "yarn"},
        "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
    },
    "gemma-3-27b": {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "vision_config": {"hidden_size": 1152},
        "text_config": {
            "model_type": "gemma3_text",
            "hidden_size": 5376,
            "num_attention_heads": 32,
            "num_key_value_heads": 16,
            "head_dim": 128,
            "num_hidden_layers": 62,
            "sliding_window": 1024,
            "max_position_embeddings": 131072,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        },
    },
    "qwen3-next-80b": {
        "architectures": ["Qwen3NextForCausalLM"],
        "model_type": "qwen3_next",
        "hidden_size": 2048,
        "head_dim": 256,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "num_hidden_layers": 48,
        "full_attention_interval": 4,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 32,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_conv_kernel_dim": 4,
        "max_position_embeddings": 262144,
    },
    "gpt-oss-20b": {
        "architectures": ["GptOssForCausalLM"],
        "model_type": "gpt_oss",
        "hidden_size": 2880,
        "head_dim": 64,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "num_hidden_layers": 24,
        "layer_types": ["sliding_attention", "full_attention"] * 12,
        "sliding_window": 128,
        "max_position_embeddings": 131072,
        "rope_scaling": {"factor": 32.0, "original_max_position_embeddings": 4096, "rope_type": "yarn"},
        "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]},
    },
}
