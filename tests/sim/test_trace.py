from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router.core.words import Footprint
from llm_router.sim.trace import GIB, Trace, TraceError, generate, read, shelf_of_three, write


@given(
    st.builds(
        generate, models=st.integers(1, 5), requests=st.integers(0, 40), burst=st.integers(1, 9), seed=st.integers(0)
    )
)
def test_a_trace_is_read_as_it_was_written(trace: Trace) -> None:
    assert read(write(trace)) == trace


def test_requests_are_spread_evenly_and_come_in_order() -> None:
    trace = generate(models=3, requests=600, seconds=600.0)
    assert set(Counter(request.model for request in trace.requests).values()) == {200}
    moments = [request.at for request in trace.requests]
    assert moments == sorted(moments)
    assert 0.0 <= moments[0] < moments[-1] <= 602.0


def test_the_same_seed_makes_the_same_trace() -> None:
    assert generate(seed=5) == generate(seed=5)
    assert generate(seed=5) != generate(seed=6)


@pytest.mark.parametrize("parked", [True, False])
def test_of_the_shelf_of_three_two_fit(parked: bool) -> None:
    trace = shelf_of_three(parked=parked)
    assert (len(trace.models), trace.devices, len(trace.requests)) == (3, 2, 600)
    assert 2 * trace.models[0].size > trace.memory > trace.models[0].size + trace.models[0].parked  # type: ignore[operator]
    configured = trace.configured()
    assert [model.parkable for model in configured.models] == [parked] * 3
    assert configured.models[0].needs.footprint == Footprint(12 * GIB, GIB + GIB // 2)
    assert not any(model.parkable for model in trace.configured(parking=False).models)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "cannot read the trace: Input data was truncated"),
        ('{"name": "x", "models": [], "requests": [{"at": "soon", "model": "a"}]}', r"\$\.requests\[0\]\.at"),
        ('{"name": "x", "models": [{"name": "b"}], "requests": [{"at": 1, "model": "a"}]}', "requests ask for a"),
    ],
)
def test_what_is_no_trace_is_refused_with_the_place(text: str, says: str) -> None:
    with pytest.raises(TraceError, match=says):
        read(text)
