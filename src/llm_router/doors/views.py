"""What the router shows of itself, as plain JSON: health, status, the list of models.

Every view is made from the scheduler's snapshot and the configuration, in memory, in microseconds. It decides
nothing, asks nobody and keeps nothing.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from llm_router import __version__
from llm_router.config.load import Config
from llm_router.config.schema import Entry
from llm_router.core.instance import LOADING, State
from llm_router.core.snapshot import InstanceView, ModelView, Snapshot
from llm_router.core.words import HOST_DEVICE, DeviceId
from llm_router.formats.recognise import Recognised
from llm_router.host.machine.gpus import Gauge

Json = dict[str, Any]

#: States in which a request is served at once.
LOADED: Final = frozenset({State.ready, State.draining})
#: llama.cpp's words for Open WebUI's dot (its provider "llama.cpp" knows these values).
_STATUS: Final[Mapping[State, str]] = {
    **dict.fromkeys(LOADED, "loaded"),
    **dict.fromkeys(LOADING, "loading"),
    State.planned: "loading",
    State.cleared: "loading",
    State.called: "loading",
    State.parked: "sleeping",
    State.parking: "sleeping",
}


@dataclass(frozen=True, slots=True)
class Running:
    """What the scheduler does not know of an instance: where it listens and what process it is."""

    port: int
    pid: int | None


@dataclass(slots=True)
class Views:
    """Builds the views. ``snapshot`` is the state now; ``running`` tells of an instance by id, if it runs here.

    ``about`` are the models' files as they were found when the configuration came into force.
    """

    config: Config
    snapshot: Callable[[], Snapshot]
    running: Callable[[str], Running | None]
    gauge: Gauge
    address: str
    started: float
    clock: Callable[[], float]
    about: Mapping[str, Recognised] = field(default_factory=dict)

    def health(self) -> Json:
        """``GET /health``: what runs, what loads, what failed. It is "ok" while the router can answer at all."""
        seen = self.snapshot()
        loaded = [model.name for model in seen.models if model.state in LOADED]
        loading = [
            {
                "model": model.name,
                "phase": model.phase,
                "percent": _round(model.percent),
                "left_s": _round(model.left_s),
            }
            for model in seen.models
            if _STATUS.get(model.state) == "loading"
        ]
        return {
            "status": "stopping" if seen.closing else "ok",
            "current_model": loaded[0] if loaded else None,
            "backends": sorted({self.config.backend_of(name)[0] for name in self.config.models}),
            "models": list(self.config.models),
            "loaded": loaded,
            "loading": loading,
            "failed": [model.name for model in seen.models if model.failure is not None and model.barred],
            "waiting": seen.waiting,
            "running": seen.leases,
        }

    def status(self, *, logs: bool = True) -> Json:
        """``GET /api/status``: everything that a page or a command wants to show; ``logs``: ends of them too."""
        seen = self.snapshot()
        return {
            "router": {
                "version": __version__,
                "uptime_s": round(self.clock() - self.started, 1),
                "address": self.address,
                "stopping": seen.closing,
            },
            "models": [self._model(model) for model in seen.models],
            "instances": [self._instance(instance, seen.now) for instance in seen.instances],
            "queue": [
                {
                    "model": model.name,
                    "waiting": model.waiting,
                    "background": model.background,
                    "oldest_s": round(model.waited_s, 1),
                }
                for model in seen.models
                if model.waiting or model.background
            ],
            "devices": [
                {
                    "id": device.id,
                    "name": self._device_name(device.id),
                    "total": device.total,
                    "used": self.gauge.used(device.id),
                    "taken": device.taken,
                    "dirty": device.dirty,
                }
                for device in seen.devices
            ],
            "failures": [
                {
                    "model": model.name,
                    "kind": model.failure.kind.value,
                    "cause": model.failure.cause,
                    "tail": list(model.failure.tail) if logs else [],
                    "until_s": round(model.retry_in_s, 1),
                }
                for model in seen.models
                if model.failure is not None
            ],
        }

    def models(self) -> list[Json]:
        """The entries of ``GET /v1/models``, in the order of the configuration; aliases behind them, if listed."""
        shown = [self._entry(model) for model in self.snapshot().models if not self._entry_of(model.name).hidden]
        if not self.config.server.list_aliases:
            return shown
        also = [{**entry, "id": alias, "alias_of": entry["id"]} for entry in shown for alias in entry["aliases"]]
        return [*shown, *also]

    def model(self, name: str) -> Json | None:
        """One entry by name or alias, hidden ones too; ``None`` if there is none."""
        known = self.config.resolve(name) if name else None
        return next((self._entry(model) for model in self.snapshot().models if model.name == known), None)

    def _entry_of(self, name: str) -> Entry:
        return self.config.models.get(name) or Entry()

    def _entry(self, model: ModelView) -> Json:
        """What Open WebUI, llama.cpp's clients and ours read (open-webui's list: no ``null`` where it wants text)."""
        entry, about = self._entry_of(model.name), self.about.get(model.name)
        context = entry.context or (about.context if about else None)
        shown: Json = {
            "id": model.name,
            "object": "model",
            "created": int(self.started),
            "owned_by": "llm-router",
            "loaded": model.state in LOADED,
            "status": {"value": _STATUS.get(model.state, "unloaded")},
            "engine": self.config.engine_of(model.name) if model.name in self.config.models else "",
            "aliases": list(entry.aliases),
        }
        if context:
            shown |= {"max_model_len": context, "context_length": context}
        if about and about.size:
            shown |= {"size": about.size, "format": about.format.value}
            details = {"parameter_size": _count(about.parameters), "quantization_level": about.quantisation}
            shown["details"] = {key: value for key, value in details.items() if value}
        meta: Json = {}
        if entry.description:
            meta["description"] = entry.description
        if entry.capabilities:
            meta["capabilities"] = dict(entry.capabilities)
        if meta:
            shown["info"] = {"meta": meta}
        return shown

    def _model(self, model: ModelView) -> Json:
        entry = self._entry_of(model.name)
        return {
            "name": model.name,
            "state": model.state.value,
            "engine": self.config.engine_of(model.name) if model.name in self.config.models else "",
            "loaded": model.state in LOADED,
            "pinned": model.pin,
            "default": model.default,
            "aliases": list(entry.aliases),
            "context": entry.context,
            "waiting": model.waiting + model.background,
            "running": model.leases,
            "last_load_s": _round(model.load_s),
        }

    def _instance(self, instance: InstanceView, now: float) -> Json:
        here = self.running(instance.id)
        return {
            "id": instance.id,
            "model": instance.model,
            "state": instance.state.value,
            "why": instance.why,
            "phase": instance.phase if instance.state in LOADING else None,
            "percent": _round(instance.percent) if instance.state in LOADING else None,
            "left_s": _round(instance.left_s) if instance.state in LOADING else None,
            "running_s": round(now - instance.ready_at, 1) if instance.ready_at is not None else None,
            "leases": instance.leases,
            "devices": list(instance.devices),
            "port": here.port if here else None,
            "pid": here.pid if here else None,
            "since_s": round(now - instance.since, 1),
            "memory": instance.taken,
        }

    def _device_name(self, device: DeviceId) -> str:
        if device == HOST_DEVICE:
            return "host memory"
        return next((f"GPU {gpu.index} {gpu.name}" for gpu in self.gauge.gpus if gpu.id == device), device)


def listed(entries: Iterable[Json]) -> Json:
    """The list form of OpenAI's API."""
    data = list(entries)
    return {"object": "list", "data": data}


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _count(parameters: int | None) -> str:
    """7_241_732_096 as people write it: 7.2B."""
    if not parameters:
        return ""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if parameters >= size:
            return f"{parameters / size:.1f}{unit}"
    return str(parameters)
