"""The seam between the road of bytes and the conductor: a request asks here for an instance and gives it back.

Everything here is called on the event loop and returns at once; news comes by the ``Waiter``'s methods,
which may be called before ``arrive`` has returned. The desk knows nothing of HTTP, the road nothing of
scheduling.
"""

from typing import Protocol

from msgspec import Struct

from llm_router.core.words import EndReason, InstanceId, ModelName, Notice, Outcome, Refusal, TicketId
from llm_router.wire.dialect import Dialect


class Lease(Struct, frozen=True):
    """A granted request's hold on an instance. ``waited_s`` since arrival, of which ``loaded_s`` was a load."""

    ticket: TicketId
    instance: InstanceId
    model: ModelName
    host: str
    port: int
    dialect: Dialect
    waited_s: float = 0.0
    loaded_s: float = 0.0


class Wish(Struct, frozen=True):
    """What a request asks for. ``keep_s``: how long the model should stay after the answer, ``inf`` for ever."""

    model: ModelName
    caller: str = ""
    priority: int = 0
    background: bool = False
    patience_s: float | None = None
    keep_s: float | None = None


class Exchange(Struct, frozen=True):
    """One request and its answer, as recorded. Times in seconds; tokens as the engine counted them.

    ``estimated`` marks a token count that is ours, not the engine's.
    """

    ticket: TicketId
    model: ModelName
    path: str
    status: int
    stream: bool
    outcome: Outcome
    waited_s: float
    loaded_s: float
    first_byte_s: float | None
    total_s: float
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    tokens_per_s: float | None = None
    prompt_per_s: float | None = None
    estimated: bool = False
    request_id: str = ""
    caller: str = ""


class Waiter(Protocol):
    """Who asked. Exactly one of ``granted`` and ``refused`` is called, unless the ticket was withdrawn."""

    def granted(self, lease: Lease) -> None: ...

    def refused(self, refusal: Refusal) -> None: ...

    def told(self) -> None:
        """There is news: ask ``Desk.notice``."""
        ...

    def ended(self, reason: EndReason) -> None:
        """The lease is taken back: end the answer with an error and release."""
        ...

    def moved(self) -> int | None:
        """What the engine has said so far, in bytes, so that a stalled lease can be told from a slow one.

        Pings of the engine and the router's own words do not count. ``None``: the answer comes whole at its
        end, so nobody can know.
        """
        ...


class Desk(Protocol):
    """Where a request gets its instance."""

    def find(self, name: str) -> ModelName | None:
        """The model of this name or alias, ``None`` if there is none. ``""`` gives the default model, if any."""
        ...

    def nearest(self, name: str) -> list[str]:
        """At most three known names that resemble this one, most similar first."""
        ...

    def serving(self) -> tuple[ModelName, ...]:
        """The models that would be served at once, the one used last first."""
        ...

    def arrive(self, wish: Wish, waiter: Waiter) -> TicketId:
        """Take a place in line. The answer may come before this returns."""
        ...

    def withdraw(self, ticket: TicketId) -> None:
        """The client left while it waited. Never fails."""
        ...

    def let_go(self, ticket: TicketId) -> None:
        """The client was told to come back later: its load goes on as if it waited. Never fails."""
        ...

    def release(self, ticket: TicketId, exchange: Exchange) -> None:
        """The lease is over. Exactly once for each grant."""
        ...

    def notice(self, ticket: TicketId) -> Notice | None:
        """What to tell the waiting client now."""
        ...
