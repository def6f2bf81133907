"""Tiny Llama models whose every answer is known, as GGUF files that the real llama.cpp loads and runs.

This file knows the technique and the file format's few parts it needs. It writes only where it is told and
knows nothing of servers. Standard library only; the bytes depend on the arguments alone.

The technique: each token's embedding has a single one, attention and feed-forward outputs are zero, so what
reaches the output matrix is the present token alone, scaled by the norm to ``sqrt(width)``. The output matrix
holds ``STRENGTH`` where the next token's row meets the present token's column. So the next token follows from
the present one, with a margin (about 90 logits at width 512) that no sampling temperature overcomes. The
sentence must therefore be cut into pieces that are all different. Any prompt ends in the assistant's marker,
which leads to the first piece. The last piece leads to the end; where the engine forbids the end
(``ignore_eos``), its weaker second choice starts the sentence again: an endless stream.
"""

import os
import random
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

STRENGTH: Final = 4.0
#: Zeros and noise are written in blocks of this many bytes.
BLOCK: Final = 1 << 20

MARKERS: Final = ("<unk>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|end|>")
UNKNOWN, BEGIN, END = 0, 1, 2
RAW_BYTES: Final = tuple(f"<0x{byte:02X}>" for byte in range(256))
FIRST_PIECE: Final = len(MARKERS) + len(RAW_BYTES)

CHAT_TEMPLATE: Final = (
    "{%- for message in messages -%}<|{{ message['role'] }}|>"
    "{%- if message['content'] is string -%}{{ message['content'] }}"
    "{%- elif message['content'] -%}{%- for part in message['content'] -%}{{ part['text'] }}{%- endfor -%}{%- endif -%}"
    "<|end|>{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"
)

# Codes of the GGUF specification, version 3: kinds of values, kinds of tensors, kinds of tokens.
_I32, _U32, _F32, _BOOL, _STRING, _ARRAY = 5, 4, 6, 7, 8, 9
_TENSOR_F32, _TENSOR_F16 = 0, 1
_NORMAL, _UNKNOWN_TOKEN, _CONTROL, _BYTE = 1, 2, 3, 6
_ALIGNMENT = 32
_MOSTLY_F16 = 1
_HEAD_WIDTH = 64
_PADDED_FFN = 8192
_PACKING: Final = {_I32: "<i", _U32: "<I", _F32: "<f", _BOOL: "<?"}


def cut(text: str) -> tuple[str, ...]:
    """Cut a text into words with the space before them, all different, that join to the text again.

    A word that was there before is kept together with the words after it, or before it at the end.
    """
    pieces: list[str] = []
    pending = ""
    for word in re.findall(r"\s*\S+|\s+$", text):
        pending += word
        if pending not in pieces:
            pieces.append(pending)
            pending = ""
    while pending:
        pending = (pieces.pop() if pieces else "") + pending
        if pending not in pieces:
            pieces.append(pending)
            pending = ""
    return tuple(pieces)


@dataclass(frozen=True, slots=True)
class TinyModel:
    """A model that answers ``says`` to everything.

    ``pad_mb`` are megabytes of weights without effect: they make the file's size, the time to load it and
    the time per token those of a real model of that size. ``context`` is in tokens. Raises ``ValueError``
    for an empty sentence and one that contains a marker as a word.
    """

    name: str
    says: str
    pad_mb: int = 0
    context: int = 4096

    def __post_init__(self) -> None:
        if not self.says.strip():
            raise ValueError(f"cannot make the model {self.name!r}: its sentence is empty")
        clash = {piece.replace(" ", "\u2581") for piece in self.pieces} & {*MARKERS, *RAW_BYTES}
        if clash:
            raise ValueError(f"cannot make the model {self.name!r}: its sentence contains {min(clash)}")

    @property
    def pieces(self) -> tuple[str, ...]:
        """The sentence, a token each."""
        return cut(self.says)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """All tokens in SentencePiece's notation, where U+2581 is a space."""
        return (*MARKERS, *RAW_BYTES, *(piece.replace(" ", "\u2581") for piece in self.pieces))

    @property
    def width(self) -> int:
        """The hidden size: one dimension for each token, in steps of 256."""
        return max(512, -(-len(self.vocabulary) // 256) * 256)

    @property
    def layers(self) -> int:
        if self.pad_mb <= 0:
            return 1
        return max(1, round(self.pad_mb * 1_000_000 / (3 * self.width * _PADDED_FFN * 2)))

    @property
    def feed_forward(self) -> int:
        """The inner size of a layer, chosen so that all layers together come close to ``pad_mb``."""
        if self.pad_mb <= 0:
            return 256
        return max(256, round(self.pad_mb * 1_000_000 / self.layers / (3 * self.width * 2) / 256) * 256)

    def successors(self) -> dict[tuple[int, int], float]:
        """The output matrix where it is not zero: ``{(next, present): weight}``."""
        last = len(self.vocabulary) - 1
        table = {(FIRST_PIECE, token): STRENGTH for token in range(FIRST_PIECE)}
        table |= {(token + 1, token): STRENGTH for token in range(FIRST_PIECE, last)}
        return table | {(END, last): STRENGTH, (FIRST_PIECE, last): STRENGTH / 2}


def write_model(path: Path, name: str, says: str, pad_mb: int = 0) -> int:
    """Write the model to ``path``, whole or not at all; gives its size in bytes.

    The folder must exist. Raises ``ValueError`` for an impossible sentence, ``OSError`` when it cannot be written.
    """
    model = TinyModel(name, says, pad_mb)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as out:
            for block in model_bytes(model):
                out.write(block)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path.stat().st_size


def model_size(model: TinyModel) -> int:
    """The exact size of the model's file in bytes, without making it."""
    return len(_head(model)) + sum(_padded(tensor.size) for tensor in _tensors(model))


def is_model(path: Path, model: TinyModel) -> bool:
    """Whether ``path`` holds this model, judged by its size and its head; quick for any size."""
    head = _head(model)
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_size == model_size(model) and file.read(len(head)) == head
    except OSError:
        return False


def model_bytes(model: TinyModel) -> Iterator[bytes]:
    """The file's bytes in order, in blocks of at most a few megabytes."""
    yield _head(model)
    for tensor in _tensors(model):
        yield from tensor.content
        yield bytes(-tensor.size % _ALIGNMENT)


@dataclass(frozen=True, slots=True)
class _Tensor:
    """``shape`` is in GGML's order, the fastest dimension first. ``content`` is made when it is read."""

    name: str
    shape: tuple[int, ...]
    kind: int
    content: Iterable[bytes]

    @property
    def size(self) -> int:
        count = 1
        for length in self.shape:
            count *= length
        return count * (2 if self.kind == _TENSOR_F16 else 4)


def _tensors(model: TinyModel) -> Iterator[_Tensor]:
    width, words, inner = model.width, len(model.vocabulary), model.feed_forward
    yield _matrix("token_embd.weight", width, words, _sparse(width, words, {(t, t): 1.0 for t in range(words)}))
    yield _ones("output_norm.weight", width)
    yield _matrix("output.weight", width, words, _sparse(width, words, model.successors()))
    for layer in range(model.layers):
        start = f"blk.{layer}."
        yield _ones(f"{start}attn_norm.weight", width)
        yield _matrix(f"{start}attn_q.weight", width, width, _zeros(width * width))
        yield _matrix(f"{start}attn_k.weight", width, _HEAD_WIDTH, _zeros(width * _HEAD_WIDTH))
        yield _matrix(f"{start}attn_v.weight", width, _HEAD_WIDTH, _zeros(width * _HEAD_WIDTH))
        yield _matrix(f"{start}attn_output.weight", width, width, _zeros(width * width))
        yield _ones(f"{start}ffn_norm.weight", width)
        yield _matrix(f"{start}ffn_gate.weight", width, inner, _noise(width * inner, seed=1))
        yield _matrix(f"{start}ffn_up.weight", width, inner, _noise(width * inner, seed=2))
        yield _matrix(f"{start}ffn_down.weight", inner, width, _zeros(width * inner))


def _matrix(name: str, columns: int, rows: int, content: Iterable[bytes]) -> _Tensor:
    return _Tensor(name, (columns, rows), _TENSOR_F16, content)


def _ones(name: str, count: int) -> _Tensor:
    return _Tensor(name, (count,), _TENSOR_F32, (struct.pack("<f", 1.0) * count,))


def _sparse(columns: int, rows: int, entries: dict[tuple[int, int], float]) -> Iterator[bytes]:
    matrix = bytearray(columns * rows * 2)
    for (row, column), value in entries.items():
        struct.pack_into("<e", matrix, (row * columns + column) * 2, value)
    yield bytes(matrix)


def _zeros(count: int) -> Iterator[bytes]:
    return _repeat(bytes(BLOCK), count * 2)


def _noise(count: int, seed: int) -> Iterator[bytes]:
    # A generator, so that nothing is made for a model that is only measured.
    yield from _repeat(_noise_block(seed), count * 2)


@cache
def _noise_block(seed: int) -> bytes:
    """Small weights that do not compress, so that no file system makes the file cheap to read."""
    bits = random.Random(seed).getrandbits(BLOCK * 8)  # noqa: S311 - the same noise each time is the point
    # Keep sign and mantissa and fix the exponent of each 16-bit number: its size is between 2^-6 and 2^-5.
    keep = int.from_bytes(b"\xff\x83" * (BLOCK // 2), "little")
    exponent = int.from_bytes(b"\x00\x24" * (BLOCK // 2), "little")
    return (bits & keep | exponent).to_bytes(BLOCK, "little")


def _repeat(block: bytes, size: int) -> Iterator[bytes]:
    whole, rest = divmod(size, len(block))
    for _ in range(whole):
        yield block
    yield block[:rest]


def _head(model: TinyModel) -> bytes:
    pairs = list(_metadata(model))
    tensors = list(_tensors(model))
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs)) + b"".join(pairs)
    offset = 0
    for tensor in tensors:
        head += _text(tensor.name) + struct.pack("<I", len(tensor.shape))
        head += struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape) + struct.pack("<IQ", tensor.kind, offset)
        offset += _padded(tensor.size)
    return head + bytes(-len(head) % _ALIGNMENT)


def _metadata(model: TinyModel) -> Iterator[bytes]:
    words = model.vocabulary
    markers = len(MARKERS) - 1
    kinds = [_UNKNOWN_TOKEN] + [_CONTROL] * markers + [_BYTE] * len(RAW_BYTES) + [_NORMAL] * len(model.pieces)
    yield _pair("general.architecture", _STRING, "llama")
    yield _pair("general.type", _STRING, "model")
    yield _pair("general.name", _STRING, model.name)
    yield _pair("general.file_type", _U32, _MOSTLY_F16)
    yield _pair("llama.vocab_size", _U32, len(words))
    yield _pair("llama.context_length", _U32, model.context)
    yield _pair("llama.embedding_length", _U32, model.width)
    yield _pair("llama.block_count", _U32, model.layers)
    yield _pair("llama.feed_forward_length", _U32, model.feed_forward)
    yield _pair("llama.attention.head_count", _U32, model.width // _HEAD_WIDTH)
    yield _pair("llama.attention.head_count_kv", _U32, 1)
    yield _pair("llama.attention.layer_norm_rms_epsilon", _F32, 1e-5)
    yield _pair("llama.rope.dimension_count", _U32, _HEAD_WIDTH)
    yield _pair("tokenizer.ggml.model", _STRING, "llama")  # SentencePiece with raw bytes for what it lacks
    yield _array("tokenizer.ggml.tokens", _STRING, words)
    yield _array("tokenizer.ggml.scores", _F32, [0.0] * len(words))
    yield _array("tokenizer.ggml.token_type", _I32, kinds)
    yield _pair("tokenizer.ggml.bos_token_id", _U32, BEGIN)
    yield _pair("tokenizer.ggml.eos_token_id", _U32, END)
    yield _pair("tokenizer.ggml.unknown_token_id", _U32, UNKNOWN)
    yield _pair("tokenizer.ggml.add_bos_token", _BOOL, True)
    yield _pair("tokenizer.ggml.add_eos_token", _BOOL, False)
    yield _pair("tokenizer.ggml.add_space_prefix", _BOOL, False)
    yield _pair("tokenizer.chat_template", _STRING, CHAT_TEMPLATE)


def _pair(key: str, kind: int, value: object) -> bytes:
    return _text(key) + struct.pack("<I", kind) + _value(kind, value)


def _array(key: str, kind: int, values: Iterable[object]) -> bytes:
    items = [_value(kind, value) for value in values]
    return _text(key) + struct.pack("<IIQ", _ARRAY, kind, len(items)) + b"".join(items)


def _value(kind: int, value: object) -> bytes:
    return _text(str(value)) if kind == _STRING else struct.pack(_PACKING[kind], value)


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
