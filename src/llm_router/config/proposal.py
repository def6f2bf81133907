"""A first configuration for what was found on a machine, with a comment on each choice (R6).

This file knows what a good beginning is. It looks at no machine: what was found comes in.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Final

from llm_router.config.convert import write
from llm_router.config.old import Note
from llm_router.formats.estimate import GIB, MIB, Setting, estimate, fits, judge_split
from llm_router.formats.recognise import Recognised
from llm_router.formats.serving import ENGINES

#: Numbers of GPUs that are tried for a model, fewest first.
_SPLITS: Final = (1, 2, 4, 8, 16)


@dataclass(frozen=True, slots=True)
class Shelved:
    """A model of the first configuration: its name there, what it is, and the backend that serves it."""

    name: str
    about: Recognised
    backend: str
    gpus: int | None = None
    remark: str = ""

    def entry(self) -> dict[str, object]:
        """Its keys in the configuration."""
        gpus = {"gpus": self.gpus} if self.gpus is not None else {}
        return {"backend": self.backend, "path": self.about.path, **gpus}


def choose(
    models: Sequence[Recognised], engines: Mapping[str, str], free: Sequence[int] = (), taken: Collection[str] = ()
) -> tuple[list[Shelved], list[tuple[Recognised, str]]]:
    """The models that can be served here, and the others with the reason.

    ``engines`` are those there are: engine -> name of its backend. ``free`` is the memory of each GPU in bytes,
    ``taken`` are names in use already.
    """
    shelved: list[Shelved] = []
    left: list[tuple[Recognised, str]] = []
    names = set(taken)
    for about in models:
        engine = next((engine for engine in about.engines if engine in engines), None)
        if engine is None:
            wanted = " or ".join(ENGINES[name] for name in about.engines)
            left.append((about, about.reason if not about.servable else f"needs {wanted}, which was not found here"))
            continue
        name = unused_name(about, names)
        names.add(name)
        shelved.append(_placed(Shelved(name, about, engines[engine]), engine, free))
    return shelved, left


def unused_name(about: Recognised, taken: Collection[str]) -> str:
    """A name for clients: the model's own, in small letters, told apart from the others if need be."""
    name = "-".join(about.name.lower().split()) or "model"
    tries = [name, f"{name}-{about.quantisation.lower() or about.format.value}"]
    tries += [f"{name}-{number}" for number in range(2, len(taken) + 3)]
    return next(word for word in tries if word not in taken)


def _placed(model: Shelved, engine: str, free: Sequence[int]) -> Shelved:
    """With the fewest GPUs on which it fits, and a remark on its memory."""
    about = model.about
    if not free:
        return replace(model, remark=_remark(about, engine, 0))
    for number in _SPLITS:
        if number > len(free) or (about.shape is not None and judge_split(about.shape, number) is not None):
            continue
        if fits(estimate(about, Setting(engine, devices=number)), sorted(free, reverse=True)[:number]):
            # A machine with one GPU needs no word about it.
            return replace(model, gpus=number if len(free) > 1 else None, remark=_remark(about, engine, number))
    return replace(
        model,
        remark=f"{_remark(about, engine, len(free))}: more than there is. Give it a shorter `context`, or fewer bits",
    )


def _remark(about: Recognised, engine: str, devices: int) -> str:
    need = estimate(about, Setting(engine, devices=devices))
    where = f" on each of {devices} GPUs" if devices > 1 else ""
    return f"about {need.per_device / GIB:.1f} GiB{where} with its whole context"


def describe(about: Recognised) -> str:
    """A model's facts in a line."""
    facts = [
        about.quantisation or about.format.value,
        about.kind.value,
        f"{_many(about.parameters)} parameters" if about.parameters else "",
        _size(about.size) if about.size else "",
        f"context {about.context}" if about.context else "",
    ]
    return ", ".join(filter(None, facts))


def _many(number: int) -> str:
    return f"{number / 1e9:.1f} B" if number >= 1e8 else f"{number / 1e6:.1f} M"


def _size(amount: int) -> str:
    return f"{amount / GIB:.1f} GiB" if amount >= GIB // 10 else f"{amount / MIB:.1f} MiB"


def first(
    server: Mapping[str, object],
    backends: Mapping[str, Mapping[str, object]],
    shelved: Sequence[Shelved],
    left: Sequence[tuple[Recognised, str]],
    machine: Sequence[str],
) -> str:
    """The text of a first configuration. ``machine`` are lines about what was found."""
    root: dict[str, object] = {
        "server": dict(server),
        "backends": {name: dict(keys) for name, keys in backends.items()},
        "models": {model.name: model.entry() for model in shelved},
    }
    notes = [Note(("models", model.name), f"{describe(model.about)}; {model.remark}.") for model in shelved]
    notes += [
        Note(("server", "watch"), "Changes of this file come into force by themselves; a broken file changes nothing."),
        Note(
            ("backends", *list(backends)[:1]),
            "Each model gets its own process with the right command; `args` adds options.",
        ),
    ]
    text = write(root, notes, ["Configuration of llm-router, made by `llm-router init`.", *machine])
    return text + _others(left) + ("" if shelved else _EXAMPLE)


def _others(left: Sequence[tuple[Recognised, str]]) -> str:
    if not left:
        return ""
    lines = [f"# - {PurePosixPath(about.path)}: {why}" for about, why in left]
    return "\n".join(["", "# Found, but not served:", *lines, ""])


_EXAMPLE: Final = """
# No models were found. For example:
# models:
#   qwen-7b:  {backend: llamacpp, path: /opt/models/qwen-7b.gguf, context: 16384, aliases: [qwen]}
#   mistral:  {backend: sglang, path: /opt/models/Mistral-AWQ, gpus: 2, idle: 30m}
#   my-own:   {backend: command, command: [./serve.sh, "{port}"], health: /health}
"""
