from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_router.config import units


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (0, 0.0),
        (1.5, 1.5),
        ("90", 90.0),
        ("0.5", 0.5),
        ("2s", 2.0),
        ("500ms", 0.5),
        ("30m", 1800.0),
        ("10min", 600.0),
        ("1h30m", 5400.0),
        ("1h 30m", 5400.0),
        ("2D", 172800.0),
    ],
)
def test_durations(written: object, seconds: float) -> None:
    assert units.duration(written) == seconds


@pytest.mark.parametrize(
    "written",
    [-1, True, None, "", "soon", "3 weeks", "1h-2m", "-2s", "1e400", float("nan"), float("inf"), "999999d", ()],
)
def test_what_is_no_duration(written: object) -> None:
    with pytest.raises(ValueError, match="is no duration: write seconds"):
        units.duration(written)


@pytest.mark.parametrize(
    ("written", "amount"),
    [
        (0, 0),
        (17, 17),
        ("17", 17),
        ("1b", 1),
        ("1K", 1024),
        ("512MiB", 512 * 1024**2),
        ("24GiB", 24 * 1024**3),
        ("24 gib", 24 * 1024**3),
        ("16GB", 16 * 10**9),
        ("14.5G", 14.5 * 1024**3),
        ("1TiB", 1024**4),
    ],
)
def test_sizes(written: object, amount: int) -> None:
    assert units.size(written) == amount


@pytest.mark.parametrize("written", [-1, 1.5, True, None, "", "many", "24GiBs", "5 XB", "9" * 400 + "G", 2**61, ()])
def test_what_is_no_size(written: object) -> None:
    with pytest.raises(ValueError, match="is no size: write bytes"):
        units.size(written)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["s", "m", "h", "d"]))
def test_longer_words_are_longer_times(number: int, unit: str) -> None:
    try:
        assert units.duration(f"{number}{unit}") >= number
    except ValueError:
        assert number > 36600


@settings(deadline=None)
@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in (units.duration, units.size):
        with suppress(ValueError):
            assert read(text) >= 0
