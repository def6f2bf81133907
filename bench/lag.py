"""From "the engine could answer" to "the first request is with it" (R21), with engines whose moment is known.

The stand-in engine tells its moments itself. For llama.cpp it is asked directly, every few milliseconds. All
clocks are the one monotonic clock of the machine.
"""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench.measure import spread
from bench.stage import Stage, Target, ask, call, free_port
from bench.tools import BenchError

#: Milliseconds until an engine is able: young ones and older ones are asked at another pace.
_DELAYS: Final = (130, 410, 890, 1370, 2210, 3170, 4430, 5790)
_KINDS: Final = ("deaf", "busy")
_PATIENCE_S: Final = 60.0
_LOOK_S: Final = 0.004
#: A switch is made at once, so that one run holds many.
_AT_ONCE: Final = {"linger": 0, "quantum_min": 0, "quantum_max": 0}


def scripted(stage: Stage, *, quick: bool, told: Callable[[str], None]) -> dict[str, dict[str, float]]:
    """The lag in milliseconds by kind of engine: ``deaf`` ones open their port late, ``busy`` ones say 503 before."""
    delays = _DELAYS[::3] if quick else _DELAYS
    names = {f"{kind}-{ms}": (kind, ms) for kind in _KINDS for ms in delays}
    engine = str(stage.tools.engine)
    models = {name: {"command": [engine, "{port}", str(ms), kind]} for name, (kind, ms) in names.items()}
    router, _ = stage.router(models, name="lag", scheduler=_AT_ONCE)
    found: dict[str, list[float]] = {kind: [] for kind in _KINDS}
    for name, (kind, ms) in names.items():
        status, answer = call(router.port, "POST", "/v1/chat/completions", ask(name, "bench:0,0,100;"), _PATIENCE_S)
        if status != 200:
            raise BenchError(f"cannot measure the lag of {name}: {status} {answer}")
        _, moments = call(router.port, "GET", f"/upstream/{name}/moments")
        lag_ms = (moments["first_ns"] - moments["able_ns"]) / 1e6
        found[kind].append(lag_ms)
        told(f"able after {ms:5} ms, {kind}: granted {lag_ms:6.1f} ms later")
    return {kind: spread(values) for kind, values in found.items()}


def llamacpp(stage: Stage, folder: Path, *, quick: bool, told: Callable[[str], None]) -> dict[str, float] | None:
    """The lag in milliseconds behind the real llama.cpp of the demo; ``None`` if that is not installed."""
    from llm_router.demo import shelf  # noqa: PLC0415  only if it is there

    if not shelf.has_engine():
        return None
    made = shelf.prepare(folder / "models", 2, pad_mb=120)
    port = free_port()
    backend = {"command": list(shelf.COMMAND), "args": dict(shelf.ARGS), "port": port}
    models = {one.name: {"backend": "llamacpp", "path": str(one.path), "context": 1024} for one in made}
    router, state = stage.router(models, backends={"llamacpp": backend}, name="llamacpp", scheduler=_AT_ONCE)
    lags = []
    for number in range(2 if quick else 6):
        model = made[number % 2].name
        able_at = _able_at(router, model, port)
        lags.append((_proved_at(state, number + 1) - able_at) * 1e3)
        told(f"llama.cpp with {model}: granted {lags[-1]:6.1f} ms after it was able")
    return spread(lags)


def _able_at(router: Target, model: str, port: int) -> float:
    """Ask the router for the model, and its engine directly when it can answer. The monotonic moment of the latter."""
    answers: list[tuple[int, object]] = []

    def client() -> None:
        answers.append(call(router.port, "POST", "/v1/chat/completions", ask(model, "Hello"), _PATIENCE_S))

    thread = threading.Thread(target=client)
    before = _is_able(port)
    thread.start()
    able_at = None
    while thread.is_alive():
        able = _is_able(port)
        before = before and able  # the one that leaves still answers at first
        if able and not before and able_at is None:
            able_at = time.monotonic()
        time.sleep(_LOOK_S)
    if not answers or answers[0][0] != 200 or able_at is None:
        raise BenchError(f"cannot measure the lag of llama.cpp: {answers}")
    return able_at


def _is_able(port: int) -> bool:
    try:
        return call(port, "GET", "/health", timeout_s=1.0)[0] == 200
    except OSError:
        return False


def _proved_at(state: Path, number: int) -> float:
    """The moment of the so-manyeth proof in the router's journal, which is written with a short delay."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        lines = (state / "journal.jsonl").read_text(encoding="utf-8").splitlines()
        proofs = [float(line["at"]) for line in map(json.loads, lines) if line.get("event") == "Proved"]
        if len(proofs) >= number:
            return proofs[number - 1]
        time.sleep(0.05)
    raise BenchError("cannot measure the lag of llama.cpp: the journal does not tell when it was proved")
