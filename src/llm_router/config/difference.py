"""What a reload changes: two configurations compared by what they mean, not by how they are written.

This file knows which settings cannot change while the router runs. It changes nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from llm_router.config import shelf
from llm_router.config.load import Config

#: Settings of ``server`` that are taken once, when the router starts.
AT_START: Final = (
    "host",
    "port",
    "also_listen",
    "state_dir",
    "supervisor",
    "drop_ins",
    "engines_on_exit",
    "cors_origins",
    "shutdown_grace",
)
#: Settings of a backend that concern how its models are treated, not what runs.
_TREATMENT: Final = ("grace", "load_timeout")


@dataclass(frozen=True, slots=True)
class Difference:
    """Names of models by what happens to them, in the order of the files, and dotted names of other settings.

    ``changed`` models get a new instance: a running one lets its answers end and leaves. ``adjusted`` ones keep
    running and are only treated otherwise. ``settings`` are in force at once, ``needs_restart`` only after a
    restart of the router.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    adjusted: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()

    @property
    def nothing(self) -> bool:
        """Whether both mean the same."""
        return not any((self.added, self.removed, self.changed, self.adjusted, self.settings, self.needs_restart))

    def __str__(self) -> str:
        """One line for people."""
        if self.nothing:
            return "nothing changed"
        parts = [
            f"{word} {', '.join(names)}"
            for word, names in (
                ("added", self.added),
                ("removed", self.removed),
                ("changed", self.changed),
                ("adjusted", self.adjusted),
                ("set", self.settings),
                ("needs a restart of the router:", self.needs_restart),
            )
            if names
        ]
        return "; ".join(parts)


def difference(old: Config, new: Config, begun: Config) -> Difference:
    """From the configuration in force to the next one; ``begun`` is the one that the router was started with."""
    both = [name for name in new.models if name in old.models]
    changed = [name for name in both if shelf.revision(old, name) != shelf.revision(new, name)]
    adjusted = [name for name in both if name not in changed and _treatment(old, name) != _treatment(new, name)]
    return Difference(
        added=tuple(name for name in new.models if name not in old.models),
        removed=tuple(name for name in old.models if name not in new.models),
        changed=tuple(changed),
        adjusted=tuple(adjusted),
        unchanged=tuple(name for name in both if name not in changed and name not in adjusted),
        settings=(
            *(f"server.{name}" for name in _fields(old.server, new.server) if name not in AT_START),
            *(f"scheduler.{name}" for name in _fields(old.scheduler, new.scheduler)),
        ),
        needs_restart=tuple(f"server.{name}" for name in _fields(begun.server, new.server) if name in AT_START),
    )


def _treatment(config: Config, model: str) -> tuple[Any, ...]:
    _, backend = config.backend_of(model)
    return config.models[model], *(getattr(backend, name) for name in _TREATMENT)


def _fields(old: BaseModel, new: BaseModel) -> Iterator[str]:
    return (name for name in type(old).model_fields if getattr(old, name) != getattr(new, name))
