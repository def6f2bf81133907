"""A request is heard: which model it means, whether it may have it, how it is to be told of a wait.

It puts together what the request says, what its client's key allows and what the router's manners lay down. It
refuses to know connections and answers: what follows from a hearing is the exchange's business.
"""

from collections.abc import Callable, Iterable
from typing import Final

from msgspec import Struct

from llm_router.core.words import ModelName
from llm_router.host.desk import Desk, Lease, Wish
from llm_router.host.road.incoming import Request
from llm_router.host.road.road import Road
from llm_router.wire import errors, faces, interpreters, manners, ollama, order, params
from llm_router.wire.content import Body, Content
from llm_router.wire.errors import BadRequestError, Fault
from llm_router.wire.interpreters import Interpreter
from llm_router.wire.join import Joiner
from llm_router.wire.manners import ModelManners
from llm_router.wire.order import Order
from llm_router.wire.params import Change
from llm_router.wire.paths import Api
from llm_router.wire.status import Face
from llm_router.wire.tailor import tailor

#: The forms of which another model can serve a request that nobody waits for.
_STEERED: Final = (Api.chat, Api.completions)


class UnusableError(BadRequestError):
    """Carries a fault that is made already."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


class Asking(Struct, frozen=True):
    """What one engine is asked. ``answer`` is there at once where it need not be asked; then nothing else counts."""

    order: Order
    path: bytes
    body: Body
    joiner: Joiner | None = None
    interpreter: Interpreter | None = None
    answer: bytes | None = None


class Hearing(Struct, frozen=True):
    """A request that was understood. ``path`` is what the engine is asked for, unless it must be interpreted.

    ``only`` is a request of Ollama's kind that wants a model loaded or unloaded and nothing else. ``patient``: it
    may be sent spaces while it waits for a whole answer.
    """

    order: Order
    model: ModelName
    path: bytes
    wish: Wish
    face: Face | None
    changes: tuple[Change, ...] = ()
    steered: str = ""
    patient: bool = False
    interpreter: Interpreter | None = None
    only: ollama.Asked | None = None

    @property
    def talks(self) -> bool:
        """Whether the router may speak in the answer before the engine does."""
        return self.order.asked.stream and self.order.route.api is not Api.other

    def ask(self, lease: Lease, content: Content, join: Callable[[str], Joiner | None]) -> Asking:
        """The request for the engine that was granted. Raises ``BadRequestError``."""
        found, path, dialect = self.order, self.path, lease.dialect
        order.check_path(found, path, dialect)
        interpreter = self.interpreter or interpreters.needed(found, content, dialect)
        if interpreter is not None:
            if interpreter.answer is not None:
                return Asking(found, path, content.body, answer=interpreter.answer, interpreter=interpreter)
            found, content = interpreter.order, interpreter.content if self.interpreter is None else content
            path = found.route.path
        joiner = join(found.route.path.decode()) if order.may_join(found, dialect) else None
        body = order.body_for(found, content, dialect, lease.model, joiner is not None)
        return Asking(found, path, body, joiner, interpreter)

    def told(self, asking: Asking | None) -> bytes:
        """The header lines that tell what was changed in the request."""
        dropped = asking.interpreter.dropped if asking is not None and asking.interpreter is not None else ()
        lines = b""
        if self.changes or dropped:
            changed = params.told(self.changes, dropped)
            lines = b"x-llm-router-changed: %b\r\n" % changed.encode() if changed else b""
        if self.steered:
            name = self.steered.encode("ascii", "replace")
            lines += b"x-llm-router-steered: %b\r\n" % bytes(char for char in name if char > 31)[:200]
        return lines


def hear(request: Request, road: Road, ident: str, created: int) -> Hearing:
    """Understand a request whose body is whole; the body is changed as the model's rules say.

    ``created`` is a Unix time in seconds. Raises ``BadRequestError`` for what cannot be served as it is.
    """
    only, interpreter = None, None
    route, desk, house = request.route, road.desk, road.manners
    if route.api is Api.ollama:
        only, interpreter = interpreters.read_ollama(route, request.content.body)
        found = Order(route, order.NOTHING, ()) if interpreter is None else interpreter.order
        names: Iterable[tuple[str, bytes]] = [(name, route.path) for name in interpreters.names(only.model)]
        if interpreter is not None:
            request.content = interpreter.content
    else:
        content_type = request.fields.get(b"content-type", b"")
        found = order.read(route, request.query, content_type, request.content)
        names = found.models
    model, path = _find(desk, tuple(names))
    _permit(desk, request, model)
    rules, client, visitor = house.of_model(model), house.of_client(request.fields), request.visitor
    background = not route.raw and house.is_background(request.fields, found.asked, visitor.background, client, rules)
    asked_for = model
    if background:
        model = _place(desk, request, house, found, model)
        rules = rules if model == asked_for else house.of_model(model)
    asked = found.asked
    changes: tuple[Change, ...] = ()
    if asked.json and not route.raw:
        rename = model if model != asked_for or (only is not None and asked.model != model) else None
        request.content, changes = tailor(request.content, rules, plain_lines=house.plain_lines, model=rename)
        found = found if rename is None else order.renamed(found, rename)
    return Hearing(
        found,
        model,
        path,
        Wish(model, visitor.caller, visitor.priority, background, keep_s=only.keep_s if only else None),
        _face(request, house, client, ident, created, found, model, rules, only),
        changes,
        asked_for if model != asked_for else "",
        _is_patient(request, house, client, found),
        interpreter,
        only if interpreter is None else None,
    )


def _find(desk: Desk, names: tuple[tuple[str, bytes], ...]) -> tuple[ModelName, bytes]:
    for name, path in names:
        model = desk.find(name)
        if model is not None:
            return model, path
    first = names[0][0]
    nearest = desk.nearest(first)
    raise UnusableError(errors.unknown_model(first, nearest) if first else errors.no_model(nearest))


def _permit(desk: Desk, request: Request, model: ModelName) -> None:
    allowed = request.visitor.models
    if allowed is not None and all(desk.find(name) != model for name in allowed):
        raise UnusableError(errors.not_allowed(model, allowed))


def _place(desk: Desk, request: Request, house: manners.Manners, found: Order, model: ModelName) -> ModelName:
    """The model that serves a background request: its own, or one that is loaded anyway (R17)."""
    policy = house.policy(house.of_model(model))
    if policy == manners.REFUSE:
        raise UnusableError(errors.no_background(model))
    if policy != manners.STEER or found.route.api not in _STEERED:
        return model
    serving = desk.serving()
    if model in serving:
        return model
    allowed = request.visitor.models
    for other in serving:
        if house.of_model(other).chats and (allowed is None or any(desk.find(name) == other for name in allowed)):
            return other
    return model


def _face(
    request: Request,
    house: manners.Manners,
    client: manners.ClientManners | None,
    ident: str,
    created: int,
    found: Order,
    model: ModelName,
    rules: ModelManners,
    only: ollama.Asked | None,
) -> Face | None:
    if not found.asked.stream:
        return None
    mode = house.mode(request.fields, request.visitor.status, client, rules)
    return faces.choose(
        request.route.api,
        mode,
        ident,
        model,
        created,
        structured=found.asked.structured,
        limit_s=rules.limit_s,
        marked=not house.plain_lines,
        form=only.form if only is not None else ollama.Form.chat,
    )


def _is_patient(request: Request, house: manners.Manners, client: manners.ClientManners | None, found: Order) -> bool:
    if found.asked.stream or request.route.api is Api.other:
        return False
    return house.keep_alive if client is None or client.keep_alive is None else client.keep_alive
