"""Names of GGUF files: the parts of a split model, and what a name tells of its place in the set.

llama.cpp finds the other parts by name alone (``llama_split_path``): ``NAME-00001-of-00003.gguf``. Names only,
no file is touched.
"""

import re
from typing import NamedTuple

#: What stands in a projector's name beside the name of its model.
_PROJECTOR_WORDS = frozenset({"mmproj", "model", "projector", "gguf", "f16", "bf16", "f32", "fp16", "fp32", "q8", "0"})
_PART = re.compile(r"(?P<stem>.*)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})\.gguf\Z", re.IGNORECASE | re.DOTALL)


class PartName(NamedTuple):
    """``NAME``, the part's number from 1, and of how many."""

    stem: str
    number: int
    total: int


def part_name(name: str) -> PartName | None:
    """Take the name of a part apart; ``None`` for the name of a whole file or an impossible number."""
    found = _PART.match(name)
    if found is None:
        return None
    part = PartName(found["stem"], int(found["number"]), int(found["count"]))
    return part if 1 <= part.number <= part.total else None


def part_names(name: str) -> tuple[str, ...]:
    """All the parts to which this name belongs, in order; a whole file is its own only part."""
    part = part_name(name)
    if part is None:
        return (name,)
    suffix = name[-5:]
    return tuple(f"{part.stem}-{number:05}-of-{part.total:05}{suffix}" for number in range(1, part.total + 1))


def model_stem(name: str) -> str:
    """The name without part and suffix, by which people call the model."""
    part = part_name(name)
    return part.stem if part else name.removesuffix(".gguf").removesuffix(".GGUF")


def projector_names_model(projector: str, model: str) -> bool | None:
    """Whether the projector's file name tells that it belongs to this model; ``None`` if it names no model."""
    wanted = _words(projector.removesuffix(".gguf")) - _PROJECTOR_WORDS
    return wanted <= _words(model) if wanted else None


def _words(name: str) -> set[str]:
    return {word for word in re.split(r"[^a-z0-9]+", name.lower()) if word}
