"""What an engine inherits."""

import pytest

from llm_router.host.supervisors.environment import engine_environment, inherits


@pytest.mark.parametrize(
    "name",
    [
        "PATH",
        "HOME",
        "LD_LIBRARY_PATH",
        "CUDA_VISIBLE_DEVICES",
        "HF_HOME",
        "HF_TOKEN",
        "https_proxy",
        "LANG",
        "TABBY_CONFIG",
    ],
)
def test_the_operators_settings_pass(name: str) -> None:
    assert inherits(name)


OURS = """
    LLM_ROUTER_CONFIG LLM_ROUTER_INSTANCE ROUTER_CONFIG OPENAI_API_KEY openai_api_key AWS_SECRET_ACCESS_KEY
    GITHUB_TOKEN DB_PASSWORD NOTIFY_SOCKET LISTEN_FDS PYTHONPATH VIRTUAL_ENV
"""


@pytest.mark.parametrize("name", OURS.split())
def test_what_is_the_routers_alone_does_not(name: str) -> None:
    assert not inherits(name)


def test_the_launch_overrides_the_router_and_nobody_overrides_the_marker() -> None:
    made = engine_environment(
        {"TERM": "xterm", "A": "ours", "B": "ours"},
        {"B": "theirs", "PYTHONUNBUFFERED": "0", "LLM_ROUTER_INSTANCE": "forged"},
        "token",
    )
    assert made == {
        "A": "ours",
        "B": "theirs",
        "TERM": "dumb",
        "NO_COLOR": "1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "PYTHONUNBUFFERED": "0",
        "LLM_ROUTER_INSTANCE": "token",
    }
