"""Which engine reads which format, best first, and what to do instead where one does not.

From the engines' own tables: SGLang 0.5.23 (``arg_groups/choices.py``), vLLM 0.33
(``model_executor/layers/quantization``), TabbyAPI (``common/model.py``; EXL2 only on its branch
``exl2-checkpoint``), llama.cpp and transformers 5. It looks at no file and at no machine.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from llm_router.formats.words import Format, Kind

#: The words of ``backend:``, as people write the engines' names.
ENGINES: Final = MappingProxyType(
    {
        "sglang": "SGLang",
        "vllm": "vLLM",
        "tabbyapi": "TabbyAPI",
        "tabbyapi-exl2": "TabbyAPI's exl2 branch",
        "llamacpp": "llama.cpp",
        "transformers": "transformers",
    }
)

_SERVERS: Final = ("sglang", "vllm", "transformers")
READERS: Final[Mapping[Format, tuple[str, ...]]] = MappingProxyType(
    {
        Format.gguf: ("llamacpp", "sglang"),
        Format.awq: _SERVERS,
        Format.gptq: (*_SERVERS, "tabbyapi-exl2"),
        Format.compressed_tensors: _SERVERS,
        Format.fp8: _SERVERS,
        Format.mxfp4: _SERVERS,
        Format.modelopt: ("sglang", "vllm"),
        Format.quark: _SERVERS,
        Format.auto_round: _SERVERS,
        Format.torchao: ("vllm", "sglang", "transformers"),
        Format.bitsandbytes: ("sglang", "transformers"),
        Format.exl2: ("tabbyapi-exl2",),
        Format.exl3: ("tabbyapi",),
        Format.none: ("sglang", "vllm", "tabbyapi", "transformers"),
        Format.mlx: (),
        Format.other: ("transformers",),
        Format.unknown: (),
    }
)

_OLD_BRANCH: Final = (
    "its main branch no longer contains ExLlamaV2; use tabbyapi-exl2, an installation of its branch exl2-checkpoint"
)
_WHY: Final[Mapping[tuple[str, Format], str]] = MappingProxyType(
    {
        ("tabbyapi", Format.exl2): _OLD_BRANCH,
        ("tabbyapi", Format.gptq): _OLD_BRANCH,
        ("tabbyapi-exl2", Format.exl3): "its ExLlamaV3 is too old for present files; use tabbyapi, the main branch",
        ("vllm", Format.gguf): "GGUF left its core after 0.20; use llamacpp",
        ("vllm", Format.bitsandbytes): "bitsandbytes left its core after 0.20; use sglang or transformers",
    }
)
_NOBODY: Final[Mapping[Format, str]] = MappingProxyType(
    {
        Format.mlx: "MLX weights run only on Apple's own engine; get an AWQ, EXL3 or GGUF edition of the model",
        Format.unknown: "its quantisation is not named in config.json; name the backend yourself",
    }
)


def engines_for(format_: Format, kind: Kind) -> tuple[str, ...]:
    """The engines that read this format and serve this kind of model, best first."""
    able = READERS[format_]
    if kind in (Kind.image, Kind.projector, Kind.part):
        return ()
    if format_ is Format.gguf:
        return able if kind in (Kind.chat, Kind.base, Kind.vision) else able[:1]
    if kind is Kind.audio:
        return tuple(engine for engine in ("vllm", "transformers") if engine in able)
    if kind in (Kind.embedding, Kind.rerank, Kind.classify):
        # vLLM has the pooling routes without further flags.
        return tuple(engine for engine in ("vllm", "sglang") if engine in able)
    return able


def refusal(engine: str, format_: Format) -> str | None:
    """Why this engine cannot read this format, and what to do; ``None`` if it can, or is not one we know."""
    able = READERS[format_]
    if engine in able or engine not in ENGINES:
        return None
    why = _WHY.get((engine, format_)) or _NOBODY.get(format_) or f"use {' or '.join(able)}"
    return f"cannot serve {format_.value} weights with {ENGINES[engine]}: {why}"


def explain_choice(format_: Format, kind: Kind, engines: tuple[str, ...]) -> str:
    """One sentence on why the first of these engines is recommended, or why there is none."""
    if not engines:
        if kind is Kind.image:
            return "cannot be served: it makes pictures, and the engines here serve language models"
        what = _NOBODY.get(format_) or f"no engine here serves {kind.value} models with {format_.value} weights"
        return f"cannot be served: {what}"
    weights = "unquantised" if format_ is Format.none else format_.value.upper()
    others = f"; {', '.join(ENGINES[engine] for engine in engines[1:])} can too" if engines[1:] else ""
    return f"{weights} weights, {kind.value}: {ENGINES[engines[0]]} serves them best{others}"
