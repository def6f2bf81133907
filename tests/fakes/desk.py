"""A desk that grants when the test says so, and that holds the road to its word: one release for each grant."""

import difflib
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from llm_router.core.words import EndReason, InstanceId, ModelName, Notice, Reason, Refusal, Stage, TicketId
from llm_router.host.desk import Exchange, Lease, Waiter, Wish
from llm_router.wire.dialect import Dialect


@dataclass
class FakeDesk:
    """Knows models ``m`` and ``other`` behind one port. ``hold``: tickets wait until ``grant``."""

    port: int = 0
    hold: bool = False
    dialect: Dialect = field(default_factory=Dialect)
    models: tuple[str, ...] = ("m", "other", "org/name")
    aliases: dict[str, str] = field(default_factory=lambda: {"alias": "m"})
    default: str | None = None
    loaded: tuple[str, ...] = ()
    waited_s: float = 0.0
    loaded_s: float = 0.0
    refusal: Refusal | None = None
    news: Notice | None = None
    wishes: list[Wish] = field(default_factory=list)
    waiting: dict[TicketId, tuple[Wish, Waiter]] = field(default_factory=dict)
    leases: dict[TicketId, Waiter] = field(default_factory=dict)
    released: list[Exchange] = field(default_factory=list)
    withdrawn: list[TicketId] = field(default_factory=list)
    gone: list[TicketId] = field(default_factory=list)
    granted: int = 0
    at_release: Callable[[], object] = lambda: None
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def find(self, name: str) -> ModelName | None:
        if not name:
            return ModelName(self.default) if self.default else None
        name = self.aliases.get(name, name)
        return ModelName(name) if name in self.models else None

    def nearest(self, name: str) -> list[str]:
        return difflib.get_close_matches(name, self.models, 3, 0.0)

    def serving(self) -> tuple[ModelName, ...]:
        return tuple(ModelName(name) for name in self.loaded)

    def arrive(self, wish: Wish, waiter: Waiter) -> TicketId:
        ticket = TicketId(next(self._numbers))
        self.wishes.append(wish)
        self.waiting[ticket] = (wish, waiter)
        if self.refusal is not None:
            del self.waiting[ticket]
            waiter.refused(self.refusal)
        elif not self.hold:
            self.grant(ticket)
        return ticket

    def withdraw(self, ticket: TicketId) -> None:
        assert ticket not in self.leases, "a granted ticket is released, not withdrawn"
        self.waiting.pop(ticket, None)
        self.withdrawn.append(ticket)

    def let_go(self, ticket: TicketId) -> None:
        del self.waiting[ticket]
        self.gone.append(ticket)

    def release(self, ticket: TicketId, exchange: Exchange) -> None:
        assert ticket in self.leases, "released what was not granted, or twice"
        del self.leases[ticket]
        self.released.append(exchange)
        self.at_release()

    def notice(self, ticket: TicketId) -> Notice | None:
        return self.news if ticket in self.waiting else None

    # What a test says

    def grant(self, ticket: TicketId | None = None) -> None:
        """Grant this ticket, or the first that waits."""
        ticket = ticket if ticket is not None else next(iter(self.waiting))
        wish, waiter = self.waiting.pop(ticket)
        self.leases[ticket] = waiter
        self.granted += 1
        waiter.granted(
            Lease(
                ticket,
                InstanceId("m#1"),
                wish.model,
                "127.0.0.1",
                self.port,
                self.dialect,
                self.waited_s,
                self.loaded_s,
            )
        )

    def refuse(self, reason: Reason = Reason.load_failed, retry_after_s: float | None = None) -> None:
        """Refuse the first that waits."""
        wish, waiter = self.waiting.pop(next(iter(self.waiting)))
        waiter.refused(Refusal(reason, wish.model, retry_after_s))

    def tell(self, stage: Stage, **more: object) -> None:
        """There is news for all."""
        self.news = Notice(ModelName("m"), stage, 1.0, **more)  # type: ignore[arg-type]
        for _, waiter in list(self.waiting.values()):
            waiter.told()

    def end(self, reason: EndReason = EndReason.stalled) -> None:
        """Take the first lease back."""
        next(iter(self.leases.values())).ended(reason)

    def check(self) -> None:
        """Everything granted was released, once, and nobody waits."""
        assert not self.leases, f"leases that were never given back: {self.leases}"
        assert not self.waiting
        assert self.granted == len(self.released)
