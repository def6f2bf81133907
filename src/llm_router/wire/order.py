"""One model request read, and written for the engine that serves it.

This file knows where a request names its model (JSON, form, query, path) and what a dialect wants changed.
It refuses to know which models exist and who serves them.
"""

import re
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlencode

import msgspec

from llm_router.wire import multipart, openai
from llm_router.wire.content import Body, Content
from llm_router.wire.dialect import Dialect
from llm_router.wire.errors import BadRequestError
from llm_router.wire.openai import Asked
from llm_router.wire.paths import Api, Route, raw_candidates

#: A tuple: the hash of an enum is a call.
_STREAMED: Final = (Api.chat, Api.completions)


#: A request that asks for nothing but a model.
NOTHING: Final = Asked()


class Order(msgspec.Struct, frozen=True):
    """What a request asks for. ``models``: the names it may mean, each with the path the engine is asked for.

    ``span`` is where the model stands in a form's body. ``query`` is without ``?``.
    """

    route: Route
    asked: Asked
    models: tuple[tuple[str, bytes], ...]
    query: bytes = b""
    span: tuple[int, int] | None = None
    in_query: bool = False


def read(route: Route, query: bytes, content_type: bytes, content: Content) -> Order:
    """Read a request. Raises ``BadRequestError`` for what cannot be used."""
    if route.raw:
        return Order(route, Asked(), tuple(raw_candidates(route.path)), query)
    kind, body = content_type.partition(b";")[0].strip().lower(), content.body
    if kind == b"multipart/form-data":
        span = multipart.find_model(content_type, body)
        if span is not None:
            name = bytes(body[span[0] : span[1]]).decode(errors="replace")
            return Order(route, Asked(model=name), ((name, route.path),), query, span)
    elif body and (kind in (b"", b"application/json") or kind.endswith(b"+json") or body[:64].lstrip()[:1] == b"{"):
        asked = openai.read_json(content)
        if asked.model:
            return Order(route, asked, ((asked.model, route.path),), query)
        name = openai.model_of_query(query)
        return Order(route, asked, ((name, route.path),), query, in_query=bool(name))
    elif route.api is not Api.other:
        raise BadRequestError("cannot read the request: it has no JSON body", "invalid_json")
    name = openai.model_of_query(query)
    return Order(route, Asked(model=name), ((name, route.path),), query, in_query=bool(name))


def hides_usage(order: Order, dialect: Dialect) -> bool:
    """Whether the router asks for usage on its own account, so that the client must not see it."""
    asked = order.asked
    return dialect.ask_usage and asked.stream and not asked.wants_usage and order.route.api in _STREAMED


def _counts_if_asked(order: Order, dialect: Dialect) -> bool:
    """Whether a whole answer would come without its usage, which OpenAI's form has."""
    return dialect.usage_whole and not order.asked.stream and order.route.api in _STREAMED


def may_join(order: Order, dialect: Dialect) -> bool:
    """Whether the whole answer is to be asked for as a stream (the engine would not notice a lost client)."""
    asked = order.asked
    return asked.json and not asked.stream and asked.joinable and order.route.path.decode() in dialect.stream_only


def body_for(order: Order, content: Content, dialect: Dialect, model: str, join: bool) -> Body:
    """The body for the engine. ``model`` is the router's name for it, for requests that named none."""
    body = content.body
    if order.route.raw:
        return body
    named = order.asked.model
    name = dialect.model_name if dialect.model_name is not None else named or model
    if order.span is not None:
        return body if name == named else multipart.replace(body, order.span, name)
    if not order.asked.json:
        return body
    changes: dict[str, object] = {}
    if name != named:
        changes["model"] = name
    if join:
        changes["stream"] = True
    if (join and dialect.ask_usage) or hides_usage(order, dialect) or _counts_if_asked(order, dialect):
        changes |= openai.add_usage(content)
    return openai.rewrite(content, changes, dialect.drop, dialect.accepts.get(order.route.path.decode()))


def check_path(order: Order, path: bytes, dialect: Dialect) -> None:
    """Raises ``BadRequestError`` for a raw request that would steer the engine behind the router's back."""
    if order.route.raw and dialect.reserved:
        plain = re.sub(r"/+", "/", unquote(path.decode("latin-1"))).rstrip("/")
        if plain in dialect.reserved:
            raise BadRequestError(
                f"cannot pass {plain}: only the router itself may ask the engine for that", status=403
            )


def target_for(order: Order, path: bytes, dialect: Dialect, model: str) -> bytes:
    """Path and query for the engine; the model in a query is written as the engine knows it."""
    if not order.query:
        return path
    query = order.query
    if order.in_query:
        name = dialect.model_name if dialect.model_name is not None else model
        fields = [(key, name if key == "model" else value) for key, value in parse_qsl(query.decode("latin-1"), True)]
        query = urlencode(fields, quote_via=quote).encode()
    return b"%b?%b" % (path, query)


def renamed(order: Order, model: str) -> Order:
    """The same request for another model; the name in its body must be that one too."""
    asked = msgspec.structs.replace(order.asked, model=model)
    return msgspec.structs.replace(order, asked=asked, models=((model, order.route.path),))
