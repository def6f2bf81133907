"""Ollama's lists of models: ``/api/tags``, ``/api/ps``, ``/api/show`` and ``/api/version``.

It knows the fields that Ollama's clients read, and takes what there is to tell from a plain list. What the router
does not know is left empty in the way Ollama leaves it empty: its clients expect the fields to be there.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from llm_router.wire.foreign import encode
from llm_router.wire.ollama_answer import moment

#: Clients refuse servers that are too old for what they use; this one has all that is translated here.
VERSION: Final = "0.12.6"
#: When a model that stays for ever will be unloaded.
_NEVER: Final = "9999-12-31T23:59:59Z"


@dataclass(frozen=True, slots=True)
class Listed:
    """A model as clients of Ollama see it. ``size`` and ``vram`` are bytes, times Unix seconds; ``None``: unknown.

    ``leaves_at`` is when the loaded model will be unloaded, ``None`` if nothing is planned. ``format`` is that of
    the file (``gguf``, ``safetensors``); ``capabilities`` are Ollama's words: completion, tools, vision, thinking, embedding.
    """

    name: str
    size: int = 0
    modified: float = 0.0
    format: str = ""
    family: str = ""
    parameter_size: str = ""
    quantization: str = ""
    context: int | None = None
    capabilities: tuple[str, ...] = ("completion",)
    loaded: bool = False
    vram: int = 0
    leaves_at: float | None = None


def version() -> bytes:
    """The answer to ``/api/version``."""
    return encode({"version": VERSION})


def tags(models: Iterable[Listed]) -> bytes:
    """The answer to ``/api/tags``: all models, in the given order."""
    return encode({"models": [{**_entry(model), "modified_at": moment(model.modified)} for model in models]})


def running(models: Iterable[Listed]) -> bytes:
    """The answer to ``/api/ps``: the loaded ones."""
    return encode({"models": [_running(model) for model in models if model.loaded]})


def show(model: Listed) -> bytes:
    """The answer to ``/api/show``. Templates and licences are the engine's and not known here."""
    family = model.family or "unknown"
    facts: dict[str, Any] = {"general.architecture": family, "general.basename": model.name}
    if model.context is not None:
        facts[f"{family}.context_length"] = model.context
    return encode(
        {
            "license": "",
            "modelfile": f"FROM {model.name}\n",
            "parameters": f"num_ctx {model.context}" if model.context is not None else "",
            "template": "",
            "details": _details(model),
            "model_info": facts,
            "capabilities": list(model.capabilities),
            "modified_at": moment(model.modified),
        }
    )


def _entry(model: Listed) -> dict[str, Any]:
    # Clients show the digest's beginning and tell models apart by it. Reading gigabytes to make one is not worth it.
    digest = hashlib.sha256(model.name.encode()).hexdigest()
    return {
        "name": model.name,
        "model": model.name,
        "size": model.size,
        "digest": digest,
        "details": _details(model),
    }


def _running(model: Listed) -> dict[str, Any]:
    leaves = _NEVER if model.leaves_at is None else moment(model.leaves_at)
    context = {"context_length": model.context} if model.context is not None else {}
    return {**_entry(model), "expires_at": leaves, "size_vram": model.vram, **context}


def _details(model: Listed) -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": model.format,
        "family": model.family,
        "families": [model.family] if model.family else [],
        "parameter_size": model.parameter_size,
        "quantization_level": model.quantization,
    }
