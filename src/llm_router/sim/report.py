"""How a policy serves a trace: waits, switches, utilisation, on virtual time.

This file knows what is measured and how. It prints nothing.
"""

from dataclasses import asdict, dataclass
from random import Random

from llm_router.core.commands import Check, Command, Grant, Park, Prove, Refuse, Start, Stop, Wake
from llm_router.core.events import Arrived, Checked, Event, Gone, Parked, Proved, Released, Started, Woken
from llm_router.core.scheduler import Policy
from llm_router.core.words import InstanceId, ModelName, Outcome, TicketId
from llm_router.sim.policies import POLICIES
from llm_router.sim.trace import Request, Trace, TraceModel
from llm_router.sim.world import Answer, Later, World

#: After the last request the simulation goes on for so many virtual seconds at most.
_TAIL = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Report:
    """What one policy made of one trace. Waits are seconds from arrival to grant, of the granted requests.

    ``switches`` is all loads and wakes. ``utilisation`` is the share of device time in which a device was
    answering, from the first arrival to the last answer; ``seconds`` is that time.
    """

    policy: str
    trace: str
    requests: int
    granted: int
    refused: int
    wait_p50: float
    wait_p95: float
    wait_p99: float
    wait_max: float
    wait_mean: float
    switches: int
    loads: int
    wakes: int
    utilisation: float
    seconds: float

    def to_dict(self) -> dict[str, str | int | float]:
        return asdict(self)


class _TraceNature:
    """Everything works, and takes as long as the trace says."""

    def __init__(self, trace: Trace) -> None:
        self._random = Random(trace.seed)  # noqa: S311  (reproducible on purpose)
        self._trace = trace
        self._models = {ModelName(model.name): model for model in trace.models}
        self._requests = {TicketId(number): request for number, request in enumerate(trace.requests, 1)}

    def perform(self, command: Command, world: World) -> list[Later]:  # noqa: ARG002  (nothing depends on the past)
        match command:
            case Check(instance):
                return [Later(0.02, Checked(instance))]
            case Start(instance):
                return [Later(0.05, Started(instance))]
            case Prove(instance):
                return [Later(self._draw(self._model(instance).load_s), Proved(instance))]
            case Wake(instance):
                return [Later(self._draw(self._model(instance).wake_s or (0.0, 0.0)), Woken(instance))]
            case Park(instance):
                return [Later(self._draw(self._trace.park_s), Parked(instance))]
            case Stop(instance):
                return [Later(self._draw(self._trace.stop_s), Gone(instance))]
        return []

    def answer(self, grant: Grant, world: World) -> Answer:  # noqa: ARG002
        request = self._requests[grant.ticket]
        model = self._models[ModelName(request.model)]
        seconds = request.prompt / model.prompt_per_s + request.tokens / model.tokens_per_s
        return Answer(seconds, moves_every=10.0 if seconds > 10.0 else None)

    def answered(self, ticket: TicketId, outcome: Outcome | None, world: World) -> None:
        """The trace says who asks when; nobody asks again."""

    def _model(self, instance: InstanceId) -> TraceModel:
        return self._models[ModelName(instance.rpartition("#")[0])]

    def _draw(self, limits: tuple[float, float]) -> float:
        return self._random.uniform(*limits)


class _Meter:
    """Looks on and measures."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self.refused = 0
        self.loads = 0
        self.wakes = 0
        self.busy_s = 0.0
        self.last = 0.0
        self._arrived: dict[TicketId, float] = {}
        self._devices: dict[InstanceId, int] = {}
        self._working: dict[InstanceId, int] = {}
        self._leases: dict[TicketId, InstanceId] = {}
        self._seen = 0.0

    def happened(self, event: Event, world: World) -> None:
        self._pass(world.now)
        match event:
            case Arrived(ticket):
                self._arrived[ticket] = world.now
            case Released(ticket):
                self._working[self._leases.pop(ticket)] -= 1
                self.last = world.now

    def asked(self, command: Command, world: World) -> None:
        match command:
            case Start(instance, _, devices):
                self.loads += 1
                self._devices[instance] = len(devices)
            case Wake():
                self.wakes += 1
            case Grant(ticket, instance):
                self.waits.append(world.now - self._arrived[ticket])
                self._leases[ticket] = instance
                self._working[instance] = self._working.get(instance, 0) + 1
            case Refuse():
                self.refused += 1

    def settled(self, world: World) -> None:
        """Nothing is judged here."""

    def _pass(self, now: float) -> None:
        devices = sum(self._devices.get(instance, 0) for instance, leases in self._working.items() if leases)
        self.busy_s += (now - self._seen) * devices
        self._seen = now


def simulate(trace: Trace, policy: str | Policy = "ours") -> Report:
    """Run the trace on virtual time under a policy of ``POLICIES`` (or any other).

    Raises ``ValueError`` for an unknown name.
    """
    name, decides = (policy, _find(policy)) if isinstance(policy, str) else (type(policy).__name__, policy)
    meter = _Meter()
    world = World(decides, _TraceNature(trace), meter)
    world.tell(trace.configured())
    for number, request in enumerate(trace.requests, 1):
        world.later(request.at, _arrival(number, request))
    world.run(until=max((request.at for request in trace.requests), default=0.0) + _TAIL)
    first = min((request.at for request in trace.requests), default=0.0)
    return _report(name, trace, meter, max(meter.last - first, 0.0))


def compare(trace: Trace) -> list[Report]:
    """The trace under every policy there is, ours first."""
    return [simulate(trace, name) for name in POLICIES]


def _find(name: str) -> Policy:
    if name not in POLICIES:
        raise ValueError(f"cannot simulate the policy {name!r}: there are {', '.join(POLICIES)}")
    return POLICIES[name]()


def _arrival(number: int, request: Request) -> Arrived:
    return Arrived(
        TicketId(number),
        ModelName(request.model),
        caller=request.caller,
        priority=request.priority,
        background=request.background,
    )


def _report(name: str, trace: Trace, meter: _Meter, seconds: float) -> Report:
    waits = sorted(meter.waits)
    return Report(
        policy=name,
        trace=trace.name,
        requests=len(trace.requests),
        granted=len(waits),
        refused=meter.refused,
        wait_p50=_percentile(waits, 0.50),
        wait_p95=_percentile(waits, 0.95),
        wait_p99=_percentile(waits, 0.99),
        wait_max=waits[-1] if waits else 0.0,
        wait_mean=sum(waits) / len(waits) if waits else 0.0,
        switches=meter.loads + meter.wakes,
        loads=meter.loads,
        wakes=meter.wakes,
        utilisation=meter.busy_s / (seconds * trace.devices) if seconds else 0.0,
        seconds=seconds,
    )


def _percentile(ordered: list[float], share: float) -> float:
    """The smallest value that so many of the values do not exceed."""
    return ordered[max(0, -(-int(len(ordered) * share * 1000) // 1000) - 1)] if ordered else 0.0
