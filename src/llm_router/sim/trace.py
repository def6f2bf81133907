"""A day of requests as a value: a machine, a shelf of models, and who asks for which when.

This file knows how a trace is made, written and read. It does not know who serves it.
"""

from dataclasses import dataclass, field
from random import Random

from msgspec import DecodeError, ValidationError
from msgspec.json import decode, encode

from llm_router.core.events import Configured
from llm_router.core.words import Device, DeviceId, Footprint, Model, ModelName, Needs, Settings

GIB = 2**30


class TraceError(ValueError):
    """A text is no trace. The message says what is wrong with it, and where."""


@dataclass(frozen=True, slots=True)
class TraceModel:
    """A model of the trace. Sizes are bytes on each device, ranges are seconds from the fastest to the slowest."""

    name: str
    #: ``None`` is an unknown size: alone on the machine.
    size: int | None = None
    devices: int | None = None
    load_s: tuple[float, float] = (30.0, 30.0)
    wake_s: tuple[float, float] | None = None
    parked: int = 0
    concurrency: int | None = None
    prompt_per_s: float = 1000.0
    tokens_per_s: float = 50.0


@dataclass(frozen=True, slots=True)
class Request:
    """One request: its moment in seconds from the start, its model and its length in tokens."""

    at: float
    model: str
    prompt: int = 50
    tokens: int = 150
    caller: str = ""
    background: bool = False
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Trace:
    """Everything that a simulation needs. ``memory`` is bytes on each of the devices."""

    name: str
    models: tuple[TraceModel, ...]
    requests: tuple[Request, ...]
    devices: int = 1
    memory: int = 16 * GIB
    stop_s: tuple[float, float] = (1.0, 3.0)
    park_s: tuple[float, float] = (0.5, 2.0)
    seed: int = 0
    settings: Settings = field(default_factory=Settings)

    def configured(self, *, parking: bool = True) -> Configured:
        """The configuration as the scheduler is told it."""
        devices = tuple(Device(DeviceId(f"gpu{number}"), self.memory) for number in range(self.devices))
        return Configured(tuple(_model(model, parking=parking) for model in self.models), devices, self.settings)


def _model(model: TraceModel, *, parking: bool) -> Model:
    return Model(
        ModelName(model.name),
        revision="1",
        needs=Needs(model.devices, None if model.size is None else Footprint(model.size, model.parked)),
        concurrency=model.concurrency,
        parkable=parking and model.wake_s is not None and model.size is not None,
        load_s=sum(model.load_s) / 2,
        wake_s=sum(model.wake_s) / 2 if model.wake_s else None,
    )


def write(trace: Trace) -> str:
    """The trace as JSON."""
    return encode(trace).decode()


def read(text: str | bytes) -> Trace:
    """The trace that was written. Raises ``TraceError``."""
    try:
        trace = decode(text, type=Trace)
    except (DecodeError, ValidationError) as error:
        raise TraceError(f"cannot read the trace: {error}") from error
    names = {model.name for model in trace.models}
    unknown = sorted({request.model for request in trace.requests} - names)
    if unknown:
        raise TraceError(f"cannot use the trace: requests ask for {', '.join(unknown)}, its models are {sorted(names)}")
    return trace


def generate(
    *,
    models: int = 3,
    requests: int = 600,
    seconds: float = 600.0,
    devices: int = 1,
    memory: int = 16 * GIB,
    size: int | None = None,
    load_s: tuple[float, float] = (30.0, 60.0),
    wake_s: tuple[float, float] | None = None,
    burst: int = 10,
    callers: int = 20,
    concurrency: int | None = 8,
    seed: int = 0,
) -> Trace:
    """A trace in which requests come in bursts of about ``burst``, shuffled evenly over the models.

    ``size`` ``None``: every model is alone on the machine; else bytes, each model on one device.
    """
    random = Random(seed)  # noqa: S311  (reproducible on purpose)
    shelf = tuple(
        TraceModel(
            f"model-{number + 1}",
            size,
            None if size is None else 1,
            load_s,
            wake_s,
            parked=GIB if wake_s else 0,
            concurrency=concurrency,
        )
        for number in range(models)
    )
    asked = _requests(random, [model.name for model in shelf], requests, seconds, burst, callers)
    return Trace(f"{models} models, {requests} requests", shelf, asked, devices, memory, seed=seed)


def _requests(
    random: Random, names: list[str], requests: int, seconds: float, burst: int, callers: int
) -> tuple[Request, ...]:
    """As many for each model as for any other, in shuffled order, at the moments of bursts."""
    wanted = [names[number % len(names)] for number in range(requests)]
    random.shuffle(wanted)
    bursts = sorted(random.uniform(0.0, seconds) for _ in range(max(1, requests // max(burst, 1))))
    moments = sorted(random.choice(bursts) + random.uniform(0.0, 2.0) for _ in wanted)
    return tuple(
        Request(round(at, 3), name, caller=f"caller-{random.randrange(callers)}")
        for at, name in zip(moments, wanted, strict=True)
    )


def shelf_of_three(*, parked: bool, seed: int = 0) -> Trace:
    """Two devices of 16 GB and three models of which two fit: 600 requests in ten minutes of bursts.

    A cold load takes 45-57 s. ``parked``: engines can be put to sleep, and wake in 2.5-10 s.
    """
    random = Random(seed)  # noqa: S311  (reproducible on purpose)
    shelf = tuple(
        TraceModel(
            name,
            size=12 * GIB,
            devices=1,
            load_s=(45.0, 57.0),
            wake_s=(2.5, 10.0) if parked else None,
            parked=GIB + GIB // 2,
            concurrency=16,
        )
        for name in ("red", "green", "blue")
    )
    asked = _requests(random, [model.name for model in shelf], 600, 600.0, 10, 30)
    name = f"three models, two fit, {'parked' if parked else 'cold'}"
    return Trace(name, shelf, asked, devices=2, seed=seed)
