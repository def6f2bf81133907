"""The road of bytes runs on uvloop where there is one, else on asyncio's own loop: its tests run on both."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

_ON_BOTH = frozenset(
    {
        "test_bigbody.py",
        "test_conductor.py",
        "test_exchange.py",
        "test_front.py",
        "test_tunnel.py",
        "test_upstream.py",
    }
)


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The kinds of loop for a test; the name of its file decides."""
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if item.path.name in _ON_BOTH:
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
