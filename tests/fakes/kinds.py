"""The engines of the contract: a job for each, against its stand-in and, where it is set up, against the original.

``LLM_ROUTER_REAL_ENGINES`` names the folder that ``scripts/real_engines.py`` filled; without it only the
stand-ins are met.
"""

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fakes.hf_model import write_folder
from fakes.running import free_port
from llm_router.demo.tinymodel import TinyModel
from llm_router.engines.engine import Job

FAKES = Path(__file__).parent
REAL = os.environ.get("LLM_ROUTER_REAL_ENGINES", "")
#: How much faster than the originals the stand-ins go.
SPEED = 150.0
#: By how much the grace of a farewell is shortened for a stand-in; a busy machine needs some of it.
HURRY = 15.0
KEY = "a-key-of-ours"

_OPTIONS: dict[str, dict[str, object]] = {
    "sglang": {"device": "cpu", "attention-backend": "torch_native", "disable-overlap-schedule": True,
               "mem-fraction-static": 0.2, "max-total-tokens": 16384},
    "vllm": {"enforce-eager": True},
    "transformers": {"device": "cpu"},
}  # fmt: skip
_ENVIRONMENT = {"sglang": {"SGLANG_USE_CPU_ENGINE": "1"}, "vllm": {"VLLM_CPU_KVCACHE_SPACE": "1"}, "transformers": {}}


@dataclass(frozen=True)
class Kind:
    """An engine by its name, real or not."""

    engine: str
    real: bool = False

    def __str__(self) -> str:
        return f"{'real ' if self.real else ''}{self.engine}"

    @property
    def total_s(self) -> float:
        return 240.0 if self.real else 20.0

    @property
    def hurry(self) -> float:
        return 1.0 if self.real else HURRY


def kinds(*names: str) -> list[object]:
    """The stand-ins of these engines, and the originals that are set up."""
    found: list[object] = [pytest.param(Kind(name), id=name) for name in names]
    real = [name for name in names if REAL and (Path(REAL) / name / "installed").exists()]
    found += [pytest.param(Kind(name, real=True), id=f"real-{name}", marks=pytest.mark.real_engines) for name in real]
    return found


def job_of(kind: Kind, folder: Path, **changes: object) -> Job:
    """A job for the engine, with a model in ``folder`` that says who it is."""
    path = write_folder(folder / "models" / "alpha-4bpw", TinyModel("alpha", "I am alpha, a demo model."))
    instance = folder / "instance"
    instance.mkdir(exist_ok=True)
    tabby = kind.engine.startswith("tabbyapi")
    fields: dict[str, object] = {
        "model": "alpha", "port": free_port(), "path": str(path), "directory": str(instance), "key": KEY,
        "context": None if kind.engine == "transformers" else 2048, **_program(kind, tabby), **changes,
    }  # fmt: skip
    return Job(**fields)  # type: ignore[arg-type]


def _program(kind: Kind, tabby: bool) -> dict[str, object]:
    if kind.real:
        command = (str(Path(REAL) / kind.engine / "bin" / kind.engine), "serve")
        return {"command": command, "options": _OPTIONS[kind.engine], "env": _ENVIRONMENT[kind.engine]}
    program = (sys.executable, str(FAKES / f"{kind.engine.partition('-')[0]}.py"))
    branch = {"FAKE_BRANCH": "exl2"} if kind.engine == "tabbyapi-exl2" else {}
    env = {"FAKE_SPEED": str(SPEED), "FAKE_TOKENS_PER_S": "20", "FAKE_SAYS": "I am alpha, a demo model.", **branch}
    return {"command": program if tabby else (*program, "serve"), "env": env}


def trapped(job: Job, *traps: str, **env: str) -> Job:
    """The same job with something going wrong."""
    return replace(job, env={**job.env, "FAKE_TRAP": ",".join(traps), **env})
