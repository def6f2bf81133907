"""Which rule wins over which, and what is a request that nobody waits for."""

import json
import re

import pytest

from llm_router.wire.content import Content
from llm_router.wire.manners import ClientManners, Manners, ModelManners
from llm_router.wire.openai import Asked, read_json

AGENT = {b"user-agent": b"SillyTavern/1.2"}
RULE = ClientManners(re.compile("^sillytavern", re.IGNORECASE), status="reasoning", background=True, keep_alive=True)
HOUSE = Manners(status="comment", clients=(RULE,), models={"m": ModelManners(status="content", background="steer")})


@pytest.mark.parametrize(
    ("fields", "key", "model", "mode"),
    [
        ({b"x-router-status": b" None ", **AGENT}, "event", "m", "off"),
        ({b"x-llm-router-status": b"classic", **AGENT}, "event", "m", "content"),
        ({b"x-router-status": b"loudly", **AGENT}, "event", "m", "event"),
        (AGENT, "event", "m", "event"),
        (AGENT, "", "m", "reasoning"),
        ({b"user-agent": b"curl/8"}, "", "m", "content"),
        ({}, "", "other", "comment"),
    ],
)
def test_header_key_client_model_server_in_this_order(
    fields: dict[bytes, bytes], key: str, model: str, mode: str
) -> None:
    assert HOUSE.mode(fields, key, HOUSE.of_client(fields), HOUSE.of_model(model)) == mode


def chat(text: str, **more: object) -> Asked:
    return read_json(
        Content(json.dumps({"model": "m", "messages": [{"role": "user", "content": text}], **more}).encode())
    )


PLAIN = ModelManners()
TITLE = "### Task:\nGenerate a concise, 3-5 word title with an emoji."

# The rows of what Open WebUI sends, and when somebody waits for it.


@pytest.mark.parametrize(
    ("task", "background"),
    [
        ("", False),
        ("query_generation", False),
        ("function_calling", False),
        ("context_compaction", False),
        ("image_prompt_generation", False),
        ("moa_response_generation", False),
        ("title_generation", True),
        ("follow_up_generation", True),
        ("tags_generation", True),
        ("emoji_generation", True),
        ("autocomplete_generation", True),
        ("memory_review", True),
        (" Background ", True),
    ],
)
@pytest.mark.parametrize("header", [b"x-router-task", b"x-llm-router-task", b"x-openwebui-task"])
def test_the_task_header_decides_whatever_the_request_looks_like(header: bytes, task: str, background: bool) -> None:
    for text in (TITLE, "hello"):
        assert Manners().is_background({header: task.encode()}, chat(text), False, None, PLAIN) is background


@pytest.mark.parametrize(
    ("asked", "background"),
    [
        (chat(TITLE), True),
        (chat("### Task:\nSuggest 3-5 relevant follow-up questions"), True),
        (chat("### Task:\nGenerate 1-3 broad tags"), True),
        (chat("### Task:\nAnalyze the chat history to determine the necessity of queries"), False),
        (chat("Generate a concise title"), False),
        (chat(TITLE, stream=True), False),
        (chat(TITLE, tools=[{"type": "function"}]), False),
    ],
)
def test_without_a_header_only_what_is_sure_is_guessed(asked: Asked, background: bool) -> None:
    assert Manners().is_background({}, asked, False, None, PLAIN) is background


def test_a_key_a_client_or_a_model_may_be_for_side_jobs_only() -> None:
    asked = chat("hello")
    said = {b"x-router-task": b""}
    assert Manners().is_background(said, asked, True, None, PLAIN)
    assert Manners().is_background(said, asked, False, RULE, PLAIN)
    assert Manners().is_background(said, asked, False, None, ModelManners(always_background=True))
    assert not Manners().is_background(said, asked, False, ClientManners(RULE.pattern), PLAIN)


def test_the_models_policy_wins_over_the_servers() -> None:
    assert HOUSE.policy(HOUSE.of_model("m")) == "steer"
    assert HOUSE.policy(HOUSE.of_model("other")) == "ride"


def test_a_client_is_known_by_the_first_pattern_that_fits() -> None:
    assert HOUSE.of_client(AGENT) is RULE
    assert HOUSE.of_client({b"user-agent": b"x" * 300 + b"sillytavern"}) is None
    assert HOUSE.of_client({}) is None
