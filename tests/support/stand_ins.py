"""Every engine's stand-in as a model of one router: its program, its folder of weights, its place in the configuration.

A stand-in says "I am NAME, a demo model."; the tokens of that are known.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from fakes.hf_model import write_folder
from llm_router.demo.tinymodel import TinyModel
from support.router import Json, free_port

FAKES = Path(__file__).parents[1] / "fakes"
#: The engines that have a stand-in in a process of their own.
STAND_INS = ("sglang", "vllm", "tabbyapi", "tabbyapi-exl2", "transformers", "llamacpp")
#: How much faster than the originals they go.
SPEED = 100.0
#: As the stand-ins count "Who are you?", and their sentence with its end.
PROMPT_TOKENS, ANSWER_TOKENS = 16, 7
#: What their files say of the weights.
_METHODS = {"tabbyapi": "exl3", "tabbyapi-exl2": "exl2"}


def says(engine: str, name: str) -> str:
    """What the stand-in of this engine answers to everything."""
    return f"I am {name}, a {'fake' if engine == 'llamacpp' else 'demo'} model."


def weights(folder: Path, engine: str, name: str) -> Path:
    """A model for the engine, in its own format."""
    place = write_folder(folder / "weights" / name, TinyModel(name, says(engine, name)))
    if engine in _METHODS:
        config = place / "config.json"
        told = json.loads(config.read_text()) | {"quantization_config": {"quant_method": _METHODS[engine], "bits": 4.0}}
        config.write_text(json.dumps(told))
    return place


def entry(folder: Path, engine: str, name: str, gguf: Path | None = None, **more: object) -> Json:
    """The model's entry. ``gguf`` is the file for llama.cpp."""
    if engine == "llamacpp":
        assert gguf is not None, "llama.cpp's stand-in reads a GGUF file"
        path = gguf
    else:
        path = weights(folder, engine, name)
    context = {} if engine == "transformers" else {"context": 2048}
    return {"backend": engine, "path": str(path), **context, **more}


def backend(engine: str, *traps: str, speed: float = SPEED, **env: object) -> Json:
    """The engine's stand-in as a backend, with what goes wrong in it."""
    program = [sys.executable, str(FAKES / f"{engine.partition('-')[0]}.py")]
    words = program if engine.startswith(("tabbyapi", "llamacpp")) else [*program, "serve"]
    branch = {"FAKE_BRANCH": "exl2"} if engine == "tabbyapi-exl2" else {}
    given = {"FAKE_SPEED": speed, "FAKE_TRAP": ",".join(traps), **branch, **env}
    return {"command": words, "env": {key: str(value) for key, value in given.items()}}


def configuration(backends: Json, models: Json, **server: object) -> Json:
    """A router over these, one model at a time, that does not wait long for anybody."""
    return {
        "server": {"port": free_port(), "load_timeout": 60, **server},
        "scheduler": {"linger": 0.05, "quantum_min": 0.1, "quantum_max": 0.5, "backoff": 0.1},
        "backends": backends,
        "models": models,
    }


def one_model(
    folder: Path,
    engine: str,
    *traps: str,
    name: str = "alpha",
    gguf: Path | None = None,
    speed: float = SPEED,
    **env: object,
) -> Json:
    """A router with one model on one engine."""
    model = entry(folder, engine, name, gguf)
    return configuration({engine: backend(engine, *traps, speed=speed, **env)}, {name: model})


def descriptions(told: Iterable[Json]) -> list[str]:
    """What status lines say."""
    return [status["description"] for status in told]
