"""The heads of requests and answers, written anew from what was parsed: nothing passes that was not read.

This file knows which headers end at this hop (RFC 9110 section 7.6.1) and which are the router's own. It
refuses to know bodies and sockets. Names come in lower case; values are free of CR, LF and NUL, which the
parser has seen to.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from http import HTTPStatus
from types import MappingProxyType
from typing import Final

Headers = Sequence[tuple[bytes, bytes]]

HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
#: ``x-conversation-id`` makes llama.cpp go on after the client left (its server-stream.cpp). Without
#: ``accept-encoding`` the answer stays readable. Keys and cookies are the router's, not the engine's; an
#: engine that sees ``origin`` would add access headers of its own.
_NOT_ASKED: Final = HOP | {
    b"accept-encoding",
    b"authorization",
    b"content-length",
    b"cookie",
    b"expect",
    b"host",
    b"http2-settings",
    b"origin",
    b"x-api-key",
    b"x-conversation-id",
    b"x-request-id",
}
_LONGEST_ID: Final = 128
#: The router answers for access, cookies and the request's id itself.
_NOT_ANSWERED: Final = HOP | {
    b"content-length",
    b"content-security-policy",
    b"set-cookie",
    b"x-accel-buffering",
    b"x-content-type-options",
    b"x-request-id",
}
_OURS: Final = (b"x-router-", b"x-llm-router-")
_NOT_ANSWERED_PREFIXES: Final = (b"access-control-", *_OURS)
_PAGES: Final = (b"text/html", b"application/xhtml", b"image/svg", b"text/xml", b"application/xml")

_STATUS_LINES: Final = {
    status: b"HTTP/1.1 %d %s\r\n" % (status, phrase.encode())
    for status in range(100, 600)
    for phrase in [HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Status"]
}


def status_line(status: int) -> bytes:
    """The first line of an answer. A status out of range becomes 502."""
    return _STATUS_LINES.get(status) or _STATUS_LINES[502]


def value_of(headers: Headers, name: bytes) -> bytes:
    """The first value of a header, ``b""`` if there is none."""
    for header, value in headers:
        if header == name:
            return value
    return b""


def tokens(value: bytes) -> list[bytes]:
    """The comma-separated words of a header's value, in lower case."""
    return [word.strip().lower() for word in value.split(b",") if word.strip()]


_NO_MORE: Final[Mapping[bytes, bytes]] = MappingProxyType({})


@lru_cache(maxsize=256)  # an instance's are the same for each of its requests
def encoded(headers: tuple[tuple[str, str], ...]) -> Mapping[bytes, bytes]:
    """Headers as ``request_head`` takes them."""
    return MappingProxyType({name.lower().encode("ascii"): value.encode("latin-1") for name, value in headers})


def request_head(
    method: bytes,
    target: bytes,
    headers: Headers,
    host: bytes,
    length: int | None,
    *,
    extra: Mapping[bytes, bytes] = _NO_MORE,
    upgrade: bytes = b"",
) -> bytes:
    """The head for the engine. ``length`` ``None``: a request without a body. ``extra`` replaces what the client sent;
    its names are in lower case.

    ``upgrade`` is the protocol that is asked for, if any.
    """
    parts = [method, b" ", target, b" HTTP/1.1\r\nhost: ", host, b"\r\n"]
    named = _nominated(headers)
    for name, value in headers:
        if (_asked_cache[name] if name in _asked_cache else _dropped(name)) or name in extra or name in named:
            continue
        parts += (name, b": ", value, b"\r\n")
    for name, value in extra.items():
        parts += (name, b": ", value, b"\r\n")
    if upgrade:
        parts += (b"connection: Upgrade\r\nupgrade: ", upgrade, b"\r\n")
    if length is not None:
        parts.append(b"content-length: %d\r\n" % length)
    parts.append(b"\r\n")
    return b"".join(parts)


#: What nearly every ``Connection`` says: it names nothing but what ends here anyway.
_ORDINARY: Final = frozenset({b"keep-alive", b"close", b""})
_asked_cache: dict[bytes, bool] = {}
_CACHE_LIMIT: Final = 1024


def _dropped(name: bytes) -> bool:
    """Whether the engine is not to get this header. Clients send few names again and again: they are remembered."""
    verdict = name in _NOT_ASKED or name.startswith(_OURS)
    if len(_asked_cache) < _CACHE_LIMIT:
        _asked_cache[name] = verdict
    return verdict


def answer_headers(headers: Headers, trust_pages: bool = False) -> list[bytes]:
    """The header lines of an engine's answer that are passed on, without framing and the empty line.

    A page that an engine sends gets an origin of its own (Content-Security-Policy ``sandbox``), unless
    ``trust_pages``: its scripts must not act as the router's.
    """
    lines: list[bytes] = []
    named = _nominated(headers)
    page = False
    for name, value in headers:
        if name in _NOT_ANSWERED or name in named or name.startswith(_NOT_ANSWERED_PREFIXES):
            continue
        if name == b"content-type" and value.lower().startswith(_PAGES):
            page = True
        lines += (name, b": ", value, b"\r\n")
    lines.append(b"x-content-type-options: nosniff\r\n")
    if page and not trust_pages:
        lines.append(b"content-security-policy: sandbox allow-scripts allow-forms allow-popups allow-modals\r\n")
    return lines


def request_id(given: bytes) -> str:
    """The id that a client gave its request, ``""`` if it cannot stand in a header or is too long."""
    text = given.decode("ascii", "replace")
    return text if given.isascii() and text.isprintable() and len(given) <= _LONGEST_ID else ""


def own_lines(ident: str, model: str) -> list[bytes]:
    """The router's own header lines of every answer; without ``model`` none was found."""
    if not model:
        return [b"x-request-id: %b\r\n" % _word(ident)]
    return [b"x-request-id: %b\r\nx-llm-router-model: %b\r\n" % (_word(ident), _word(model))]


def lease_lines(instance: str, waited_s: float, loaded_s: float, overhead_s: float | None) -> list[bytes]:
    """The router's own header lines of an answer by an instance. Times in seconds."""
    head = b"x-llm-router-instance: %b\r\nx-llm-router-waited: %.3f\r\nx-llm-router-loaded: %.3f\r\n"
    lines = [head % (_word(instance), waited_s, loaded_s)]
    if overhead_s is not None:
        lines.append(b"x-llm-router-overhead: %.6f\r\n" % overhead_s)
    return lines


def _word(text: str) -> bytes:
    """A name as a header's value: printable ASCII."""
    if text.isascii() and text.isprintable():
        return text.encode()
    return "".join(char if " " <= char <= "~" else "?" for char in text).encode()


def _nominated(headers: Headers) -> list[bytes]:
    """The headers that ``Connection`` names as its own (RFC 9110 section 7.6.1)."""
    for name, value in headers:
        if name == b"connection":
            if value in _ORDINARY:
                continue
            return tokens(b",".join(v for n, v in headers if n == b"connection")) if value else []
    return []
