"""From the facts of a file or folder to a model with a format, a kind, a size and an engine that can serve it.

It joins what the readers of single formats say. It opens nothing: whoever calls has listed and read, and a
fault in what was read becomes the model's ``reason``.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from llm_router.formats import exl, hf_config, hf_shape, safetensors
from llm_router.formats.document import Document, read_document
from llm_router.formats.gguf import GgufHeader
from llm_router.formats.gguf_model import GgufModel, Role, describe
from llm_router.formats.reading import BadFile
from llm_router.formats.safetensors import SafetensorsHeader, WeightFiles
from llm_router.formats.serving import engines_for, explain_choice
from llm_router.formats.words import Format, Kind, Shape

INDEX = "model.safetensors.index.json"
#: The small files of a folder that ``recognise_folder`` wants to read, as far as they are there.
DOCUMENTS = (
    "config.json",
    "tokenizer_config.json",
    INDEX,
    "quant_config.json",
    "quantize_config.json",
    "hf_quant_config.json",
    "adapter_config.json",
)
_BESIDE = ("quant_config.json", "quantize_config.json", "hf_quant_config.json")


@dataclass(frozen=True, slots=True)
class Recognised:
    """A model on the shelf.

    ``size`` is the weights' in bytes, ``bits`` the average per weight, ``context`` in tokens; ``None`` is not
    known. ``engines`` can serve it, best first, ``engine`` is the first of them. ``reason`` says in one
    sentence why that one, or, beginning with "cannot", why none. ``files`` are its weights, beside ``path``.
    """

    name: str
    path: str
    format: Format
    kind: Kind
    parameters: int | None = None
    bits: float | None = None
    context: int | None = None
    size: int = 0
    engine: str | None = None
    engines: tuple[str, ...] = ()
    reason: str = ""
    #: As people call it: ``Q4_K_M``, ``awq``, ``exl3``.
    quantisation: str = ""
    architecture: str = ""
    shape: Shape | None = None
    files: tuple[str, ...] = ()
    #: The path of a GGUF projector for pictures, and its size in bytes.
    projector: str | None = None
    projector_size: int = 0

    @property
    def servable(self) -> bool:
        return self.engine is not None


def unreadable(name: str, path: str, reason: str, format_: Format = Format.unknown, size: int = 0) -> Recognised:
    """What looks like a model and cannot be one. ``reason`` begins with "cannot"."""
    return Recognised(name, path, format_, Kind.base, size=size, reason=reason)


@dataclass(frozen=True, slots=True)
class GgufPart:
    """One file of a GGUF model: its name, its size in bytes, and its header or what is wrong with it."""

    name: str
    size: int
    header: GgufHeader | BadFile


def recognise_gguf(name: str, path: str, parts: Sequence[GgufPart], missing: Sequence[str] = ()) -> Recognised:
    """A GGUF model of these parts, in order. ``missing`` are the names of parts that are not there."""
    size = sum(part.size for part in parts)
    first = parts[0].header if parts else BadFile("cannot be served: its first part is not there")
    if isinstance(first, BadFile):
        return unreadable(name, path, first.reason, Format.gguf, size)
    model = describe(first)
    headers = [part.header for part in parts if isinstance(part.header, GgufHeader)]
    parameters = sum(header.parameters for header in headers)
    weights = sum(header.weight_bytes for header in headers)
    found = Recognised(
        name=name,
        path=path,
        format=Format.gguf,
        kind=model.kind,
        parameters=parameters or None,
        bits=round(weights * 8 / parameters, 2) if parameters else None,
        context=model.context,
        size=weights or size,
        quantisation=first.file_type,
        architecture=first.architecture,
        shape=model.shape,
        files=tuple(part.name for part in parts),
    )
    return _decided(found, _gguf_fault(first, model, parts, missing))


def _gguf_fault(first: GgufHeader, model: GgufModel, parts: Sequence[GgufPart], missing: Sequence[str]) -> str:
    number, count = first.part
    if model.role is Role.projector:
        return "cannot be served: it is a projector for pictures or sound; it belongs beside its model"
    if model.role is Role.adapter:
        return "cannot be served: it is a LoRA adapter; it belongs to a model"
    if model.role is Role.tool:
        return "cannot be served: it holds no model, only a vocabulary or measurements"
    if missing:
        return f"cannot be served: {_names(missing)} not there; download the missing parts"
    if number != 1:
        return f"cannot be served: it is part {number} of {count}; name the first part"
    if count > 1 and count != len(parts):
        return f"cannot be served: it has {count} parts, found by names that end in -00001-of-{count:05}.gguf"
    for part in parts:
        fault = part.header if isinstance(part.header, BadFile) else part.header.judge_size(part.size)
        if fault is not None:
            return f"{fault.reason} ({part.name})"
    return "" if first.architecture else "cannot be served: general.architecture is missing in its header"


def _names(missing: Sequence[str]) -> str:
    more = f" and {len(missing) - 1} more are" if len(missing) > 1 else " is"
    return f"{missing[0]}{more}"


@dataclass(frozen=True, slots=True)
class Folder:
    """What was found in a folder: file names with sizes in bytes (``1_Pooling/config.json`` included), the
    small ``documents``, and the headers of the weight files that could be read."""

    name: str
    path: str
    files: Mapping[str, int]
    documents: Mapping[str, bytes] = field(default_factory=dict)
    headers: Mapping[str, SafetensorsHeader | BadFile] = field(default_factory=dict)


def folder_weights(files: Mapping[str, int], documents: Mapping[str, bytes]) -> WeightFiles:
    """Which files of the folder are the model's weights."""
    index = read_document(documents[INDEX], INDEX) if INDEX in documents else None
    return safetensors.weight_files(files.keys(), index if isinstance(index, Document) else None)


def looks_like_model(files: Mapping[str, int]) -> bool:
    """Whether these file names are a model's, or at least meant to be one."""
    if "model_index.json" in files or "adapter_config.json" in files:
        return True
    return "config.json" in files and any(_WEIGHTS.search(name) for name in files)


_WEIGHTS = re.compile(r"\.safetensors(\.index\.json)?\Z|\Apytorch_model.*\.bin(\.index\.json)?\Z")


def recognise_folder(folder: Folder) -> Recognised:
    """A model as a folder with ``config.json`` and weights."""
    size = sum(size for name, size in folder.files.items() if _WEIGHTS.search(name))
    if "model_index.json" in folder.files:
        found = Recognised(folder.name, folder.path, Format.none, Kind.image, size=size)
        return _decided(found)
    if "adapter_config.json" in folder.files and "config.json" not in folder.files:
        found = Recognised(folder.name, folder.path, Format.none, Kind.part, size=size)
        return _decided(found, "cannot be served: it is a LoRA adapter; it belongs to a model")
    if "config.json" not in folder.documents:
        return unreadable(
            folder.name, folder.path, "cannot be served: it has no config.json that can be read", size=size
        )
    config = read_document(folder.documents["config.json"], "config.json")
    if isinstance(config, BadFile):
        return unreadable(folder.name, folder.path, config.reason, size=size)
    return _from_config(folder, config)


def _from_config(folder: Folder, config: Document) -> Recognised:
    weights = folder_weights(folder.files, folder.documents)
    headers = [folder.headers[name] for name in weights.names if name in folder.headers]
    good = [header for header in headers if isinstance(header, SafetensorsHeader)]
    tensors = [tensor for header in good for tensor in header.tensors]
    quantisation = hf_config.quantisation(config, _first_document(folder, _BESIDE))
    measured = exl.measure(tensors)
    if measured is not None:
        # The tensors' names are surer than the word, which early conversions lack.
        quantisation = replace(quantisation, format=measured.format, bits=quantisation.bits or measured.bits)
    complete = bool(good) and len(good) == len(weights.names)
    parameters = safetensors.count_parameters(tensors, quantisation.bits) if complete else None
    size = _size(folder, weights.names)
    tokenizer = _first_document(folder, ("tokenizer_config.json",)) or Document()
    architectures = config.texts("architectures")
    found = Recognised(
        name=folder.name,
        path=folder.path,
        format=quantisation.format,
        kind=hf_config.kind(config, folder.files.keys(), tokenizer, folder.name),
        parameters=parameters or None,
        bits=_average(size, parameters, quantisation.bits),
        context=hf_config.context(config),
        size=size,
        quantisation=quantisation.method or quantisation.format.value,
        architecture=architectures[0] if architectures else config.text("model_type"),
        shape=hf_shape.shape(config),
        files=weights.names,
    )
    return _decided(found, _folder_fault(folder, weights))


def _average(size: int, parameters: int | None, declared: float | None) -> float | None:
    """The declared width, else what the files measure."""
    return declared or (round(size * 8 / parameters, 2) if parameters else None)


def _size(folder: Folder, names: Sequence[str]) -> int:
    """The weights' bytes: from the headers, else of the files as they are."""
    total = 0
    for name in names:
        header = folder.headers.get(name)
        total += header.weight_bytes if isinstance(header, SafetensorsHeader) else folder.files[name]
    return total


def _first_document(folder: Folder, names: Sequence[str]) -> Document | None:
    for name in names:
        if name in folder.documents:
            document = read_document(folder.documents[name], name)
            if isinstance(document, Document):
                return document
    return None


def _folder_fault(folder: Folder, weights: WeightFiles) -> str:
    if weights.missing:
        return f"cannot be served: {_names(weights.missing)} not there; download the missing files"
    if not weights.names:
        return "cannot be served: it has no weights; download them"
    for name in weights.names:
        header = folder.headers.get(name)
        fault = header if isinstance(header, BadFile) else header and header.judge_size(folder.files[name])
        if fault:
            return f"{fault.reason} ({name})"
    return ""


def _decided(found: Recognised, fault: str = "") -> Recognised:
    """The same model with its engines, or with its fault."""
    if fault:
        return replace(found, reason=fault)
    engines = engines_for(found.format, found.kind)
    reason = explain_choice(found.format, found.kind, engines)
    return replace(found, engines=engines, engine=engines[0] if engines else None, reason=reason)


def with_projector(model: Recognised, path: str, size: int) -> Recognised:
    """The same GGUF model with the projector that lies beside it; it sees pictures now."""
    seeing = replace(model, projector=path, projector_size=size, kind=Kind.vision)
    return _decided(seeing) if model.servable else seeing
