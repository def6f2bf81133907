"""Requests to Ollama's ``/api/chat``, ``/api/generate`` and ``/api/embed`` as requests of the OpenAI kind.

It knows both request forms. What concerns how a model is loaded (context, GPU layers, threads) is left out and
named: a client of a shared router never changes it. How long the model should stay is read as a wish. The way
back is ``ollama_answer``, the lists are ``ollama_lists``.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from llm_router.wire.errors import BadRequestError
from llm_router.wire.foreign import (
    Translated,
    a_list,
    a_text,
    an_object,
    collapse,
    encode,
    read_object,
    schema_format,
    texts,
    thinking,
)


class Form(Enum):
    """The forms of an answer."""

    chat = "chat"
    generate = "generate"
    embed = "embed"
    #: The older path with one text and one vector.
    embeddings = "embeddings"


@dataclass(frozen=True, slots=True)
class Asked:
    """What an Ollama client asks for.

    ``request`` ``None``: it only wants the model loaded, or unloaded if ``keep_s`` is 0. ``keep_s`` is how many
    seconds the model should stay after the answer (``inf``: for ever), ``None`` if it does not say.
    """

    form: Form
    model: str
    request: Translated | None
    keep_s: float | None = None


#: Options with the same meaning and name. The last line is understood by llama.cpp and ignored by others.
_SAME: Final = frozenset(
    {"temperature", "top_p", "top_k", "min_p", "typical_p", "seed", "presence_penalty", "frequency_penalty"}
    | {"repeat_penalty", "repeat_last_n", "mirostat", "mirostat_tau", "mirostat_eta"}
)
#: The first characters of pictures in base64; Ollama's clients do not say what they send.
_PICTURES: Final = {"/9j/": "image/jpeg", "iVBOR": "image/png", "R0lG": "image/gif", "UklGR": "image/webp"}
_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_SPAN: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)")
_SPANS: Final = re.compile(rf"(?:{_SPAN.pattern})+")
_COMMON: Final = frozenset({"model", "stream", "options", "format", "keep_alive", "think", "logprobs", "top_logprobs"})
_CHAT: Final = _COMMON | {"messages", "tools"}
_GENERATE: Final = _COMMON | {"prompt", "suffix", "system", "raw", "images"}
_EMBED: Final = frozenset({"model", "input", "prompt", "options", "keep_alive", "dimensions", "truncate"})


def read_request(path: str, body: bytes | bytearray) -> Asked | None:
    """What a request to this path asks for, ``None`` for another path. Raises ``BadRequestError``."""
    reader = _READERS.get(path)
    return reader(read_object(body)) if reader else None


def keep_seconds(value: object) -> float | None:
    """``keep_alive`` in seconds: a number of them or a Go duration (``5m``, ``1h30m``); below zero is for ever.

    Raises ``BadRequestError``.
    """
    match value:
        case None:
            return None
        case bool():
            pass
        case int() | float():
            return math.inf if value < 0 else float(value)
        case str() as text:
            seconds = _duration(text.strip())
            if seconds is not None:
                return seconds
    raise BadRequestError(f"cannot read keep_alive: {value!r} is no number of seconds and no duration like 5m or 1h30m")


def _duration(text: str) -> float | None:
    rest = text.removeprefix("-")
    if re.fullmatch(r"[0-9]+(?:\.[0-9]+)?", rest):
        seconds = float(rest)
    elif _SPANS.fullmatch(rest):
        seconds = sum(float(number) * _UNITS[unit] for number, unit in _SPAN.findall(rest))
    else:
        return None
    return math.inf if text.startswith("-") and seconds else seconds


def _chat(asked: dict[str, Any]) -> Asked:
    messages = a_list(asked.get("messages") or [], "messages")
    if not messages:
        return _only_load(Form.chat, asked)
    dropped = _unknown(asked, _CHAT)
    out = {"messages": _Messages().read(messages)} | _common(asked, dropped)
    if tools := a_list(asked.get("tools") or [], "tools"):
        out["tools"] = tools
    return _asked(Form.chat, asked, "/v1/chat/completions", out, dropped)


def _generate(asked: dict[str, Any]) -> Asked:
    prompt = a_text(asked.get("prompt") or "", "prompt")
    if not prompt and not asked.get("images"):
        return _only_load(Form.generate, asked)
    dropped = _unknown(asked, _GENERATE)
    common = _common(asked, dropped)
    if asked.get("raw") or asked.get("suffix"):
        # The prompt is the client's own from first to last character: no chat template may be put around it.
        count = common.pop("top_logprobs", 0)
        plain = {"logprobs": count} if common.pop("logprobs", False) else {}
        suffix = {"suffix": asked["suffix"]} if asked.get("suffix") else {}
        return _asked(Form.generate, asked, "/v1/completions", {"prompt": prompt, **suffix, **common, **plain}, dropped)
    system = asked.get("system")
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": prompt, "images": asked.get("images")})
    out = {"messages": _Messages().read(messages), **common}
    return _asked(Form.generate, asked, "/v1/chat/completions", out, dropped)


def _embed(asked: dict[str, Any]) -> Asked:
    return _vectors(Form.embed, asked, asked.get("input"))


def _embeddings(asked: dict[str, Any]) -> Asked:
    return _vectors(Form.embeddings, asked, asked.get("prompt"))


def _vectors(form: Form, asked: dict[str, Any], text: object) -> Asked:
    if not text:
        return _only_load(form, asked)
    dropped = _unknown(asked, _EMBED)
    dropped += [f"options.{key}" for key in an_object(asked.get("options") or {}, "options")]
    dimensions = {"dimensions": asked["dimensions"]} if asked.get("dimensions") else {}
    out = {"input": text, "encoding_format": "float", **dimensions}
    return _asked(form, {**asked, "stream": False}, "/v1/embeddings", out, dropped)


def _asked(form: Form, asked: Mapping[str, Any], path: str, out: dict[str, Any], dropped: list[str]) -> Asked:
    stream = asked.get("stream") is not False
    if stream:
        out |= {"stream": True, "stream_options": {"include_usage": True}}
    model = _model(asked)
    stops = texts(out.get("stop"))
    request = Translated(path, encode({"model": model, **out}), model, stream, tuple(dropped), stops)
    return Asked(form, model, request, keep_seconds(asked.get("keep_alive")))


def _only_load(form: Form, asked: Mapping[str, Any]) -> Asked:
    return Asked(form, _model(asked), None, keep_seconds(asked.get("keep_alive")))


def _model(asked: Mapping[str, Any]) -> str:
    name = asked.get("model") or asked.get("name")
    if isinstance(name, str) and name:
        return name
    raise BadRequestError("cannot choose a model: name one in `model`", "model_missing")


def _unknown(asked: Mapping[str, Any], known: frozenset[str]) -> list[str]:
    return [key for key, value in asked.items() if key not in known and value is not None]


def _common(asked: Mapping[str, Any], dropped: list[str]) -> dict[str, Any]:
    out = _options(an_object(asked.get("options") or {}, "options"), dropped)
    match asked.get("format"):
        case "json":
            out["response_format"] = {"type": "json_object"}
        case dict() as schema:
            out["response_format"] = schema_format(schema)
    match asked.get("think"):
        case bool() as think:
            out["chat_template_kwargs"] = thinking(think)
        case str() as effort:
            out |= {"chat_template_kwargs": thinking(True), "reasoning_effort": effort}
    out |= {key: asked[key] for key in ("logprobs", "top_logprobs") if asked.get(key)}
    return out


def _options(options: Mapping[str, Any], dropped: list[str]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in options.items():
        if value is None:
            continue
        if key in _SAME:
            out[key] = value
        elif key == "num_predict":
            # -1 and -2 mean without limit and until the context is full: what engines do when nothing is said.
            out |= {"max_tokens": value} if isinstance(value, int) and value > 0 else {}
        elif key == "stop":
            out |= {"stop": list(found)} if (found := texts(value)) else {}
        else:
            dropped.append(f"options.{key}")
    if "repeat_penalty" in out:
        out["repetition_penalty"] = out["repeat_penalty"]  # its name in SGLang, vLLM and TabbyAPI
    return out


class _Messages:
    """The messages of one request while they are translated. Ollama's tool calls have no ids: they get some."""

    def __init__(self) -> None:
        self._calls = 0
        #: Calls without a result yet: id and name, oldest first.
        self._open: list[tuple[str, str]] = []

    def read(self, messages: list[Any]) -> list[dict[str, Any]]:
        return [
            self._message(an_object(message, f"messages[{n}]"), f"messages[{n}]") for n, message in enumerate(messages)
        ]

    def _message(self, message: dict[str, Any], where: str) -> dict[str, Any]:
        role = a_text(message.get("role"), f"{where}.role")
        said = a_text(message.get("content") or "", f"{where}.content")
        out: dict[str, Any] = {"role": role, "content": said}
        if pictures := a_list(message.get("images") or [], f"{where}.images"):
            parts = [{"type": "text", "text": said}] if said else []
            out["content"] = collapse([*parts, *(_picture(one, where) for one in pictures)])
        if role == "tool":
            out["tool_call_id"] = message.get("tool_call_id") or self._answered(message.get("tool_name"))
        if isinstance(message.get("thinking"), str) and message["thinking"]:
            out["reasoning_content"] = message["thinking"]
        if calls := a_list(message.get("tool_calls") or [], f"{where}.tool_calls"):
            out["content"] = out["content"] or None
            out["tool_calls"] = [self._call(call, f"{where}.tool_calls[{n}]") for n, call in enumerate(calls)]
        return out

    def _call(self, value: object, where: str) -> dict[str, Any]:
        call = an_object(value, where)
        function = an_object(call.get("function"), f"{where}.function")
        name = a_text(function.get("name"), f"{where}.function.name")
        arguments = an_object(function.get("arguments") or {}, f"{where}.function.arguments")
        ident = call.get("id")
        if not isinstance(ident, str) or not ident:
            ident, self._calls = f"call_{self._calls}", self._calls + 1
        self._open.append((ident, name))
        return {"id": ident, "type": "function", "function": {"name": name, "arguments": encode(arguments).decode()}}

    def _answered(self, name: object) -> str:
        """The id of the call that this result belongs to: the oldest of this name, else the oldest."""
        for call in self._open:
            if call[1] == name:
                self._open.remove(call)
                return call[0]
        return self._open.pop(0)[0] if self._open else "call_unknown"


def _picture(data: object, where: str) -> dict[str, Any]:
    text = a_text(data, f"{where}.images")
    kind = next((kind for start, kind in _PICTURES.items() if text.startswith(start)), "image/png")
    url = text if text.startswith(("data:", "http:", "https:")) else f"data:{kind};base64,{text}"
    return {"type": "image_url", "image_url": {"url": url}}


_READERS: Final[dict[str, Callable[[dict[str, Any]], Asked]]] = {
    "/api/chat": _chat,
    "/api/generate": _generate,
    "/api/embed": _embed,
    "/api/embeddings": _embeddings,
}
