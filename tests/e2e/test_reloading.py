"""A real router whose configuration changes under it: by a command, a signal, a watched file."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.router import (
    Json,
    RunningRouter,
    ask,
    chat,
    configuration,
    events,
    first_text,
    running,
    says,
    text_of,
    until,
)

pytestmark = [pytest.mark.slow, pytest.mark.real]

Shelf = Callable[..., Path]


def write(router: RunningRouter, config: Json) -> None:
    (router.folder / "llm-router.json.yml").write_text(json.dumps(config))


def reload(router: RunningRouter) -> "subprocess.CompletedProcess[str]":
    words = [sys.executable, "-m", "llm_router", "reload", "--json", "--url", router.url]
    return subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)


def test_a_reload_is_a_diff_and_streams_go_on(shelf: Shelf, tmp_path: Path) -> None:
    config = configuration({"alpha": shelf("alpha"), "beta": shelf("beta")})
    with running(tmp_path, config) as router, router.client() as client:
        body = chat("alpha", max_tokens=400, ignore_eos=True)
        with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            chunks = events(answer)
            first_text(chunks)
            config["models"]["gamma"] = {"backend": "llamacpp", "path": str(shelf("gamma")), "context": 4096}
            config["models"]["beta"]["context"] = 2048
            config["server"]["port"] += 1
            write(router, config)
            told = json.loads(reload(router).stdout)
            assert told["models"] == {
                "added": ["gamma"],
                "removed": [],
                "changed": ["beta"],
                "adjusted": [],
                "unchanged": ["alpha"],
            }
            assert told["needs_restart"] == ["server.port"]
            (instance,) = router.status()["instances"]
            assert list(chunks)[-1] == "[DONE]"
        assert text_of(ask(client, "gamma")) == says("gamma")
        assert instance["model"] == "alpha"


def test_a_broken_file_changes_nothing_and_says_where(shelf: Shelf, tmp_path: Path) -> None:
    config = configuration({"alpha": shelf("alpha")})
    with running(tmp_path, config) as router, router.client() as client:
        write(router, {**config, "modles": {}})
        told = reload(router)
        assert told.returncode == 6
        assert "cannot use 'modles': the configuration has no such key. Did you mean 'models'?" in told.stdout
        assert text_of(ask(client, "alpha")) == says("alpha")


@pytest.mark.parametrize("way", ["signal", "watch"])
def test_a_changed_model_that_runs_is_drained_and_replaced(shelf: Shelf, tmp_path: Path, way: str) -> None:
    config = configuration({"alpha": shelf("alpha")}, watch=way == "watch")
    with running(tmp_path, config) as router, router.client() as client:
        ask(client, "alpha")
        (before,) = router.status()["instances"]
        config["models"]["alpha"]["context"] = 2048
        config["models"]["beta"] = {"backend": "llamacpp", "path": str(shelf("beta"))}
        write(router, config)
        if way == "signal":
            router.process.send_signal(signal.SIGHUP)
        until(lambda: len(router.status()["models"]) == 2)
        until(lambda: before["id"] not in [row["id"] for row in router.status()["instances"]])
        assert text_of(ask(client, "alpha")) == says("alpha")
        assert "reloaded: added beta; changed alpha" in router.log
