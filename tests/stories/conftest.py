"""The switch that writes the stories anew."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite-stories", action="store_true", help="write what the scheduler says now into the stories"
    )


@pytest.fixture
def rewrite_stories(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--rewrite-stories", default=False))
