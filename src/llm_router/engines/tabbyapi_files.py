"""TabbyAPI's settings: which belong into its ``config.yml``, which into the request that loads the model.

This file knows the fields of TabbyAPI (``common/config_models.py``, ``endpoints/core/types/model.py``) and
the traps between them: settings of the file do not apply to a load by request unless they are listed in
``use_as_default``, and fields that the request has are overwritten by the request's own defaults.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final

from ruamel.yaml import YAML

from llm_router.engines.engine import FileToWrite, Job
from llm_router.engines.folder import model_path
from llm_router.engines.keys import admin_key

_REQUEST: Final = frozenset(
    [
        "backend",
        "max_seq_len",
        "cache_size",
        "cache_mode",
        "tensor_parallel",
        "tensor_parallel_backend",
        "gpu_split_auto",
        "autosplit_reserve",
        "gpu_split",
        "rope_scale",
        "rope_alpha",
        "chunk_size",
        "output_chunking",
        "prompt_template",
        "vision",
    ]
)
_REQUEST_DRAFT: Final = frozenset(
    ["draft_model_name", "draft_rope_scale", "draft_rope_alpha", "draft_gpu_split", "draft_cache_mode"]
)
_SECTIONS: Final[Mapping[str, frozenset[str]]] = {
    "network": frozenset(["disable_fetch_requests", "send_tracebacks", "api_servers", "sse_ping_interval"]),
    "logging": frozenset(["log_prompt", "log_generation_params", "log_requests", "log_chat_completion_requests"]),
    "model": frozenset(
        [
            "cpu_moe_offload_layers",
            "max_batch_size",
            "template_vars_default",
            "template_vars_force",
            "force_enable_thinking",
            "reasoning",
            "reasoning_start_token",
            "reasoning_end_token",
            "start_in_reasoning",
            "tool_calls_in_reasoning",
            "reasoning_budget_tokens",
            "reasoning_budget_message",
            "tool_format",
            "harmony",
            "muse_glimmer",
            "num_experts_per_token",
        ]
    ),
    "draft_model": frozenset(["draft_mode", "draft_model_dir", "draft_num_tokens", "dynamic_draft", "ngram_match_min"]),
    "lora": frozenset(["lora_dir", "loras"]),
    "embeddings": frozenset(["embedding_model_dir", "embedding_model_name", "embeddings_device"]),
    "sampling": frozenset(["override_preset"]),
    "memory": frozenset(["sysmem_recurrent_cache", "sysmem_kv_cache", "cuda_malloc_async"]),
    "developer": frozenset(["unsafe_launch", "disable_request_streaming", "realtime_process_priority"]),
}
#: What the router itself decides, and the word to use instead.
RESERVED: Final[Mapping[str, str]] = {
    "host": "host of the backend",
    "port": "port of the backend",
    "model_dir": "model_dir of the backend",
    "model_name": "path",
    "disable_auth": "keys of the router",
    "inline_model_loading": "nothing; the router loads models",
    "use_dummy_models": "aliases of the model",
    "dummy_model_names": "aliases of the model",
    "use_as_default": "nothing; args apply to every load",
}
#: Tokens of the cache come in pages of so many.
PAGE: Final = 256


@dataclass(frozen=True, slots=True)
class Settings:
    """What the file says, by section, and what the request for the load says."""

    file: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    request: Mapping[str, object] = field(default_factory=dict)


def settings_of(job: Job) -> Settings:
    """The job's settings, each where it has an effect.

    Options may be bare (``cache_mode``), with their section (``model.cache_mode``) or nested (``model:``).
    Raises ``ValueError`` for one that TabbyAPI does not have or that the router sets.
    """
    file: dict[str, dict[str, object]] = {}
    request: dict[str, object] = {}
    draft: dict[str, object] = {}
    if job.context is not None:
        request["max_seq_len"] = job.context
        # One cache for all requests together: each of them may be as long as the context.
        request["cache_size"] = -(-job.context * (job.parallel or 1) // PAGE) * PAGE
    if job.parallel is not None:
        file["model"] = {"max_batch_size": job.parallel}
    for name, value in _flat(job):
        if name in RESERVED:
            raise ValueError(
                f"cannot pass the option {name!r} for {job.model}: the router sets it; use {RESERVED[name]}"
            )
        if value is None:
            continue
        if name in _REQUEST:
            request[name] = value
        elif name in _REQUEST_DRAFT:
            draft[name] = value
        else:
            file.setdefault(_section(job, name), {})[name] = value
    if draft:
        request["draft_model"] = draft
    return Settings(file, request)


def load_request(job: Job) -> bytes:
    """The body of ``POST /v1/model/load``."""
    name = PurePosixPath(model_path(job)).name
    return json.dumps({"model_name": name, **settings_of(job).request}).encode()


def written_files(job: Job) -> tuple[FileToWrite, ...]:
    """``config.yml`` without a model, so that the port opens at once, and the keys, readable by us only.

    A model's name would make it load before the port opens, with nothing to be seen of it.
    """
    settings = settings_of(job)
    sections: dict[str, dict[str, object]] = {name: dict(fields) for name, fields in settings.file.items()}
    network = {"host": job.host, "port": job.port, "disable_auth": job.key is None}
    sections["network"] = {**network, **sections.get("network", {})}
    defaults = [name for section in ("model", "draft_model") for name in sections.get(section, {})]
    model: dict[str, object] = {"model_dir": str(PurePosixPath(model_path(job)).parent)}
    if defaults := [name for name in defaults if name != "draft_model_dir"]:
        model["use_as_default"] = defaults
    sections["model"] = {**model, **sections.get("model", {})}
    files = [FileToWrite(f"{job.directory}/config.yml", _yaml(sections))]
    if job.key:
        keys = {"api_key": job.key, "admin_key": admin_key(job.key)}
        files.append(FileToWrite(f"{job.directory}/api_tokens.yml", _yaml(keys), secret=True))
    return tuple(files)


def _flat(job: Job) -> list[tuple[str, object]]:
    """The options by bare field name; sections are only a way to write them."""
    flat: list[tuple[str, object]] = []
    for key, value in job.options.items():
        name = key.strip().lstrip("-").replace("-", "_")
        if isinstance(value, Mapping) and name in _SECTIONS:
            flat += [(str(inner).replace("-", "_"), item) for inner, item in value.items()]
        else:
            flat.append((name.rpartition(".")[2], value))
    return flat


def _section(job: Job, name: str) -> str:
    section = next((section for section, fields in _SECTIONS.items() if name in fields), None)
    if section is None:
        raise ValueError(
            f"cannot pass the option {name!r} for {job.model}: TabbyAPI has no such setting; see its config_sample.yml"
        )
    return section


def _yaml(content: Mapping[str, object]) -> bytes:
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.width = 4096  # Paths stay on one line.
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    stream = io.BytesIO()
    writer.dump({key: dict(value) if isinstance(value, Mapping) else value for key, value in content.items()}, stream)
    return stream.getvalue()
