"""The safetensors reader, the choice among a folder's files, and the counting of packed numbers."""

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats.build import head_of, safetensors
from llm_router.formats.document import Document
from llm_router.formats.reading import BadFile, NeedMore
from llm_router.formats.safetensors import (
    SafetensorsHeader,
    Tensor,
    WeightFiles,
    count_parameters,
    read_header,
    weight_files,
)

WHOLE = safetensors({"model.embed_tokens.weight": ("BF16", (40, 8)), "lm_head.weight": ("F32", (40, 8))})


def with_header(header: object) -> bytes:
    data = json.dumps(header).encode()
    return struct.pack("<Q", len(data)) + data


def test_reads_tensors_and_length() -> None:
    found = read_header(WHOLE, len(WHOLE))
    assert isinstance(found, SafetensorsHeader)
    assert found.tensors[0] == Tensor("model.embed_tokens.weight", "BF16", (40, 8), 640)
    assert found.weight_bytes == 640 + 1280
    assert found.needed == len(WHOLE)
    assert read_header(head_of(WHOLE)) == found


def test_asks_for_the_length_and_then_for_the_header() -> None:
    assert read_header(WHOLE[:5]) == NeedMore(8)
    assert read_header(WHOLE[:8]) == NeedMore(len(head_of(WHOLE)))
    assert read_header(WHOLE[:100], len(WHOLE)) == NeedMore(len(head_of(WHOLE)))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "cut off"),
        (WHOLE[:100], "cut off inside its header"),
        (WHOLE[:-1], f"{len(WHOLE) - 1} bytes of {len(WHOLE)}"),
        (b"version https://git-lfs.github.com/spec/v1", "download it again"),
        (struct.pack("<Q", 1 << 40) + b"{}", "does not begin with a header"),
        (struct.pack("<Q", 1) + b"{", "does not begin with a header"),
        (struct.pack("<Q", 4) + b"{]]]", "damaged"),
        (struct.pack("<Q", 4) + b'{"\xff"', "damaged"),
        (with_header({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}), "impossible shape"),
        (with_header({"a": {"dtype": "F32", "shape": [1] * 9, "data_offsets": [0, 4]}}), "impossible shape"),
        (with_header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}), "impossible offsets"),
        (with_header({"a": {"dtype": "F32", "shape": [1]}}), "damaged"),
        (struct.pack("<Q", 200_000) + b'{"a":' + b"[" * 199_995, "damaged"),
    ],
)
def test_bad_files_give_a_reason(data: bytes, words: str) -> None:
    found = read_header(data, len(data))
    assert isinstance(found, BadFile)
    assert found.reason.startswith("cannot ")
    assert words in found.reason


@given(st.integers(0, len(WHOLE)))
def test_every_beginning_is_short_or_enough(cut: int) -> None:
    found = read_header(WHOLE[:cut])
    assert isinstance(found, NeedMore if cut < len(head_of(WHOLE)) else SafetensorsHeader)


@given(st.lists(st.tuples(st.integers(0, len(WHOLE)), st.binary(min_size=1, max_size=9)), min_size=1, max_size=6))
def test_damaged_files_are_read_or_refused(wounds: list[tuple[int, bytes]]) -> None:
    data = bytearray(WHOLE)
    for place, wound in wounds:
        data[place : place + len(wound)] = wound
    assert isinstance(read_header(bytes(data)), SafetensorsHeader | NeedMore | BadFile)


@given(st.binary(max_size=120))
def test_any_header(header: bytes) -> None:
    data = struct.pack("<Q", len(header) + 1) + b"{" + header
    assert isinstance(read_header(data, len(data)), SafetensorsHeader | BadFile)


def index(*names: str) -> Document:
    return Document({"weight_map": {str(number): name for number, name in enumerate(names)}})


PARTS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def test_an_index_decides_and_names_what_is_missing() -> None:
    assert weight_files({*PARTS, "consolidated.safetensors"}, index(*PARTS)) == WeightFiles(PARTS)
    assert weight_files({PARTS[0]}, index(*PARTS)) == WeightFiles(PARTS[:1], PARTS[1:])


def test_an_index_cannot_lead_out_of_the_folder() -> None:
    assert weight_files({"model.safetensors"}, index("../../etc/passwd", "/x", "..", "a\0b")) == WeightFiles(
        ("model.safetensors",)
    )


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        ({"model.safetensors", "consolidated.safetensors", "pytorch_model.bin"}, WeightFiles(("model.safetensors",))),
        ({*PARTS, "consolidated.00.safetensors"}, WeightFiles(PARTS)),
        ({PARTS[1]}, WeightFiles(PARTS[1:], PARTS[:1])),
        ({"consolidated.safetensors"}, WeightFiles(("consolidated.safetensors",))),
        ({"output.safetensors", "README.md"}, WeightFiles(("output.safetensors",))),
        ({"pytorch_model.bin", "training_args.bin"}, WeightFiles(("pytorch_model.bin",))),
        ({"a-00001-of-99999.safetensors"}, WeightFiles(("a-00001-of-99999.safetensors",))),
        ({"README.md"}, WeightFiles(())),
    ],
)
def test_without_an_index_the_names_decide(names: set[str], chosen: WeightFiles) -> None:
    assert weight_files(names) == chosen


def tensor(name: str, dtype: str, *shape: int) -> Tensor:
    return Tensor(name, dtype, shape, 0)


@pytest.mark.parametrize(
    ("tensors", "bits", "count"),
    [
        ([tensor("a.weight", "BF16", 64, 32), tensor("a.bias", "BF16", 64)], None, 64 * 32 + 64),
        (
            [tensor("a.qweight", "I32", 64, 4), tensor("a.qzeros", "I32", 1, 4), tensor("a.scales", "F16", 1, 32)],
            4,
            2048,
        ),
        ([tensor("a.qweight", "I32", 16, 32), tensor("a.g_idx", "I32", 64)], 8, 64 * 32),
        ([tensor("a.weight_packed", "I32", 64, 4), tensor("a.weight_shape", "I64", 2)], 4, 2048),
        ([tensor("a.weight_packed", "U8", 64, 16), tensor("a.weight_scale", "F8_E4M3", 64, 2)], 4, 2048),
        ([tensor("a.weight", "F8_E4M3", 64, 32), tensor("a.weight_scale_inv", "F32", 1, 1)], 8, 2048),
        (
            [tensor("m.gate_up_proj_blocks", "U8", 2, 8, 4, 16), tensor("m.gate_up_proj_scales", "U8", 2, 8, 4)],
            None,
            2048,
        ),
        ([tensor("a.weight", "U8", 1024, 1), tensor("a.weight.absmax", "F32", 32)], 4, 2048),
        ([tensor("a.trellis", "I16", 4, 2, 64), tensor("a.suh", "F16", 64), tensor("a.svh", "F16", 32)], 4, 2048),
        (
            [tensor("a.q_weight", "I32", 9, 32), tensor("a.q_invperm", "I32", 64), tensor("a.q_scale", "I32", 2, 4)],
            4,
            2048,
        ),
    ],
)
def test_packed_numbers_are_counted(tensors: list[Tensor], bits: float | None, count: int) -> None:
    assert count_parameters(tensors, bits) == count
