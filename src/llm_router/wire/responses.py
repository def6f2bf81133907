"""Requests to ``/v1/responses`` as chat completions, for engines that have only these (TabbyAPI).

It knows both request forms. Nothing is stored here, so what refers to an earlier response is refused; tools that
OpenAI's servers run are left out and named. The way back is ``responses_answer``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from llm_router.wire.errors import BadRequestError
from llm_router.wire.foreign import Translated, a_list, a_text, an_object, collapse, encode, read_object, thinking

PATH: Final = "/v1/chat/completions"

#: Passed under the same name. The last ones are no part of the API, but people add them for local engines.
_SAME: Final = ("model", "temperature", "top_p", "user", "parallel_tool_calls", "seed", "top_k", "min_p")
#: Translated below, or without meaning here (storage, billing, caching, what to include).
_KNOWN: Final = frozenset(
    {*_SAME, "input", "instructions", "max_output_tokens", "stream", "tools", "tool_choice", "reasoning", "text"}
    | {"metadata", "include", "truncation", "service_tier", "prompt_cache_key", "safety_identifier", "top_logprobs"}
    | {"stream_options", "previous_response_id", "conversation", "background", "prompt", "store", "max_tool_calls"}
)
#: They point at what somebody stored: left out, the model would be asked something else.
_STORED: Final = ("previous_response_id", "conversation", "background", "prompt")
_ECHOED: Final = ("instructions", "max_output_tokens", "metadata", "parallel_tool_calls", "reasoning", "temperature")
_ECHOED_TOO: Final = ("text", "tool_choice", "tools", "top_p", "user")


@dataclass(frozen=True, slots=True)
class Asked:
    """A translated request. ``echo`` are the fields of it that the response repeats."""

    request: Translated
    echo: Mapping[str, Any] = field(default_factory=dict)


def chat_request(body: bytes | bytearray) -> Asked:
    """The chat completion that a responses request asks for. Raises ``BadRequestError`` naming the field."""
    asked = read_object(body)
    for key in _STORED:
        if asked.get(key):
            raise BadRequestError(f"cannot use {key}: nothing is stored here; send the whole conversation in `input`")
    dropped = [key for key, value in asked.items() if key not in _KNOWN and value is not None]
    out: dict[str, Any] = {key: asked[key] for key in _SAME if asked.get(key) is not None}
    out["messages"] = _Items(dropped).read(asked)
    if asked.get("max_output_tokens") is not None:
        out["max_tokens"] = asked["max_output_tokens"]
    if asked.get("stream") is True:
        out |= {"stream": True, "stream_options": {"include_usage": True}}
    out |= _tools(asked, dropped) | _modes(asked)
    model = str(asked.get("model") or "")
    request = Translated(PATH, encode(out), model, asked.get("stream") is True, tuple(dict.fromkeys(dropped)))
    return Asked(request, {key: asked[key] for key in (*_ECHOED, *_ECHOED_TOO) if asked.get(key) is not None})


def _modes(asked: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    effort = an_object(asked.get("reasoning") or {}, "reasoning").get("effort")
    if effort == "none":
        out["chat_template_kwargs"] = thinking(False)
    elif effort:
        out["reasoning_effort"] = effort
    match an_object(asked.get("text") or {}, "text").get("format"):
        case {"type": "json_schema", **schema}:
            named = {
                key: schema[key] for key in ("name", "schema", "strict", "description") if schema.get(key) is not None
            }
            out["response_format"] = {"type": "json_schema", "json_schema": named}
        case {"type": "json_object"}:
            out["response_format"] = {"type": "json_object"}
    return out


def _tools(asked: Mapping[str, Any], dropped: list[str]) -> dict[str, Any]:
    tools = []
    for number, offered in enumerate(a_list(asked.get("tools") or [], "tools")):
        tool = an_object(offered, f"tools[{number}]")
        if tool.get("type") == "function":
            keys = ("name", "description", "parameters", "strict")
            function = {key: tool[key] for key in keys if tool.get(key) is not None}
            tools.append({"type": "function", "function": function})
        else:
            dropped.append(f"tools.{tool.get('type')}")
    if not tools:
        return {}
    match asked.get("tool_choice"):
        case {"type": "function", "name": str() as name}:
            return {"tools": tools, "tool_choice": {"type": "function", "function": {"name": name}}}
        case "auto" | "none" | "required" as choice:
            return {"tools": tools, "tool_choice": choice}
        case _:
            return {"tools": tools}


class _Items:
    """The input items of one request while they are translated."""

    def __init__(self, dropped: list[str]) -> None:
        self._dropped = dropped
        self._out: list[dict[str, Any]] = []
        self._thought = ""

    def read(self, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Instructions and items as messages, in order."""
        if asked.get("instructions"):
            self._out.append({"role": "system", "content": a_text(asked["instructions"], "instructions")})
        given = asked.get("input")
        if isinstance(given, str):
            self._out.append({"role": "user", "content": given})
            return self._out
        for number, item in enumerate(a_list(given, "input")):
            self._item(an_object(item, f"input[{number}]"), f"input[{number}]")
        if not self._out:
            raise BadRequestError("cannot translate input: it holds nothing to answer")
        return self._out

    def _item(self, item: Mapping[str, Any], where: str) -> None:
        match item.get("type", "message"):
            case "message":
                self._message(item, where)
            case "function_call":
                self._call(item, where)
            case "function_call_output":
                self._result(item, where)
            case "reasoning":
                parts = [*_list(item.get("content")), *_list(item.get("summary"))]
                self._thought += "\n".join(str(part.get("text") or "") for part in parts)
            case "item_reference":
                raise BadRequestError(f"cannot use {where}: nothing is stored here; send the item itself")
            case kind:
                self._dropped.append(f"input.{kind}")

    def _message(self, item: Mapping[str, Any], where: str) -> None:
        role = a_text(item.get("role"), f"{where}.role")
        content = collapse(self._parts(item.get("content"), f"{where}.content"))
        # "developer" is the newer word for the same; the templates of local models know only the older.
        message: dict[str, Any] = {"role": "system" if role == "developer" else role, "content": content}
        self._out.append(self._with_thought(message) if role == "assistant" else message)

    def _call(self, item: Mapping[str, Any], where: str) -> None:
        last = self._out[-1] if self._out else {}
        if last.get("role") != "assistant" or self._thought:
            last = self._with_thought({"role": "assistant", "content": None})
            self._out.append(last)
        function = {"name": a_text(item.get("name"), f"{where}.name"), "arguments": str(item.get("arguments") or "{}")}
        last.setdefault("tool_calls", []).append({"id": item.get("call_id"), "type": "function", "function": function})

    def _result(self, item: Mapping[str, Any], where: str) -> None:
        parts = self._parts(item.get("output"), f"{where}.output")
        text = "\n".join(part["text"] for part in parts if part["type"] == "text")
        self._out.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": text})
        # A tool's message can only be text in most templates: its pictures go with a turn of their own.
        if pictures := [part for part in parts if part["type"] != "text"]:
            self._out.append({"role": "user", "content": pictures})

    def _with_thought(self, message: dict[str, Any]) -> dict[str, Any]:
        thought, self._thought = self._thought, ""
        return {**message, "reasoning_content": thought} if thought else message

    def _parts(self, content: object, where: str) -> list[dict[str, Any]]:
        if isinstance(content, str):
            return [{"type": "text", "text": content}]
        parts = [an_object(part, f"{where}[{number}]") for number, part in enumerate(a_list(content, where))]
        return [translated for part in parts for translated in self._part(part, where)]

    def _part(self, part: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
        match part:
            case {"type": "input_text" | "output_text" | "text", "text": str() as text}:
                return [{"type": "text", "text": text}]
            case {"type": "refusal", "refusal": str() as text}:
                return [{"type": "text", "text": text}]
            case {"type": "input_image", "image_url": str() as url}:
                return [{"type": "image_url", "image_url": {"url": url}}]
            case {"type": "input_audio", "input_audio": dict() as audio}:
                return [{"type": "input_audio", "input_audio": audio}]
            case {"type": "input_file" | "input_image" as kind}:
                raise BadRequestError(f"cannot translate {where}: {kind} must come as an image URL or as text")
            case _:
                self._dropped.append(f"content.{part.get('type')}")
                return []


def _list(value: object) -> list[dict[str, Any]]:
    return [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []
