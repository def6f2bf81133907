"""Both ways of an interpreter: the engine's request, and what its answer becomes."""

import json

from llm_router.wire import interpreters
from llm_router.wire.interpreters import Scene
from llm_router.wire.paths import route

SCENE = Scene("id", "m", 100.0, 1.0)
ANSWER = (
    b'{"id":"c","choices":[{"finish_reason":"stop","text":"yes"}],"usage":{"prompt_tokens":3,"completion_tokens":1}}'
)


def test_a_raw_prompt_of_ollama_is_a_completion() -> None:
    found = route(b"/api/generate")
    assert found is not None
    asked, made = interpreters.read_ollama(
        found, b'{"model":"m","prompt":"<s>","raw":true,"stream":false,"keep_alive":"1h"}'
    )
    assert (asked.keep_s, made is not None) == (3600.0, True)
    assert made is not None
    assert made.order.route.path == b"/v1/completions"
    assert made.order.models == (("m", b"/v1/completions"),)
    assert json.loads(made.content.body)["prompt"] == "<s>"
    told = json.loads(made.whole(SCENE, ANSWER, 105.0))
    assert (told["response"], told["load_duration"], told["total_duration"]) == ("yes", 10**9, 5 * 10**9)


def test_only_a_model_is_wanted() -> None:
    found = route(b"/api/generate")
    assert found is not None
    asked, made = interpreters.read_ollama(found, b'{"model":"m","keep_alive":0}')
    assert (asked.model, asked.keep_s, made) == ("m", 0.0, None)
