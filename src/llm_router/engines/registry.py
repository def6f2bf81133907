"""From the word in ``backend:`` to the adapter of the engine. It knows the names, nothing else."""

import difflib
from collections.abc import Mapping
from typing import Final

from llm_router.engines.command import Command
from llm_router.engines.engine import Engine
from llm_router.engines.llamacpp import LlamaCpp
from llm_router.engines.sglang import SGLang
from llm_router.engines.tabbyapi import TabbyAPI
from llm_router.engines.transformers import Transformers
from llm_router.engines.vllm import VLLM

_ADAPTERS: Final[tuple[Engine, ...]] = (
    LlamaCpp(),
    SGLang(),
    VLLM(),
    TabbyAPI(),
    TabbyAPI("tabbyapi-exl2"),
    Transformers(),
    Command(),
)
ENGINES: Final[Mapping[str, Engine]] = {engine.name: engine for engine in _ADAPTERS}
#: What people write for it.
SPELLINGS: Final[Mapping[str, str]] = {
    "llama.cpp": "llamacpp",
    "llama-cpp": "llamacpp",
    "llama_cpp": "llamacpp",
    "llama-server": "llamacpp",
    "llama_server": "llamacpp",
    "sgl": "sglang",
    "tabby": "tabbyapi",
    "tabby-api": "tabbyapi",
    "tabby_api": "tabbyapi",
    "exllama": "tabbyapi",
    "exllamav3": "tabbyapi",
    "exl3": "tabbyapi",
    "tabby-exl2": "tabbyapi-exl2",
    "tabby_exl2": "tabbyapi-exl2",
    "tabbyapi_exl2": "tabbyapi-exl2",
    "exllamav2": "tabbyapi-exl2",
    "exl2": "tabbyapi-exl2",
    "hf": "transformers",
    "huggingface": "transformers",
    "custom": "command",
}


def names() -> tuple[str, ...]:
    """The engines' own names, in the order in which people are told them."""
    return tuple(ENGINES)


def canonical(name: str) -> str | None:
    """The engine's own name for what somebody wrote, in any case; ``None`` if there is no such engine."""
    word = name.strip().lower()
    word = SPELLINGS.get(word, word)
    return word if word in ENGINES else None


def find(name: str) -> Engine:
    """The adapter of this name. Raises ``LookupError`` that names the nearest one."""
    known = canonical(name)
    if known:
        return ENGINES[known]
    near = difflib.get_close_matches(name.strip().lower(), [*ENGINES, *SPELLINGS], n=1)
    hint = f"did you mean {SPELLINGS.get(near[0], near[0])}?" if near else f"there are {', '.join(ENGINES)}"
    raise LookupError(f"cannot find the engine {name!r}: {hint}")
