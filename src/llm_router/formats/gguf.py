"""Reads the head of a GGUF file: keys, tensor table, parts, and how long the whole file has to be.

It knows the container (versions 2 and 3, little-endian) and its bounds: time and memory grow with the bytes
given, never with a number written in them. What the keys mean for serving is ``gguf_model``'s.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from llm_router.formats.gguf_types import (
    ARRAY,
    BOOL,
    FILE_TYPES,
    REMOVED_TENSOR_TYPES,
    SCALARS,
    STRING,
    TENSOR_TYPES,
)
from llm_router.formats.reading import BadFile, NeedMore

MAGIC: Final = b"GGUF"
#: Far above any real file (some hundred keys, some thousand tensors); it bounds memory on a made-up one.
MAX_KEYS: Final = 16_384
MAX_TENSORS: Final = 131_072
#: Longer texts (chat templates, licences) and arrays (vocabularies) are stepped over; their keys stay known.
KEPT_TEXT: Final = 1024
KEPT_ITEMS: Final = 1024
#: llama.cpp's own bounds: ``GGML_MAX_NAME`` and ``GGML_MAX_DIMS``.
MAX_TENSOR_NAME: Final = 63
MAX_DIMENSIONS: Final = 4
DEFAULT_ALIGNMENT: Final = 32

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Items:
    """An array: ``count`` items, of which the numbers are kept when there are few; else ``values`` is empty."""

    count: int
    values: tuple[int | float | bool, ...] = ()


@dataclass(frozen=True, slots=True)
class LongText:
    """A text that was stepped over. ``length`` is in bytes."""

    length: int


Value = int | float | bool | str | Items | LongText


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What the head of one file says. Sizes are in bytes.

    ``parameters`` and ``weight_bytes`` count this file's tensors only, ``stored`` says how many bytes each
    tensor type takes, most first. ``needed`` is how long the file must be to hold all its tensors.
    """

    version: int
    keys: Mapping[str, Value]
    tensors: int
    parameters: int
    weight_bytes: int
    stored: tuple[tuple[str, int], ...]
    needed: int

    @property
    def architecture(self) -> str:
        """``general.architecture``; empty in the later parts of a split model, which carry no keys."""
        return self.text("general.architecture")

    @property
    def file_type(self) -> str:
        """The recipe's name, such as ``Q4_K_M``; else the tensor type that takes most bytes; else empty."""
        number = self.integer("general.file_type")
        # llama.cpp adds 1024 to a type that it guessed.
        named = FILE_TYPES.get(number % 1024) if number is not None and number >= 0 else None
        return named or (self.stored[0][0] if self.stored else "")

    @property
    def part(self) -> tuple[int, int]:
        """Which part of how many, from 1; ``(1, 1)`` for a whole model."""
        return (self.integer("split.no") or 0) + 1, self.integer("split.count") or 1

    @property
    def has_template(self) -> bool:
        return "tokenizer.chat_template" in self.keys

    def text(self, key: str) -> str:
        """The text under the key, empty if there is none."""
        value = self.keys.get(key)
        return value if isinstance(value, str) else ""

    def integer(self, key: str) -> int | None:
        """The whole number under the key, ``None`` if there is none."""
        value = self.keys.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def of_architecture(self, name: str) -> Value | None:
        """The value of ``ARCHITECTURE.name``, under which the model's shape is written."""
        return self.keys.get(f"{self.architecture}.{name}")

    def judge_size(self, size: int) -> BadFile | None:
        """Whether a file of this size can hold the tensors that its table names."""
        if size >= self.needed:
            return None
        return BadFile(
            f"cannot use the file: it is cut off, {size} bytes of {self.needed} are there; download or copy it again"
        )


class _ShortError(Exception):
    """More bytes are needed; never leaves this module."""

    def __init__(self, at_least: int) -> None:
        self.at_least = at_least


class _BadError(Exception):
    """The bytes contradict the format; never leaves this module."""


def read_header(head: bytes, size: int | None = None) -> GgufHeader | NeedMore | BadFile:
    """Read the first bytes of a file. ``size`` is the whole file's, in bytes, if it is known.

    With ``size`` a file that ends inside its header, or before its last tensor, is bad instead of short.
    """
    try:
        header = _read(_Cursor(head))
    except _BadError as error:
        return BadFile(f"cannot read it as GGUF: {error}")
    except _ShortError as short:
        if size is None or (short.at_least <= size and len(head) < size):
            return NeedMore(short.at_least)
        return BadFile(f"cannot read it as GGUF: it is cut off inside its header, at {size} bytes; download it again")
    return header if size is None else header.judge_size(size) or header


class _Cursor:
    """A place in the bytes. Every step forward is checked against their end."""

    __slots__ = ("data", "position")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def take(self, count: int) -> int:
        """Step over ``count`` bytes; returns where they begin."""
        start = self.position
        if start + count > len(self.data):
            raise _ShortError(start + count)
        self.position = start + count
        return start

    def u32(self) -> int:
        number: int = _U32.unpack_from(self.data, self.take(4))[0]
        return number

    def u64(self) -> int:
        number: int = _U64.unpack_from(self.data, self.take(8))[0]
        return number

    def name(self, what: str, limit: int) -> str:
        """A short text that has to be readable."""
        length = self.u64()
        if not 0 < length <= limit:
            raise _BadError(f"{what} has a length of {length} bytes, 1 to {limit} are possible")
        start = self.take(length)
        try:
            return self.data[start : start + length].decode("utf-8")
        except UnicodeDecodeError:
            raise _BadError(f"{what} is not text") from None

    def text(self) -> str | LongText:
        length = self.u64()
        start = self.take(length)
        if length > KEPT_TEXT:
            return LongText(length)
        return self.data[start : start + length].decode("utf-8", "replace")

    def step_over_texts(self, count: int) -> None:
        # A vocabulary has a quarter of a million texts, hence the local names.
        data, end, unpack, position = self.data, len(self.data), _U64.unpack_from, self.position
        if position + 8 * count > end:
            raise _ShortError(position + 8 * count)
        for _ in range(count):
            if position + 8 > end:
                raise _ShortError(position + 8)
            position += 8 + unpack(data, position)[0]
        self.position = position
        self.take(0)


def _read(cursor: _Cursor) -> GgufHeader:
    version = _version(cursor)
    tensors, count = cursor.u64(), cursor.u64()
    if tensors > MAX_TENSORS:
        raise _BadError(f"it claims {tensors} tensors, more than {MAX_TENSORS} are not believed")
    if count > MAX_KEYS:
        raise _BadError(f"it claims {count} keys, more than {MAX_KEYS} are not believed")
    keys = _keys(cursor, count)
    alignment = keys.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
        raise _BadError(f"general.alignment is {alignment!r}, not a power of two")
    return _table(cursor, version, keys, tensors, alignment)


def _version(cursor: _Cursor) -> int:
    start = cursor.take(4)
    magic = cursor.data[start : start + 4]
    if magic != MAGIC:
        raise _BadError(f"it begins with {magic!r} instead of {MAGIC!r}; it is another format or a failed download")
    version = cursor.u32()
    if version & 0xFFFF == 0:
        raise _BadError("it is big-endian; convert it to little-endian, or get the usual edition")
    if version not in (2, 3):
        raise _BadError(f"it has version {version} of the format, 2 and 3 can be read; convert the model anew")
    return version


def _keys(cursor: _Cursor, count: int) -> dict[str, Value]:
    keys: dict[str, Value] = {}
    for index in range(count):
        name = cursor.name(f"the name of key {index}", 65_535)
        if name in keys:
            raise _BadError(f"the key {name!r} stands there twice")
        keys[name] = _value(cursor, name)
    return keys


def _value(cursor: _Cursor, name: str) -> Value:
    kind = cursor.u32()
    if kind == STRING:
        return cursor.text()
    if kind == ARRAY:
        return _array(cursor, name)
    return _numbers(cursor, name, kind, 1)[0]


def _array(cursor: _Cursor, name: str) -> Items:
    kind, count = cursor.u32(), cursor.u64()
    if kind == STRING:
        cursor.step_over_texts(count)
        return Items(count)
    if count <= KEPT_ITEMS:
        return Items(count, _numbers(cursor, name, kind, count))
    cursor.take(count * struct.calcsize(_scalar(name, kind)))
    return Items(count)


def _scalar(name: str, kind: int) -> str:
    code = SCALARS.get(kind)
    if code is None:
        raise _BadError(f"the key {name!r} has the unknown type {kind}")
    return code


def _numbers(cursor: _Cursor, name: str, kind: int, count: int) -> tuple[int | float | bool, ...]:
    code = f"<{count}{_scalar(name, kind)[1]}"
    numbers: tuple[int | float, ...] = struct.unpack_from(code, cursor.data, cursor.take(struct.calcsize(code)))
    return tuple(bool(number) for number in numbers) if kind == BOOL else numbers


def _table(cursor: _Cursor, version: int, keys: dict[str, Value], tensors: int, alignment: int) -> GgufHeader:
    names: set[str] = set()
    stored: dict[str, int] = {}
    parameters = weight_bytes = offset = end = 0
    for index in range(tensors):
        name = cursor.name(f"the name of tensor {index}", MAX_TENSOR_NAME)
        if name in names:
            raise _BadError(f"the tensor {name!r} stands there twice")
        names.add(name)
        elements, type_name, size = _tensor(cursor, name)
        # llama.cpp refuses a table with gaps or overlaps, so the last tensor tells the file's length.
        if cursor.u64() != offset:
            raise _BadError(f"the tensor {name!r} does not begin where the one before it ends")
        end = offset + size
        offset += -(-size // alignment) * alignment
        parameters += elements
        weight_bytes += size
        stored[type_name] = stored.get(type_name, 0) + size
    data_start = -(-cursor.position // alignment) * alignment if tensors else cursor.position
    return GgufHeader(
        version=version,
        keys=keys,
        tensors=tensors,
        parameters=parameters,
        weight_bytes=weight_bytes,
        stored=tuple(sorted(stored.items(), key=lambda pair: (-pair[1], pair[0]))),
        needed=data_start + end,
    )


def _tensor(cursor: _Cursor, name: str) -> tuple[int, str, int]:
    """One entry up to its offset: number of elements, name of the type, bytes."""
    dimensions = cursor.u32()
    if dimensions > MAX_DIMENSIONS:
        raise _BadError(f"the tensor {name!r} has {dimensions} dimensions, {MAX_DIMENSIONS} are possible")
    shape = struct.unpack_from(f"<{dimensions}Q", cursor.data, cursor.take(8 * dimensions))
    number = cursor.u32()
    kind = TENSOR_TYPES.get(number)
    if kind is None:
        called = REMOVED_TENSOR_TYPES.get(number)
        known = f"the type {called}, which llama.cpp no longer reads" if called else f"the unknown type {number}"
        raise _BadError(f"the tensor {name!r} has {known}; get the model in another quantisation")
    elements = 1
    for length in shape:
        elements *= length
    if elements >= 1 << 63:
        raise _BadError(f"the tensor {name!r} claims {elements} elements")
    row = shape[0] if shape else 1
    if row % kind.block:
        raise _BadError(f"the tensor {name!r} has rows of {row}, not a multiple of {kind.block} as {kind.name} needs")
    return elements, kind.name, elements // kind.block * kind.size
