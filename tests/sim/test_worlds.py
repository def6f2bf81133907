"""Seeded worlds: the scheduler lives through them, and each planted bug is found by them.

The deep profile (``LLM_ROUTER_PROFILE=deep``) makes more than a million steps.
"""

import os

import pytest
from msgspec.structs import astuple

from llm_router.core.batches import Claim
from llm_router.core.instance import InvalidTransition
from llm_router.core.placing import Attempt, Resident, Scene
from llm_router.core.scheduler import Scheduler
from llm_router.sim.watch import Wrong
from llm_router.sim.world import Stuck
from llm_router.sim.worlds import live
from sim.mutants import MUTANTS

DEEP = os.environ.get("LLM_ROUTER_PROFILE") == "deep"
CHUNKS, STEPS = (102, 10_000) if DEEP else (4, 3_000)

#: What a broken scheduler may be found by: an invariant, a move out of the table, a settling without end.
FOUND = (Wrong, Stuck, InvalidTransition, RuntimeError, KeyError, AssertionError)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_the_scheduler_lives_through_all_weathers(chunk: int) -> None:
    steps = 0
    seed = chunk * 1_000_000
    while steps < STEPS:
        steps += live(seed)
        seed += 1


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_the_worlds_find_each_planted_bug(name: str) -> None:
    mutant = MUTANTS[name]
    for seed in (mutant.seed, *range(100)):
        try:
            live(seed, mutant.make)
        except FOUND:
            # The world is survivable: it is the bug that was found in it.
            assert live(seed) > 0
            return
    pytest.fail(f"no world finds: {name}")


class Mistrustful(Scheduler):
    """Looks again before each decision: what was seen a moment ago must still be so, and what was hoped for too."""

    def __init__(self) -> None:
        super().__init__()
        self._placing, self._batches = self._settle.placing, self._settle.batches
        self._attempt = self._placing.attempt
        self._placing.attempt = self._look_again  # type: ignore[method-assign]

    def _look_again(self, claim: Claim, scene: Scene) -> Attempt:
        assert astuple(claim) == astuple(self._batches.claim(claim.line))
        fresh = self._placing.look(scene.now)
        assert [_seen(one) for one in scene.residents] == [_seen(one) for one in fresh.residents]
        hopes, self._placing._hopes = self._placing._hopes, {}
        unmoved = self._attempt(claim, scene)
        self._placing._hopes = hopes
        attempt = self._attempt(claim, scene)
        assert (attempt.plan, attempt.due) == (unmoved.plan, unmoved.due)
        assert (attempt.later is None) == (unmoved.later is None)
        return attempt


def _seen(one: Resident) -> tuple[object, ...]:
    return one.inst, astuple(one.claim), one.holding, one.leaver


@pytest.mark.slow
def test_what_is_remembered_is_still_true() -> None:
    for seed in range(40 if DEEP else 6):
        assert live(seed, Mistrustful) == live(seed)


def test_the_same_seed_is_the_same_world() -> None:
    assert live(3, steps=100) == live(3, steps=100)


def test_a_found_bug_tells_its_story() -> None:
    with pytest.raises(Wrong, match=r"(?s)drains without limit.*> Arrived"):
        live(MUTANTS["drain without limit"].seed, MUTANTS["drain without limit"].make)


def test_a_scheduler_that_never_decides_is_found() -> None:
    class Idle(Scheduler):
        def _follow(self, event: object, now: float) -> None:
            """Nothing follows."""

    with pytest.raises(Wrong, match="nothing moves and no deadline is set"):
        live(1, Idle)
