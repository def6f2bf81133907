"""The lookout sees each thing that must not be, with no scheduler behind it: it judges by the host's truth."""

from dataclasses import dataclass

import pytest

from llm_router.core.commands import Check, Command, End, Grant, Park, Refuse, Start, Stop, Wake
from llm_router.core.events import (
    Arrived,
    Configured,
    Event,
    Gone,
    Parked,
    Proved,
    ShutdownAsked,
    Started,
    StartFailed,
)
from llm_router.core.words import (
    Device,
    DeviceId,
    EndReason,
    Failure,
    FailureKind,
    Footprint,
    InstanceId,
    Model,
    ModelName,
    Needs,
    Reason,
    Refusal,
    Settings,
    TicketId,
)
from llm_router.sim.watch import Lookout, Wrong

A, B, A1, B2, A3 = ModelName("a"), ModelName("b"), InstanceId("a#1"), InstanceId("b#2"), InstanceId("a#3")
GPU = DeviceId("gpu0")
MODELS = tuple(Model(name, needs=Needs(None, Footprint(10, 1))) for name in (A, B))
CRASH = Failure(FailureKind.crashed, "it fell")
ONE, TWO = TicketId(1), TicketId(2)


@dataclass
class Clock:
    now: float = 0.0


def see(*story: Event | Command | float) -> None:
    """Show the lookout a story; numbers are moments."""
    clock, lookout = Clock(), Lookout({A: 10, B: 10})
    lookout.happened(Configured(MODELS, (Device(GPU, 16),), Settings()), clock)
    for item in story:
        if isinstance(item, float):
            clock.now = item
        elif type(item).__module__.endswith("commands"):
            lookout.asked(item, clock)  # type: ignore[arg-type]
        else:
            lookout.happened(item, clock)  # type: ignore[arg-type]
    lookout.settled(clock)


ASK = Arrived(ONE, A)
COME = (Check(A1, A, (GPU,)), Start(A1, A, (GPU,)), Started(A1))
UP = (ASK, *COME, Proved(A1))


def test_a_good_story_is_good() -> None:
    see(*UP, Grant(ONE, A1))


@pytest.mark.parametrize(
    ("story", "says"),
    [
        ((Check(A1, ModelName("x"), ()),), "x is started though it is not configured"),
        ((Check(A1, A, (GPU,)),), "nobody but background requests waits"),
        ((Arrived(ONE, A, background=True), Check(A1, A, (GPU,))), "nobody but background requests waits"),
        ((ASK, *COME, Start(A1, A, (GPU,))), "a#1 is started twice"),
        ((ASK, Arrived(TWO, B), *COME, Check(B2, B, (GPU,)), Start(B2, B, (GPU,))), "while a#1 is loaded or stopped"),
        ((*UP, Arrived(TWO, B), Check(B2, B, (GPU,)), Start(B2, B, (GPU,))), r"gpu0 holds \{'a#1': 10, 'b#2': 10\}"),
        ((*UP, Grant(ONE, A1), Arrived(TWO, A), Stop(A1)), r"stopped politely while \[1\]"),
        ((*UP, Grant(ONE, A1), Park(A1)), r"stopped politely while \[1\]"),
        ((ASK, *COME, Stop(A1)), r"stopped while it loads for \[1\]"),
        ((*UP, Stop(A1)), r"leaves before \[1\], for whom it came"),
        ((*UP, Grant(ONE, A1), Grant(ONE, A1)), "granted though it does not wait"),
        ((ASK, *COME, Grant(ONE, A1)), "ticket 1 for a is granted on a#1"),
        ((*UP, Arrived(TWO, B), Grant(TWO, A1)), "ticket 2 for b is granted on a#1"),
        ((*UP, ShutdownAsked(), Grant(ONE, A1)), "granted while the router closes"),
        ((*UP, Grant(ONE, A1), Refuse(ONE, Refusal(Reason.too_long, A))), "refused while it holds a#1"),
        ((*UP, Grant(ONE, A1), 5.0, End(ONE, EndReason.stalled)), "ended after 5 s of silence"),
        (
            (ASK, *COME, StartFailed(A1, CRASH), Stop(A1), Gone(A1), 1.0, Check(A3, A, (GPU,))),
            "a is started again 1 s before its pause is over",
        ),
        (
            (
                ASK,
                *COME,
                StartFailed(A1, CRASH),
                Stop(A1),
                Gone(A1, frozenset({GPU})),
                9.0,
                Check(A3, A, (GPU,)),
                Start(A3, A, (GPU,)),
            ),
            "whose memory is not back",
        ),
        (
            (*UP, Grant(ONE, A1), Arrived(TWO, B), Check(B2, B, (GPU,)), Wake(B2), Parked(A1)),
            "gpu0 holds",
        ),
    ],
)
def test_what_must_not_be_is_seen(story: tuple[Event | Command | float, ...], says: str) -> None:
    with pytest.raises(Wrong, match=says):
        see(*story)


def test_a_grant_past_the_longest_turn_is_seen() -> None:
    clock, lookout = Clock(), Lookout({A: 10, B: 10})
    lookout.happened(Configured((Model(A), Model(B)), (Device(GPU, 16),), Settings(quantum_max_s=30.0)), clock)
    for item in (ASK, Proved(A1)):
        lookout.happened(item, clock)
        if item is ASK:
            for command in COME[:2]:
                lookout.asked(command, clock)
    lookout.asked(Grant(ONE, A1), clock)
    lookout.happened(Arrived(TWO, B), clock)
    clock.now = 29.0
    lookout.happened(Arrived(TicketId(3), A), clock)
    lookout.asked(Grant(TicketId(3), A1), clock)
    clock.now = 31.0
    lookout.happened(Arrived(TicketId(4), A), clock)
    with pytest.raises(Wrong, match="ticket 2 for b has waited 31 s, and others are granted"):
        lookout.asked(Grant(TicketId(4), A1), clock)
