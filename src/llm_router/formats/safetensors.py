"""Reads the head of a safetensors file, chooses the weight files of a folder, and counts what they hold.

The format is eight bytes of length and a JSON object (https://github.com/huggingface/safetensors). It knows
how quantisers pack numbers, by the names of their tensors, and nothing of engines.
"""

import re
import struct
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

import msgspec

from llm_router.formats.document import Document
from llm_router.formats.reading import BadFile, NeedMore

#: The library's own bound.
MAX_HEADER: Final = 100_000_000
MAX_DIMENSIONS: Final = 8

_LENGTH = struct.Struct("<Q")


class _Entry(msgspec.Struct):
    """One tensor, as it stands in the JSON."""

    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor. ``size`` is in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int

    @property
    def elements(self) -> int:
        count = 1
        for length in self.shape:
            count *= length
        return count


@dataclass(frozen=True, slots=True)
class SafetensorsHeader:
    """What one file holds. ``weight_bytes`` is the sum of its tensors, ``needed`` the length it must have."""

    tensors: tuple[Tensor, ...]
    weight_bytes: int
    needed: int

    def judge_size(self, size: int) -> BadFile | None:
        """Whether a file of this size can hold the tensors that its header names."""
        if size >= self.needed:
            return None
        return BadFile(
            f"cannot use the file: it is cut off, {size} bytes of {self.needed} are there; download or copy it again"
        )


def read_header(head: bytes, size: int | None = None) -> SafetensorsHeader | NeedMore | BadFile:
    """Read the first bytes of a file. ``size`` is the whole file's, in bytes, if it is known."""
    if len(head) < _LENGTH.size:
        return _short(_LENGTH.size, head, size)
    length: int = _LENGTH.unpack_from(head)[0]
    if head[8:9] not in (b"", b"{") or not 2 <= length <= MAX_HEADER:
        return BadFile("cannot read it as safetensors: it does not begin with a header; download it again")
    end = _LENGTH.size + length
    if len(head) < end:
        return _short(end, head, size)
    try:
        entries = msgspec.json.decode(head[_LENGTH.size : end], type=dict[str, msgspec.Raw])
        entries.pop("__metadata__", None)
        tensors = tuple(_tensor(name, msgspec.json.decode(raw, type=_Entry)) for name, raw in entries.items())
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        return BadFile(f"cannot read it as safetensors: its header is damaged ({error})")
    weight_bytes = sum(tensor.size for tensor in tensors)
    header = SafetensorsHeader(tensors, weight_bytes, end + weight_bytes)
    return header if size is None else header.judge_size(size) or header


def _short(at_least: int, head: bytes, size: int | None) -> NeedMore | BadFile:
    if size is None or (at_least <= size and len(head) < size):
        return NeedMore(at_least)
    return BadFile(
        f"cannot read it as safetensors: it is cut off inside its header, at {size} bytes; download it again"
    )


def _tensor(name: str, entry: _Entry) -> Tensor:
    begin, end = entry.data_offsets
    if len(entry.shape) > MAX_DIMENSIONS or not all(0 <= length < 1 << 40 for length in entry.shape):
        raise ValueError(f"the tensor {name!r} has an impossible shape")
    if not 0 <= begin <= end < 1 << 60:
        raise ValueError(f"the tensor {name!r} has impossible offsets")
    return Tensor(name, entry.dtype, tuple(entry.shape), end - begin)


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """Which files of a folder are the model's weights, in order, and which of them are not there."""

    names: tuple[str, ...]
    missing: tuple[str, ...] = ()


_PART = re.compile(
    r"(?P<stem>.*)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})\.(?P<suffix>safetensors|bin)\Z", re.DOTALL
)
#: Mistral's own layout of the same weights, beside the usual one.
_DUPLICATE = re.compile(r"consolidated.*\.safetensors\Z", re.DOTALL)
_MAX_PARTS: Final = 4096


def weight_files(names: Collection[str], index: Document | None = None) -> WeightFiles:
    """Choose among the names of a folder's files. ``index`` is ``model.safetensors.index.json``, if it is there.

    Duplicates such as ``consolidated.safetensors`` are left out; old ``.bin`` weights count only where there
    is no safetensors file.
    """
    listed = _listed(index)
    if listed:
        return WeightFiles(tuple(n for n in listed if n in names), tuple(n for n in listed if n not in names))
    tensors = sorted(name for name in names if name.endswith(".safetensors"))
    usual = [name for name in tensors if not _DUPLICATE.match(name)]
    if "model.safetensors" in usual:
        return WeightFiles(("model.safetensors",))
    old = sorted(name for name in names if name.startswith("pytorch_model") and name.endswith(".bin"))
    chosen = usual or tensors or old
    return WeightFiles(tuple(chosen), _missing_parts(chosen))


def _listed(index: Document | None) -> list[str]:
    """The files an index names; a name that leaves the folder is no name."""
    if index is None:
        return []
    named = {name for name in index.inner("weight_map").fields.values() if isinstance(name, str)}
    return sorted(name for name in named if "/" not in name and "\0" not in name and name not in ("", ".", ".."))


def _missing_parts(names: Iterable[str]) -> tuple[str, ...]:
    names, wanted = set(names), set[str]()
    for name in names:
        part = _PART.match(name)
        if part and (count := int(part["count"])) <= _MAX_PARTS and len(wanted) <= _MAX_PARTS:
            wanted.update(f"{part['stem']}-{n:05}-of-{part['count']}.{part['suffix']}" for n in range(1, count + 1))
    return tuple(sorted(wanted - names))


#: Scales, zero points and permutations that quantisers store beside the numbers.
_BESIDE = re.compile(
    r"(scales?(_inv|_2|_max)?|zero_points?|zeros|qzeros|g_idx|absmax|quant_map|quant_state\..*|weight_shape|suh?|svh?"
    r"|mcg|mul1|q_groups|q_group_map|q_invperm|q_perm)\Z"
)


def count_parameters(tensors: Iterable[Tensor], bits: float | None = None) -> int:
    """How many numbers of the trained model these tensors hold. ``bits`` is the width of the packed ones."""
    tensors = list(tensors)
    inputs = {t.name.removesuffix("q_invperm"): t.elements for t in tensors if t.name.endswith(".q_invperm")}
    return sum(_numbers(tensor, bits or 4.0, inputs) for tensor in tensors)


def _numbers(tensor: Tensor, bits: float, inputs: dict[str, int]) -> int:
    stem, _, last = tensor.name.rpartition(".")
    if last == "trellis" and len(tensor.shape) == 3:
        # EXL3: one entry for each tile of 16 x 16 numbers.
        return tensor.shape[0] * tensor.shape[1] * 256
    if last == "q_weight" and len(tensor.shape) == 2:
        # EXL2: the rows are packed with mixed widths, the permutation of the inputs tells their number.
        return inputs.get(f"{stem}.", 0) * tensor.shape[1]
    if _BESIDE.search(last):
        return 0
    if last in ("qweight", "weight_packed") and tensor.dtype in ("I32", "U32"):
        return int(tensor.elements * 32 / bits)
    if tensor.dtype == "U8" and (last.endswith("_blocks") or last.startswith("weight")):
        return tensor.elements * 2
    return tensor.elements
