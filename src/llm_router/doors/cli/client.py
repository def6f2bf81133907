"""The router as the commands see it: a few requests, and every way in which they fail as a sentence.

This file knows the router's HTTP and its errors. It prints nothing and knows no options.
"""

import ipaddress
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Self
from urllib.parse import quote, urlsplit

import httpx2

from llm_router.doors.cli.exits import CommandError, Exit

#: The router answers these at once; silence for so long (seconds) means that something is wrong.
_QUICK: Final = httpx2.Timeout(10.0, connect=3.0)
#: In a stream the router is never silent for more than 10 s while it waits; engines may think longer.
_STREAM: Final = httpx2.Timeout(600.0, connect=3.0)

Json = dict[str, Any]


class Router:
    """A running router, by its base URL. Every method raises ``CommandError`` and nothing else."""

    def __init__(self, url: str, key: str | None) -> None:
        self.url = url
        self._client = httpx2.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=_QUICK,
            # A proxy of the environment is for the world, not for a router on this machine.
            trust_env=not _is_loopback(urlsplit(url).hostname or ""),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def status(self) -> Json:
        """What ``GET /api/status`` tells."""
        return self._ask("GET", "/api/status")

    def models(self) -> list[Json]:
        """The entries of ``GET /v1/models``."""
        entries = self._ask("GET", "/v1/models").get("data")
        return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []

    def model(self, name: str) -> Json:
        """One entry of the list of models."""
        return self._ask("GET", f"/v1/models/{quote(name)}")

    def load(self, model: str) -> Json:
        """Ask for the model to be loaded; returns at once."""
        return self._ask("POST", "/models/load", {"model": model})

    def unload(self, model: str) -> Json:
        """Ask for the model to be unloaded; returns at once."""
        return self._ask("POST", "/models/unload", {"model": model})

    def reload(self) -> Json:
        """Have the router read its configuration anew; gives what changed."""
        return self._ask("POST", "/api/reload", {})

    def chat(self, body: Json) -> Iterator[Json]:
        """The chunks of a streamed chat. A stream that breaks off, or tells an error, is ``CommandError``."""
        body = {**body, "stream": True, "stream_options": {"include_usage": True}}
        with self._speaking():
            request = self._client.build_request("POST", "/v1/chat/completions", json=body, timeout=_STREAM)
            response = self._client.send(request, stream=True)
            try:
                if response.status_code >= 400:
                    response.read()
                    raise refusal(response)
                yield from _chunks(response)
            finally:
                response.close()

    def _ask(self, method: str, path: str, body: Json | None = None) -> Json:
        with self._speaking():
            response = self._client.request(method, path, json=body)
        if response.status_code >= 400:
            raise refusal(response)
        try:
            told = response.json()
        except ValueError:
            told = None
        if not isinstance(told, dict):
            raise CommandError(f"cannot understand the answer of {self.url}{path}: it is no llm-router")
        return told

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        try:
            yield
        except httpx2.ConnectError:
            raise CommandError(
                f"cannot reach the router at {self.url}: nothing listens there. "
                "Start it with `llm-router serve`, or name another address with --url",
                Exit.unreachable,
            ) from None
        except httpx2.TimeoutException:
            raise CommandError(f"cannot reach the router at {self.url}: it does not answer", Exit.unreachable) from None
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.SSEError) as error:
            cause = str(error) or type(error).__name__
            raise CommandError(f"cannot speak with the router at {self.url}: {cause}", Exit.unreachable) from None


def refusal(response: httpx2.Response) -> CommandError:
    """An error answer in OpenAI's form (or any other) as a sentence with its exit code."""
    try:
        told: object = response.json()
    except ValueError:
        told = None
    text, tail = _message(told)
    match response.status_code:
        case 401 | 403:
            text = _sentence(text or "the router wants a key")
            return CommandError(f"{text}; give a key with --key or $LLM_ROUTER_API_KEY", Exit.forbidden)
        case 404:
            return CommandError(_sentence(text or "the router does not know it"), Exit.unknown)
        case 422 if _code(told) == "broken_configuration":
            return CommandError(_sentence(text), Exit.configuration)
        case code:
            return CommandError(_sentence(text or f"the router answers {code}"), details=tail)


def _message(told: object) -> tuple[str, tuple[str, ...]]:
    error = told.get("error") if isinstance(told, dict) else None
    if isinstance(error, str):
        return error, ()
    if not isinstance(error, dict):
        return "", ()
    failure = error.get("failure")
    log = failure.get("log") if isinstance(failure, dict) else None
    return str(error.get("message") or ""), tuple(map(str, log)) if isinstance(log, list) else ()


def _code(told: object) -> object:
    error = told.get("error") if isinstance(told, dict) else None
    return error.get("code") if isinstance(error, dict) else None


def _sentence(text: str) -> str:
    return text if text.startswith("cannot") else f"cannot do this: {text}"


def _chunks(response: httpx2.Response) -> Iterator[Json]:
    for event in httpx2.EventSource(response):
        if event.data == "[DONE]":
            return
        try:
            chunk = json.loads(event.data)
        except ValueError:
            chunk = None
        if not isinstance(chunk, dict):
            raise CommandError("cannot read the answer: the stream holds something that is no JSON object")
        if chunk.get("error"):
            text, tail = _message(chunk)
            raise CommandError(_sentence(text or "the answer broke off"), details=tail)
        yield chunk
    raise CommandError("cannot read the answer to its end: the connection closed in the middle")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
