"""The GGUF reader: what it finds in good files, what it says of bad ones, and that nothing else happens."""

import ctypes
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats.build import LLAMA_TENSORS, Tensor, gguf, gguf_head, key, llama_keys, text, tiny_gguf
from llm_router.formats.gguf import MAX_KEYS, MAX_TENSORS, GgufHeader, Items, LongText, read_header
from llm_router.formats.gguf_types import FILE_TYPES, REMOVED_TENSOR_TYPES, TENSOR_TYPES
from llm_router.formats.reading import BadFile, NeedMore

WHOLE = tiny_gguf()
HEAD = len(gguf_head(llama_keys(), LLAMA_TENSORS))


def header(data: bytes) -> GgufHeader:
    found = read_header(data, len(data))
    assert isinstance(found, GgufHeader), found
    return found


def reason(data: bytes, size: int | None = None) -> str:
    found = read_header(data, len(data) if size is None else size)
    assert isinstance(found, BadFile), found
    assert found.reason.startswith("cannot ")
    return found.reason


def test_reads_keys_tensors_and_length() -> None:
    found = header(WHOLE)
    assert found.version == 3
    assert found.architecture == "llama"
    assert found.of_architecture("attention.head_count_kv") == 8
    assert found.file_type == "Q4_K_M"
    assert found.has_template
    assert found.tensors == 4
    assert found.parameters == 256 * 40 * 2 + 256 * 256 + 5
    assert found.weight_bytes == 40 * 210 + 256 * 144 + 20 + 40 * 144
    assert found.stored[0] == ("Q4_K", 256 * 144 + 40 * 144)
    assert found.part == (1, 1)
    assert found.needed == len(WHOLE)


def test_long_values_are_stepped_over_but_known() -> None:
    found = header(WHOLE)
    assert found.keys["tokenizer.ggml.tokens"] == Items(40)
    assert found.keys["tokenizer.ggml.scores"] == Items(2000)
    assert found.keys["tokenizer.ggml.token_type"] == Items(40, (1,) * 40)
    assert found.keys["tokenizer.chat_template"] == LongText(1400)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("u8", 200),
        ("i8", -3),
        ("u16", 65535),
        ("i16", -300),
        ("u32", 7),
        ("i32", -7),
        ("f32", 0.5),
        ("u64", 1 << 60),
        ("i64", -(1 << 60)),
        ("f64", 0.1),
    ],
)
def test_every_kind_of_number(kind: str, value: float) -> None:
    found = header(gguf([key("n", value, kind), key("a", [value, value], kind)], []))
    assert found.keys == {"n": value, "a": Items(2, (value, value))}


def test_truth_values_are_not_numbers() -> None:
    found = header(gguf([key("yes", True, "bool"), key("both", [True, False], "bool")], []))
    assert found.keys["yes"] is True
    assert found.keys["both"] == Items(2, (True, False))
    assert found.integer("yes") is None


def test_version_2_and_another_alignment() -> None:
    data = gguf([key("general.alignment", 64)], LLAMA_TENSORS, version=2, alignment=64)
    assert header(data).version == 2
    assert header(data).needed == len(data) - (-LLAMA_TENSORS[-1].size % 64)


def test_parts_are_counted_from_one() -> None:
    data = gguf([key("split.no", 1, "u16"), key("split.count", 3, "u16")], LLAMA_TENSORS)
    assert header(data).part == (2, 3)
    assert header(data).architecture == ""


def test_a_guessed_or_missing_file_type_falls_back() -> None:
    assert header(gguf([key("general.file_type", 1024 + 7)], LLAMA_TENSORS)).file_type == "Q8_0"
    assert header(gguf([], LLAMA_TENSORS)).file_type == "Q4_K"
    assert header(gguf([key("general.file_type", -5, "i32")], LLAMA_TENSORS)).file_type == "Q4_K"
    assert header(gguf([], [])).file_type == ""


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"PK\x03\x04" + bytes(40), "begins with b'PK"),
        (b"version https://git-lfs.github.com/spec/v1", "failed download"),
        (b"GGUF" + struct.pack(">IQQ", 3, 1, 1), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 1, 1, 1), "version 1"),
        (b"GGUF" + struct.pack("<IQQ", 4, 1, 1), "version 4"),
        (b"GGUF" + struct.pack("<IQQ", 3, MAX_TENSORS + 1, 1), "tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, MAX_KEYS + 1), "keys"),
        (gguf([key("a", 1), key("a", 2)], []), "'a' stands there twice"),
        (gguf([text("a") + struct.pack("<I", 13)], []), "unknown type 13"),
        (gguf([text("a") + struct.pack("<IIQ", 9, 9, 1)], []), "unknown type 9"),
        (gguf([text("a") + struct.pack("<IIQ", 9, 99, 1 << 40)], []), "unknown type 99"),
        (gguf([text("") + struct.pack("<I", 4)], []), "length of 0"),
        (gguf([struct.pack("<Q", 2) + b"\xff\xfe" + struct.pack("<II", 4, 1)], []), "not text"),
        (gguf([key("general.alignment", 24)], LLAMA_TENSORS), "power of two"),
        (gguf([key("general.alignment", 0)], LLAMA_TENSORS), "power of two"),
        (gguf([], [Tensor("x", (32,)), Tensor("x", (32,))]), "'x' stands there twice"),
        (gguf([], [Tensor("x" * 64, (32,))]), "length of 64"),
        (gguf([], [Tensor("x", (1, 1, 1, 1, 1))]), "5 dimensions"),
        (gguf_head([], [Tensor("x", (1 << 40, 1 << 40))]), "elements"),
        (gguf_head([], [Tensor("x", (100,), "Q4_K")]), "multiple of 256"),
    ],
)
def test_bad_files_give_a_reason(data: bytes, words: str) -> None:
    assert words in reason(data)


def test_unknown_and_removed_tensor_types_have_their_own_words() -> None:
    entry = text("x") + struct.pack("<IQ", 1, 32)
    for number, words in ((31, "Q4_0_4_4"), (99, "unknown type 99")):
        data = b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + entry + struct.pack("<IQ", number, 0)
        assert words in reason(data)


def test_a_gap_in_the_tensor_table_is_bad() -> None:
    entry = text("x") + struct.pack("<IQIQ", 1, 32, 0, 64)
    assert "does not begin" in reason(b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + entry)


def test_a_file_without_all_its_weights_is_cut_off() -> None:
    assert f"{len(WHOLE) - 1} bytes of {len(WHOLE)}" in reason(WHOLE[:-1])
    assert "cut off" in reason(WHOLE[:HEAD], HEAD)
    assert isinstance(read_header(WHOLE[:HEAD], len(WHOLE)), GgufHeader)
    assert isinstance(read_header(WHOLE[:HEAD]), GgufHeader)


def test_a_file_that_ends_in_its_header_is_cut_off() -> None:
    assert "cut off inside its header" in reason(WHOLE[:500])


def test_a_short_head_says_how_much_it_needs_at_least() -> None:
    data, asked = b"", 0
    while isinstance(found := read_header(data, len(WHOLE)), NeedMore):
        assert found.at_least > len(data)
        data = WHOLE[: found.at_least]
        asked += 1
    assert found == header(WHOLE)
    assert asked > 10


def test_a_large_array_of_numbers_is_one_step() -> None:
    head = gguf_head([text("a") + struct.pack("<IIQ", 9, 6, 1 << 30)], [])
    assert read_header(head) == NeedMore(len(head) + (4 << 30))
    assert "cut off" in reason(head)
    texts = gguf_head([text("a") + struct.pack("<IIQ", 9, 8, 1 << 62)], [])
    assert read_header(texts) == NeedMore(len(texts) + (8 << 62))
    assert "cut off" in reason(texts)


@given(st.integers(0, len(WHOLE)))
def test_every_beginning_is_short_or_enough(cut: int) -> None:
    found = read_header(WHOLE[:cut])
    if cut < HEAD - 32:
        assert isinstance(found, NeedMore)
        assert cut < found.at_least <= HEAD
    elif not isinstance(found, NeedMore):
        assert found == header(WHOLE)


@given(st.lists(st.tuples(st.integers(0, HEAD), st.binary(min_size=1, max_size=9)), min_size=1, max_size=6))
def test_damaged_heads_are_read_or_refused(wounds: list[tuple[int, bytes]]) -> None:
    data = bytearray(WHOLE)
    for place, wound in wounds:
        data[place : place + len(wound)] = wound
    found = read_header(bytes(data), len(data))
    assert isinstance(found, GgufHeader | BadFile)


@given(st.binary(max_size=200), st.none() | st.integers(0, 1 << 40))
def test_any_bytes_after_a_good_start(tail: bytes, size: int | None) -> None:
    assert isinstance(read_header(b"GGUF\x03\0\0\0" + tail, size), GgufHeader | NeedMore | BadFile)


def llama_library() -> ctypes.CDLL:
    xllamacpp = pytest.importorskip("xllamacpp")
    library = ctypes.CDLL(str(next(Path(xllamacpp.__file__).parent.glob("xllamacpp*.so"))))
    library.ggml_type_size.restype = ctypes.c_size_t
    library.ggml_blck_size.restype = ctypes.c_int64
    library.ggml_type_name.restype = library.llama_ftype_name.restype = ctypes.c_char_p
    library.gguf_init_from_file.restype = ctypes.c_void_p
    return library


@pytest.mark.real
def test_the_tables_are_those_of_llama_cpp() -> None:
    library = llama_library()
    for number in range(43):
        kind = TENSOR_TYPES.get(number)
        block, size = library.ggml_blck_size(number), library.ggml_type_size(number)
        assert (kind.block, kind.size) == (block, size) if kind else (block, size) == (0, 0)
        if kind:
            assert library.ggml_type_name(number).decode().lower() == kind.name.lower()
        else:
            assert number in REMOVED_TENSOR_TYPES
    for number in range(48):
        known = b"unknown" not in library.llama_ftype_name(number)
        assert known == (number in FILE_TYPES), number


class InitParameters(ctypes.Structure):
    """``struct gguf_init_params``."""

    _fields_ = (("no_alloc", ctypes.c_bool), ("context", ctypes.c_void_p))


@pytest.mark.real
def test_llama_cpp_reads_what_we_read(tmp_path: Path) -> None:
    library = llama_library()
    library.gguf_get_data_offset.restype = ctypes.c_size_t
    for name in ("gguf_get_n_kv", "gguf_get_n_tensors"):
        getattr(library, name).restype = ctypes.c_int64
    path = tmp_path / "tiny.gguf"
    path.write_bytes(WHOLE)
    context = ctypes.c_void_p(library.gguf_init_from_file(str(path).encode(), InitParameters(True, None)))
    assert context.value is not None
    try:
        assert library.gguf_get_n_kv(context) == len(header(WHOLE).keys)
        assert library.gguf_get_n_tensors(context) == header(WHOLE).tensors
        assert library.gguf_get_data_offset(context) == HEAD
    finally:
        library.gguf_free(context)
