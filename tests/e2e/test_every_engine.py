"""All engines behind one address: their stand-ins as real processes, and the real llama.cpp, in one running router."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from llm_router.demo.shelf import ARGS, COMMAND
from support import stand_ins
from support.router import Json, RunningRouter, ask, running, says, text_of
from support.stand_ins import ANSWER_TOKENS, PROMPT_TOKENS, STAND_INS

pytestmark = [pytest.mark.real, pytest.mark.slow]

REAL = "llama"


@pytest.mark.timeout(300)
def test_a_hundred_requests_over_every_engine(tmp_path: Path, shelf: Callable[..., Path]) -> None:
    """The right answer with the right usage from the right engine, and afterwards nothing of any of them."""
    backends = {engine: stand_ins.backend(engine) for engine in STAND_INS}
    backends["real"] = {"engine": "llamacpp", "command": list(COMMAND), "args": dict(ARGS)}
    models = {
        f"on-{engine}": stand_ins.entry(tmp_path, engine, f"on-{engine}", shelf("on-llamacpp")) for engine in STAND_INS
    }
    models[REAL] = {"backend": "real", "path": str(shelf(REAL)), "context": 4096}
    with running(tmp_path, stand_ins.configuration(backends, models)) as router:
        usages = _ask_around(router, [list(models)[number % len(models)] for number in range(100)])
        seen = {one["port"] for one in router.status()["instances"]}
        processes = {one.pid for one in router.engines()}
    assert usages.total() == 100
    assert len(usages) == len(models), "one model, one usage"
    assert all(not psutil.pid_exists(pid) for pid in processes)
    assert seen.isdisjoint(_listened())


def _ask_around(router: RunningRouter, names: list[str]) -> Counter[tuple[str, int, int]]:
    """Ask these models, ten at a time, with and without usage, in streams and whole; their usages."""

    def one(number: int, name: str) -> tuple[str, int, int]:
        body = {"messages": [{"role": "user", "content": "Who are you?"}]}
        with router.client() as client:
            if number % 3 == 0:
                answer = client.post("/v1/chat/completions", json={"model": name, **body}, timeout=120).json()
                text, usage = answer["choices"][0]["message"]["content"], answer["usage"]
            else:
                chunks = ask(client, name, stream_options={"include_usage": True})
                text, usage = text_of(chunks), _usage(chunks)
        engine = name.removeprefix("on-")
        assert text == (says(REAL) if name == REAL else stand_ins.says(engine, name))
        if name != REAL and engine != "llamacpp":
            assert (usage["prompt_tokens"], usage["completion_tokens"]) == (PROMPT_TOKENS, ANSWER_TOKENS), name
        return name, usage["prompt_tokens"], usage["completion_tokens"]

    with ThreadPoolExecutor(10) as pool:
        return Counter(pool.map(one, range(len(names)), names))


def _usage(chunks: list[Json | str]) -> Json:
    (usage,) = [chunk["usage"] for chunk in chunks if isinstance(chunk, dict) and chunk.get("usage")]
    found: Json = usage
    return found


def _listened() -> set[int]:
    found = psutil.net_connections("inet")
    return {one.laddr.port for one in found if one.status == psutil.CONN_LISTEN and one.laddr}
