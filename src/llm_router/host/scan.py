"""Looks through folders for models: lists names, reads the heads of files, and asks ``formats`` what they are.

It reads only the beginnings of files, follows links once, and gives up at limits instead of running away on a
large disk. What cannot be read is reported like a model that cannot be served; nothing here raises ``OSError``.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

from llm_router.formats import gguf, safetensors
from llm_router.formats.document import MAX_DOCUMENT
from llm_router.formats.gguf_files import model_stem, part_names, projector_names_model
from llm_router.formats.reading import BadFile, NeedMore
from llm_router.formats.recognise import (
    DOCUMENTS,
    Folder,
    GgufPart,
    Recognised,
    folder_weights,
    looks_like_model,
    recognise_folder,
    recognise_gguf,
    unreadable,
    with_projector,
)
from llm_router.formats.words import Kind

_Header = TypeVar("_Header")
_Reader = Callable[[bytes, int | None], _Header | NeedMore | BadFile]

#: Enough for the header of most safetensors files and of GGUF files with small vocabularies.
FIRST_READ: Final = 1 << 20
#: A folder inside a model's folder whose name says something of the whole (sentence-transformers).
_POOLING: Final = "1_Pooling/config.json"


@dataclass(frozen=True, slots=True)
class Limits:
    """How far a scan goes: folders deep, entries looked at, bytes of one header, and files of one model."""

    depth: int = 8
    entries: int = 100_000
    header: int = 64 << 20
    files: int = 1024


@dataclass(slots=True)
class _Walk:
    """One scan's memory: what was seen, and what was found."""

    limits: Limits
    entries: int = 0
    seen: set[tuple[int, int]] = field(default_factory=set)
    found: list[Recognised] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Listing:
    """The content of a folder: regular files with their sizes in bytes, and folders."""

    files: dict[str, int]
    folders: list[str]


def scan(folder: str | Path, limits: Limits | None = None) -> list[Recognised]:
    """All models below the folder, by name. What looks like one and cannot be served says so in ``reason``."""
    walk = _Walk(limits or Limits())
    top = Path(folder).expanduser().absolute()
    _look(walk, top, 0)
    if walk.entries >= walk.limits.entries:
        reason = f"cannot look at all of it: stopped after {walk.limits.entries} entries; scan a smaller folder"
        walk.found.append(unreadable(top.name, str(top), reason))
    return sorted(walk.found, key=lambda model: (model.name.lower(), model.path))


def recognise_path(path: str | Path, limits: Limits | None = None) -> Recognised:
    """The model in this file or folder; for a part of a split model the whole of it."""
    limits = limits or Limits()
    place = Path(path).expanduser().absolute()
    name = model_stem(place.name)
    try:
        is_folder = place.is_dir()
        listing = _list(place if is_folder else place.parent, limits.entries)
    except OSError as error:
        return unreadable(name, str(place), f"cannot read {place}: {error.strerror}")
    if is_folder:
        return _only_model(place, listing, limits)
    if place.name not in listing.files:
        return unreadable(name, str(place), f"cannot read {place}: there is no such file")
    if not _is_gguf(place.name):
        return unreadable(name, str(place), "cannot be served: it is neither a GGUF file nor a model's folder")
    models = {model.path: model for model in _gguf_models(place.parent, listing.files, limits)}
    first = str(place.parent / part_names(place.name)[0])
    found = models.get(str(place)) or models.get(first)
    # A projector beside its model is no entry of its own, but here it was asked for by name.
    return found or _read_gguf(place.parent, place.name, listing.files, limits)


def _only_model(folder: Path, listing: _Listing, limits: Limits) -> Recognised:
    name = _folder_name(folder)
    if looks_like_model(listing.files):
        return _read_folder(folder, listing.files, limits)
    models = list(_gguf_models(folder, listing.files, limits))
    if len(models) == 1:
        return models[0]
    what = "it holds several models; name one of the files" if models else "it holds no model"
    return unreadable(name, str(folder), f"cannot be served: {what}")


def _look(walk: _Walk, folder: Path, depth: int) -> None:
    try:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in walk.seen:
            return
        walk.seen.add((status.st_dev, status.st_ino))
        listing = _list(folder, walk.limits.entries - walk.entries)
    except OSError as error:
        walk.found.append(unreadable(folder.name, str(folder), f"cannot read {folder}: {error.strerror}"))
        return
    walk.entries += len(listing.files) + len(listing.folders)
    walk.found.extend(_gguf_models(folder, listing.files, walk.limits))
    if looks_like_model(listing.files):
        # The folders inside belong to it (1_Pooling, unet, original).
        walk.found.append(_read_folder(folder, listing.files, walk.limits))
        return
    for name in listing.folders:
        if depth < walk.limits.depth and walk.entries < walk.limits.entries and not name.startswith("."):
            _look(walk, folder / name, depth + 1)


def _list(folder: Path, limit: int) -> _Listing:
    """What is in the folder, links followed, sorted. Raises ``OSError`` if the folder cannot be read."""
    files: dict[str, int] = {}
    folders: list[str] = []
    with os.scandir(folder) as entries:
        for entry in islice(entries, max(0, limit)):
            # A link that leads nowhere is as good as no file.
            with suppress(OSError):
                status = entry.stat()
                if stat.S_ISREG(status.st_mode):
                    files[entry.name] = status.st_size
                elif stat.S_ISDIR(status.st_mode):
                    folders.append(entry.name)
    return _Listing(dict(sorted(files.items())), sorted(folders))


def _is_gguf(name: str) -> bool:
    return name.lower().endswith(".gguf")


def _gguf_models(folder: Path, files: dict[str, int], limits: Limits) -> Iterator[Recognised]:
    """The GGUF models of one folder, split ones once, each with the projector that belongs to it."""
    firsts = {part_names(name)[0]: name for name in reversed(files) if _is_gguf(name)}
    read = [_read_gguf(folder, name, files, limits) for name in sorted(firsts.values())]
    projectors = [model for model in read if model.kind is Kind.projector]
    models = [model for model in read if model.kind is not Kind.projector]
    alike = len({(model.architecture, model.shape) for model in models}) == 1
    for model in models:
        fitting = [one for one in projectors if _belongs(one, model, alike=alike)]
        yield with_projector(model, fitting[0].path, fitting[0].size) if fitting else model
    yield from (one for one in projectors if not models)


def _belongs(projector: Recognised, model: Recognised, *, alike: bool) -> bool:
    """``alike``: the folder holds one model only, perhaps in several quantisations."""
    named = projector_names_model(Path(projector.path).name, model.name)
    return alike if named is None else named or alike


def _read_gguf(folder: Path, name: str, files: dict[str, int], limits: Limits) -> Recognised:
    names = part_names(name)
    there = [part for part in names if part in files][: limits.files]
    parts = [GgufPart(part, files[part], _header(folder / part, gguf.read_header, limits.header)) for part in there]
    missing = [part for part in names if part not in files]
    first = there[0] if there else name
    return recognise_gguf(model_stem(name), str(folder / first), parts, missing)


def _read_folder(folder: Path, names: dict[str, int], limits: Limits) -> Recognised:
    files = dict(names)
    with suppress(OSError):
        files[_POOLING] = (folder / _POOLING).stat().st_size
    documents: dict[str, bytes] = {}
    for name in DOCUMENTS:
        if name in files:
            with suppress(OSError):
                documents[name] = _head(folder / name, MAX_DOCUMENT + 1)[0]
    headers = {
        name: _header(folder / name, safetensors.read_header, limits.header)
        for name in folder_weights(files, documents).names[: limits.files]
        if name.endswith(".safetensors")
    }
    return recognise_folder(Folder(_folder_name(folder), str(folder), files, documents, headers))


def _folder_name(folder: Path) -> str:
    """The model's name: the folder's, or in a hub cache (``models--OWNER--NAME/snapshots/HASH``) the real one."""
    if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--"):
        return folder.parent.parent.name.split("--")[-1]
    return folder.name


def _header(path: Path, read: _Reader[_Header], limit: int) -> _Header | BadFile:
    """The header of a file, of which as much is read as it needs, up to ``limit`` bytes."""
    wanted = FIRST_READ
    while True:
        try:
            head, size = _head(path, wanted)
        except OSError as error:
            return BadFile(f"cannot read {path.name}: {error.strerror}")
        # Whether all weights are there is judged later: the header of a cut file still tells what it is.
        found = read(head, None)
        if not isinstance(found, NeedMore):
            return found
        if found.at_least > size:
            return BadFile(
                f"cannot use {path.name}: it is cut off inside its header, at {size} bytes; download it again"
            )
        if wanted >= limit or found.at_least > limit:
            return BadFile(f"cannot read {path.name}: its header is longer than {limit} bytes")
        wanted = min(limit, max(found.at_least, 2 * wanted))


def _head(path: Path, limit: int) -> tuple[bytes, int]:
    """The first bytes of a regular file, and its size. Raises ``OSError``, also for anything but a file."""
    # Without blocking, since a pipe may have taken the file's place since it was listed.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "it is not a regular file")
        return file.read(limit), status.st_size
