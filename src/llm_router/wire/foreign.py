"""What the translations of foreign APIs (Anthropic's, Ollama's) share: the request made of theirs, an engine's
answer as they read it, an engine's error in one text.

It knows chat completions as engines answer them, and neither of the foreign forms.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from llm_router.wire.content import readable
from llm_router.wire.errors import BadRequestError
from llm_router.wire.join import read

encode: Final = msgspec.json.encode

BROKEN: Final = "the engine broke the answer off"


@dataclass(frozen=True, slots=True)
class Translated:
    """A request as an engine of the OpenAI kind gets it: ``path`` and JSON ``body``.

    ``model`` is the name as the client wrote it. ``dropped`` names, with dots, what has no counterpart and was
    left out: what was changed is told in a header. ``stops`` are the client's stop sequences.
    """

    path: str
    body: bytes
    model: str
    stream: bool
    dropped: tuple[str, ...] = ()
    stops: tuple[str, ...] = ()


def read_object(body: bytes | bytearray) -> dict[str, Any]:
    """The JSON object of a request. Raises ``BadRequestError``."""
    value = readable(msgspec.json.decode, body)
    if not isinstance(value, dict):
        raise BadRequestError("cannot use the request's body: it must be a JSON object")
    return value


def an_object(value: object, where: str) -> dict[str, Any]:
    """The value, which must be an object. Raises ``BadRequestError`` with ``where``, the field's name."""
    if isinstance(value, dict):
        return value
    raise BadRequestError(f"cannot translate {where}: it must be an object")


def a_list(value: object, where: str) -> list[Any]:
    """The value, which must be a list. Raises ``BadRequestError`` with ``where``, the field's name."""
    if isinstance(value, list):
        return value
    raise BadRequestError(f"cannot translate {where}: it must be a list")


def a_text(value: object, where: str) -> str:
    """The value, which must be a text. Raises ``BadRequestError`` with ``where``, the field's name."""
    if isinstance(value, str):
        return value
    raise BadRequestError(f"cannot translate {where}: it must be a text")


def texts(value: object) -> tuple[str, ...]:
    """The texts of a field that may be a text or a list of them; what is neither is passed over."""
    found = value if isinstance(value, list) else [value]
    return tuple(text for text in found if isinstance(text, str))


def schema_format(schema: object) -> dict[str, object]:
    """The ``response_format`` that binds an answer to a JSON schema."""
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


def collapse(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """Parts as one text where all are texts: some chat templates know nothing else."""
    if all(part.get("type") == "text" for part in parts):
        return "\n".join(str(part["text"]) for part in parts)
    return parts


def thinking(enabled: bool) -> dict[str, object]:
    """The switch that most chat templates with a thinking mode read; all five engines pass it on."""
    return {"enable_thinking": enabled}


def first_choice(answer: Mapping[str, Any]) -> dict[str, Any]:
    """The first choice of an answer or a chunk, ``{}`` if it has none."""
    choices = answer.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else {}


def thoughts(message: Mapping[str, Any]) -> str:
    """The thinking in a message or a delta; engines differ in the name, some send both."""
    for key in ("reasoning_content", "reasoning", "thinking"):
        if isinstance(found := message.get(key), str) and found:
            return found
    return ""


def spoken(message: Mapping[str, Any]) -> str:
    """The text of a message or a delta, ``""`` if it has none."""
    for key in ("content", "refusal"):
        if isinstance(found := message.get(key), str) and found:
            return found
    return ""


def count(value: object) -> int:
    """A count of tokens, 0 if it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def cached_tokens(usage: Mapping[str, Any]) -> int:
    """The tokens of the prompt that came from the engine's cache."""
    details = usage.get("prompt_tokens_details")
    return count(details.get("cached_tokens")) if isinstance(details, dict) else 0


def error_text(body: bytes) -> str:
    """What an engine's error says, in whichever of the five forms: nested, a text, flat, ``detail``, or no JSON."""
    try:
        value = read(body)
    except msgspec.DecodeError:
        return body.decode(errors="replace").strip() or "the engine gave no reason"
    for key in ("error", "message", "detail"):
        while isinstance(value, dict) and key in value and value[key]:
            value = value[key]
    return value if isinstance(value, str) else encode(value).decode()
