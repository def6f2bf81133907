from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from llm_router.core.room import Holding, Leaver, Plan, Room, Want
from llm_router.core.words import Device, DeviceId, InstanceId

A, B = DeviceId("A"), DeviceId("B")
ROOM = Room((Device(A, 16), Device(B, 16)), (), 1)


def leaver(name: str, taken: int | None, *devices: DeviceId, parked: int | None = None, rank: float = 1.0) -> Leaver:
    return Leaver(InstanceId(name), Holding(devices or (A,), taken), parked, rank)


def test_what_needs_no_device_always_fits() -> None:
    assert ROOM.fit(Want(0, None), [Holding((A, B), None)]) == ()


def test_an_unknown_size_is_alone_on_the_machine() -> None:
    assert ROOM.fit(Want(1, None), []) == (A,)
    assert ROOM.fit(Want(1, None), [Holding((B,), 1)]) is None
    assert ROOM.fit(Want(1, 1), [Holding((B,), None)]) is None
    assert ROOM.fit(Want(1, None), [Holding((B,), 0)]) == (A,)
    assert ROOM.fit(Want(1, None), [Holding((), None)]) == (A,)


def test_the_margin_is_for_living_together() -> None:
    assert ROOM.fit(Want(1, 16), []) == (A,)
    assert ROOM.fit(Want((A,), 6), [Holding((A,), 10)]) is None
    assert ROOM.fit(Want((A,), 5), [Holding((A,), 10)]) == (A,)


def test_the_fullest_devices_are_taken() -> None:
    assert ROOM.fit(Want(1, 3), [Holding((B,), 10)]) == (B,)
    assert ROOM.fit(Want(1, 8), [Holding((B,), 10)]) == (A,)
    assert ROOM.fit(Want(2, 3), [Holding((B,), 10)]) == (A, B)
    assert ROOM.fit(Want(3, 3), []) is None


def test_all_and_named_devices() -> None:
    assert ROOM.fit(Want(None, 3), []) == (A, B)
    assert ROOM.fit(Want((B,), 3), []) == (B,)
    assert ROOM.fit(Want((DeviceId("C"),), 3), []) is None
    dirty = Room((Device(A, 16), Device(B, 16)), (A,), 1)
    assert dirty.fit(Want(1, 3), []) == (B,)
    assert dirty.fit(Want(None, 3), []) is None


def test_nobody_leaves_if_it_fits() -> None:
    assert ROOM.plan(Want(1, 5), [], [leaver("a", 10)]) == Plan((A,))


def test_one_leaves_rather_than_two_and_the_longest_idle_of_those() -> None:
    leavers = [leaver("a", 7, rank=9.0), leaver("b", 7, rank=8.0), leaver("c", 14, B, rank=1.0)]
    assert ROOM.plan(Want(1, 14), [], leavers) == Plan((B,), (InstanceId("c"),))
    leavers = [leaver("a", 14, A, rank=1.0), leaver("c", 14, B, rank=2.0)]
    assert ROOM.plan(Want(1, 14), [], leavers) == Plan((B,), (InstanceId("c"),))


def test_who_can_sleep_sleeps_if_that_makes_room() -> None:
    plan = ROOM.plan(Want((A,), 12), [], [leaver("a", 12, parked=2)])
    assert plan == Plan((A,), (InstanceId("a"),), frozenset({InstanceId("a")}))
    assert ROOM.plan(Want((A,), 15), [], [leaver("a", 12, parked=2)]) == Plan((A,), (InstanceId("a"),))
    two = [leaver("a", 7, parked=2, rank=2.0), leaver("b", 7, parked=2, rank=1.0)]
    plan = ROOM.plan(Want((A,), 13), [], two)
    assert plan == Plan((A,), (InstanceId("a"), InstanceId("b")), frozenset({InstanceId("b")}))


def test_there_is_no_plan_if_all_of_them_are_not_enough() -> None:
    assert ROOM.plan(Want((A,), 12), [Holding((A,), 8)], [leaver("a", 7)]) is None
    assert ROOM.plan(Want((A,), 12), [Holding((A,), 8)], []) is None


_DEVICES = st.sampled_from([(A,), (B,), (A, B)])
_LEAVERS = st.lists(st.tuples(st.integers(1, 8), _DEVICES, st.integers(0, 5)), max_size=7)


@given(st.sampled_from([None, 1, 2, (A,), (B,)]), st.integers(1, 16), _LEAVERS)
def test_a_plan_fits_and_no_smaller_one_does(
    devices: int | tuple[DeviceId, ...] | None, size: int, wishes: list[tuple[int, tuple[DeviceId, ...], int]]
) -> None:
    leavers = [leaver(str(n), taken, *where, rank=float(rank)) for n, (taken, where, rank) in enumerate(wishes)]
    want = Want(devices, size)
    plan = ROOM.plan(want, [], leavers)
    assert plan is not None
    rest = [one.holding for one in leavers if one.instance not in plan.leaving]
    assert ROOM.fit(want, rest) == plan.devices
    for left in combinations(plan.leaving, max(len(plan.leaving) - 1, 0)):
        if len(left) == len(plan.leaving):
            continue
        held = [one.holding for one in leavers if one.instance not in left]
        assert ROOM.fit(want, held) is None
    if 0 < len(plan.leaving) <= 3:
        for fewer in combinations(leavers, len(plan.leaving) - 1):
            assert ROOM.fit(want, [one.holding for one in leavers if one not in fewer]) is None
