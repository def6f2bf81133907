"""Requests to ``/v1/messages`` as chat completions, for engines that do not speak Anthropic's API themselves.

It knows both request forms and refuses to guess: what has no counterpart is left out and named, what would
change the meaning if left out (a PDF, a stored file) is refused. The way back is ``anthropic_answer``.
"""

from collections.abc import Mapping
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

PATH: Final = "/v1/chat/completions"

#: Passed under the same name. ``min_p`` and the like are not Anthropic's, but people add them for local engines.
_SAME: Final = ("model", "max_tokens", "temperature", "top_p", "top_k", "min_p", "seed")
#: Translated below, or without meaning here (billing, caching, placement): not worth telling of.
_KNOWN: Final = frozenset(
    {*_SAME, "messages", "system", "stop_sequences", "stream", "tools", "tool_choice", "thinking", "metadata"}
    | {"output_config", "service_tier", "cache_control", "inference_geo"}
)
_CHOICES: Final = {"auto": "auto", "any": "required", "none": "none"}
_EFFORTS: Final = {"low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}

#: UTF-8 bytes of JSON a token stands for at least, and what a picture costs; see ``estimate_tokens``.
_BYTES_PER_TOKEN: Final = 3
_TOKENS_PER_IMAGE: Final = 1600


def chat_request(body: bytes | bytearray) -> Translated:
    """The chat completion that a messages request asks for. Raises ``BadRequestError`` naming the field."""
    asked = read_object(body)
    if not a_list(asked.get("messages"), "messages"):
        raise BadRequestError("cannot translate messages: at least one is required")
    dropped = [key for key in asked if key not in _KNOWN]
    out: dict[str, Any] = {key: asked[key] for key in _SAME if asked.get(key) is not None}
    out["messages"] = _Messages(dropped).read(asked)
    out |= _sampling(asked) | _tools(asked, dropped) | _modes(asked, dropped)
    return Translated(
        PATH,
        encode(out),
        str(asked.get("model") or ""),
        asked.get("stream") is True,
        tuple(dict.fromkeys(dropped)),
        texts(asked.get("stop_sequences")),
    )


def estimate_tokens(body: bytes | bytearray) -> bytes:
    """The answer to ``/v1/messages/count_tokens`` where no engine can count: an estimate, on the high side.

    Clients ask in order to shorten a conversation before it is too long, so too many does less harm than too
    few: one token for three bytes of text and tools (most texts have four or more), four for each
    message, 1,600 for a picture. Raises ``BadRequestError`` like the request itself.
    """
    request = read_object(chat_request(body).body)
    tokens = len(encode(request.get("tools", []))) // _BYTES_PER_TOKEN
    for message in request["messages"]:
        content = message.get("content")
        images = [part for part in content if part["type"] == "image_url"] if isinstance(content, list) else []
        pictured = sum(len(encode(part)) for part in images)
        tokens += 4 + (len(encode(message)) - pictured) // _BYTES_PER_TOKEN + len(images) * _TOKENS_PER_IMAGE
    return encode({"input_tokens": max(1, tokens)})


def _sampling(asked: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if stops := texts(asked.get("stop_sequences")):
        out["stop"] = list(stops)
    if asked.get("stream") is True:
        out |= {"stream": True, "stream_options": {"include_usage": True}}
    metadata = asked.get("metadata")
    if isinstance(metadata, dict) and isinstance(metadata.get("user_id"), str):
        out["user"] = metadata["user_id"]
    return out


def _modes(asked: Mapping[str, Any], dropped: list[str]) -> dict[str, Any]:
    """Thinking, effort and a schema for the answer."""
    out: dict[str, Any] = {}
    mode = an_object(asked.get("thinking") or {}, "thinking")
    if mode.get("type") in ("enabled", "disabled"):
        out["chat_template_kwargs"] = thinking(mode["type"] == "enabled")
    dropped += [f"thinking.{key}" for key in mode if key != "type"]
    config = an_object(asked.get("output_config") or {}, "output_config")
    if effort := _EFFORTS.get(str(config.get("effort"))):
        out["reasoning_effort"] = effort
    answer_format = config.get("format")
    if isinstance(answer_format, dict) and "schema" in answer_format:
        out["response_format"] = schema_format(answer_format["schema"])
    return out


def _tools(asked: Mapping[str, Any], dropped: list[str]) -> dict[str, Any]:
    tools = []
    for number, offered in enumerate(a_list(asked.get("tools") or [], "tools")):
        tool = an_object(offered, f"tools[{number}]")
        if "input_schema" in tool:
            tools.append(_tool(tool))
        else:
            # A tool that Anthropic's servers run (web search, code execution): nobody here can.
            dropped.append(f"tools.{tool.get('name') or tool.get('type')}")
    return {"tools": tools, **_tool_choice(an_object(asked.get("tool_choice") or {}, "tool_choice"))} if tools else {}


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": tool.get("name"), "parameters": tool["input_schema"]}
    function |= {key: tool[key] for key in ("description", "strict") if tool.get(key) is not None}
    return {"type": "function", "function": function}


def _tool_choice(choice: Mapping[str, Any]) -> dict[str, Any]:
    kind = choice.get("type", "auto")
    out: dict[str, Any] = {}
    if kind == "tool":
        out["tool_choice"] = {"type": "function", "function": {"name": choice.get("name")}}
    elif isinstance(kind, str) and kind in _CHOICES:
        out["tool_choice"] = _CHOICES[kind]
    else:
        raise BadRequestError(f"cannot translate tool_choice: its type must be auto, any, tool or none, not {kind!r}")
    if choice.get("disable_parallel_tool_use"):
        out["parallel_tool_calls"] = False
    return out


class _Messages:
    """The messages of one request while they are translated."""

    def __init__(self, dropped: list[str]) -> None:
        self._dropped = dropped
        self._out: list[dict[str, Any]] = []

    def read(self, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
        """System text and turns, in order."""
        system = "\n".join(
            part["text"] for part in self._parts(asked.get("system"), "system") if part["type"] == "text"
        )
        if system:
            self._out.append({"role": "system", "content": system})
        for number, message in enumerate(asked["messages"]):
            where = f"messages[{number}]"
            self._turn(an_object(message, where), where)
        return self._out

    def _turn(self, message: Mapping[str, Any], where: str) -> None:
        match message.get("role"):
            case "user":
                self._user(message.get("content"), where)
            case "assistant":
                self._assistant(message.get("content"), where)
            case "system":
                self._out.append({"role": "system", "content": collapse(self._parts(message.get("content"), where))})
            case role:
                raise BadRequestError(f"cannot translate {where}: its role must be user or assistant, not {role!r}")

    def _user(self, content: object, where: str) -> None:
        results: list[dict[str, Any]] = []
        parts: list[dict[str, Any]] = []
        for block, place in _blocks(content, where):
            if block.get("type") == "tool_result":
                result, images = self._tool_result(block, place)
                results.append(result)
                parts += images
            else:
                parts += self._part(block, place)
        # A tool's result must stand next to its call, so it goes before what the person says.
        self._out += results
        if parts or not results:
            self._say("user", parts)

    def _say(self, role: str, parts: list[dict[str, Any]]) -> None:
        """Add a turn. Turns of one role in a row are one turn in Anthropic's API, and templates want it so too."""
        last = self._out[-1] if self._out else {}
        if last.get("role") == role and "tool_calls" not in last and last.get("content") is not None:
            last["content"] = collapse([*_as_parts(last["content"]), *parts])
        else:
            self._out.append({"role": role, "content": collapse(parts)})

    def _assistant(self, content: object, where: str) -> None:
        parts: list[dict[str, Any]] = []
        calls: list[dict[str, Any]] = []
        thought = ""
        for block, place in _blocks(content, where):
            match block.get("type"):
                case "tool_use":
                    calls.append(_tool_call(block, place))
                case "thinking":
                    thought += str(block.get("thinking") or "")
                case _:
                    parts += self._part(block, place)
        if not (calls or thought):
            self._say("assistant", parts)
            return
        said = {"role": "assistant", "content": collapse(parts) if parts else None}
        self._out.append(
            said | ({"reasoning_content": thought} if thought else {}) | ({"tool_calls": calls} if calls else {})
        )

    def _tool_result(self, block: Mapping[str, Any], where: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The message of a tool, which can only be text, and the pictures that must go with the next turn."""
        parts = self._parts(block.get("content"), where)
        text = "\n".join(part["text"] for part in parts if part["type"] == "text")
        if block.get("is_error"):
            text = f"Error: {text}"
        result = {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": text}
        return result, [part for part in parts if part["type"] != "text"]

    def _parts(self, content: object, where: str) -> list[dict[str, Any]]:
        if content is None:
            return []
        return [part for block, place in _blocks(content, where) for part in self._part(block, place)]

    def _part(self, block: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
        match block:
            case {"type": "text", "text": str() as text}:
                return [_text(text)]
            case {"type": "image", "source": dict() as source}:
                return [{"type": "image_url", "image_url": {"url": _image_url(source, where)}}]
            case {"type": "document", "source": dict() as source}:
                return self._document(block, source, where)
            case {"type": "search_result"}:
                titles = [_text(str(block[key])) for key in ("title", "source") if block.get(key)]
                return [*titles, *self._parts(block.get("content"), where)]
            case {"type": "text" | "image" | "document" as kind}:
                raise BadRequestError(f"cannot translate {where}: a block of type {kind} needs its content")
            case {"type": str() as kind}:
                self._dropped.append(f"content.{kind}")
                return []
            case _:
                raise BadRequestError(f"cannot translate {where}: a content block needs a type")

    def _document(self, block: Mapping[str, Any], source: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
        title = [_text(block["title"])] if isinstance(block.get("title"), str) else []
        match source:
            case {"type": "text", "data": str() as text}:
                return [*title, _text(text)]
            case {"type": "content", "content": content}:
                return [*title, *self._parts(content, where)]
            case _:
                raise BadRequestError(f"cannot translate {where}: only documents given as text can be read here")


def _blocks(content: object, where: str) -> list[tuple[dict[str, Any], str]]:
    """The blocks of a content, each with its place for error messages."""
    if isinstance(content, str):
        return [({"type": "text", "text": content}, where)]
    blocks = enumerate(a_list(content, f"{where}.content"))
    named = [(block, f"{where}.content[{number}]") for number, block in blocks]
    return [(an_object(block, place), place) for block, place in named]


def _as_parts(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [_text(content)] if isinstance(content, str) else content


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _image_url(source: Mapping[str, Any], where: str) -> str:
    match source:
        case {"type": "base64", "media_type": str() as kind, "data": str() as data}:
            return f"data:{kind};base64,{data}"
        case {"type": "url", "url": str() as url}:
            return url
        case _:
            raise BadRequestError(f"cannot translate {where}: an image must be given as base64 or by its URL")


def _tool_call(block: Mapping[str, Any], where: str) -> dict[str, Any]:
    name = a_text(block.get("name"), f"{where}.name")
    arguments = encode(an_object(block.get("input", {}), f"{where}.input")).decode()
    return {"id": block.get("id"), "type": "function", "function": {"name": name, "arguments": arguments}}
