"""A router on a file that is not ours to write: older layouts, in the environment that they were used in."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from support.router import RunningRouter, until


@contextmanager
def serving(home: Path, file: Path, port: int, **more: str) -> Iterator[RunningRouter]:
    """Serve this file or folder as an older router would find it; ``more`` is its environment.

    Its address is overruled, as tests stay on loopback. Nothing is left afterwards.
    """
    env = {
        **os.environ,
        "HOME": str(home),
        "ROUTER_CONFIG": str(file),
        "XDG_STATE_HOME": str(home / "state"),
        "LLM_ROUTER_GPUS": "none",
        "PYTHONWARNINGS": "error",
        **more,
    }
    words = [sys.executable, "-m", "llm_router", "serve", "--host", "127.0.0.1"]
    with (home / "router.log").open("ab") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, env=env, start_new_session=True, cwd=home)
    router = RunningRouter(process, f"http://127.0.0.1:{port}", home)
    try:
        until(lambda: _answers(router))
        yield router
        assert router.stop() == 0, router.log
        assert not router.engines(), "the router left an engine behind"
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        for engine in router.engines():
            engine.kill()


def _answers(router: RunningRouter) -> bool:
    """Whether it does already; a router that has ended never will."""
    assert router.process.poll() is None, router.log
    try:
        with router.client() as client:
            return client.get("/health").is_success
    except httpx2.HTTPError:
        return False
