"""The road of bytes runs on uvloop where there is one, else on asyncio's own loop: its tests run on both."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The kinds of loop for a test: both for the road and for the conductor, who is called on it."""
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if item.path.parent.name == "road" or item.path.name == "test_conductor.py":
        factories["uvloop"] = uvloop.new_event_loop
    return factories


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite-transcripts", action="store_true", help="write what clients read now into the transcripts"
    )


@pytest.fixture
def rewrite_transcripts(request: pytest.FixtureRequest) -> bool:
    """Whether to write the transcripts anew."""
    return bool(request.config.getoption("--rewrite-transcripts", default=False))
