"""Engines that live and answer, and are no good any more: found out, replaced, not restarted for ever (R27)."""

from collections.abc import Callable
from pathlib import Path

import pytest

from support import stand_ins
from support.router import Json, RunningRouter, ask, chat, running, text_of, until

pytestmark = pytest.mark.slow


def instances(router: RunningRouter) -> list[Json]:
    found: list[Json] = router.status()["instances"]
    return found


def test_a_tabbyapi_whose_generator_broke_is_drained_and_replaced(tmp_path: Path) -> None:
    """It goes on answering, and says 503 for ever on its health page: after one error it cannot be trusted."""
    config = stand_ins.one_model(tmp_path, "tabbyapi", "broken-generator")
    with running(tmp_path, config) as router, router.client() as client:
        assert text_of(ask(client, "alpha")) == "I am alpha, a demo model."
        (first,) = instances(router)
        until(lambda: all(one["pid"] != first["pid"] for one in instances(router)), 20.0)
        (failure,) = router.status()["failures"]
        assert "its generator broke (generation failed: AssertionError)" in failure["cause"]
        assert text_of(ask(client, "alpha")) == "I am alpha, a demo model."
        (second,) = instances(router)
        assert second["pid"] != first["pid"]


def test_one_that_is_healthy_and_fails_its_requests_is_replaced(tmp_path: Path, shelf: Callable[..., Path]) -> None:
    config = stand_ins.one_model(tmp_path, "llamacpp", "dumb-later", gguf=shelf("alpha"))
    config["scheduler"] |= {"backoff": 2.0}
    with running(tmp_path, config) as router, router.client() as client:
        assert text_of(ask(client, "alpha")) == "I am alpha, a fake model."
        (first,) = instances(router)
        for _ in range(3):
            assert client.post("/v1/chat/completions", json=chat("alpha", stream=False)).status_code >= 500
        until(lambda: not instances(router), 20.0)
        (failure,) = router.status()["failures"]
        assert "cannot make a token any more" in failure["cause"]
        assert failure["until_s"] > 0, "it is not started again at once"
        assert text_of(ask(client, "alpha")) == "I am alpha, a fake model."
        assert instances(router)[0]["pid"] != first["pid"]
