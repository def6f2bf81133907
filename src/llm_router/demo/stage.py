"""Sets the demo's stage: its models, a configuration of its own that people may read, and what to try.

It writes below one folder and starts nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ruamel.yaml import YAML

from llm_router.demo import shelf
from llm_router.demo.shelf import DemoModel

HEAD: Final = """\
# The configuration of `llm-router demo`, written anew at each start.
# Neither model says how much memory it takes, so that only one is loaded at a time.
"""


class StageError(Exception):
    """The demo cannot begin; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What the demo needs: the configuration's file and the models in it."""

    path: Path
    models: tuple[DemoModel, ...]


def prepare(folder: Path, count: int, port: int, told: Callable[[str], None]) -> Stage:
    """Make the models and the configuration below ``folder``. Raises ``StageError``."""
    if not shelf.has_engine():
        raise StageError(
            "cannot run the demo: its engine, llama.cpp in the package xllamacpp, is not installed; "
            "type: pip install 'llm-router[demo]'"
        )
    try:
        models = tuple(shelf.prepare(folder / "models", count, told=told))
        path = folder / "llm-router.yml"
        with path.open("w", encoding="utf-8") as file:
            file.write(HEAD)
            YAML().dump(_configuration(folder, models, port), file)
    except ValueError as error:
        raise StageError(str(error)) from None
    except OSError as error:
        raise StageError(
            f"cannot make the demo's files below {folder}: {error}; choose another place with --folder"
        ) from None
    return Stage(path, models)


def welcome(stage: Stage, address: str) -> str:
    """What to try, for a person at a terminal."""
    first, second = stage.models[0].name, stage.models[-1].name
    return f"""
llm-router listens on {address} in front of {len(stage.models)} models; one at a time is loaded.

Try, in another terminal:

  curl -N {address}/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{{"model": "{first}", "stream": true, "messages": [{{"role": "user", "content": "Who are you?"}}]}}'

  the same with "model": "{second}": watch the switch, and the speed at the end

  curl {address}/v1/models

The page: {address}/
The models and this configuration: {stage.path}
Ctrl-C ends it and everything it started.
"""


def _configuration(folder: Path, models: tuple[DemoModel, ...], port: int) -> dict[str, object]:
    return {
        "server": {"port": port, "state_dir": str(folder / "state"), "log_level": "warning"},
        "backends": {"llamacpp": {"command": list(shelf.COMMAND), "args": dict(shelf.ARGS)}},
        "models": {
            model.name: {
                "backend": "llamacpp",
                "path": str(model.path),
                "context": shelf.CONTEXT,
                "description": f'Answers: "{model.says}"',
            }
            for model in models
        },
    }
