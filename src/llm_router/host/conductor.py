"""The conductor: feeds the scheduler with what happens and has its commands carried out.

It owns the one scheduler, the one clock and the one timer. It knows who waits and who holds a lease, so that
a command about a ticket finds its client; it decides nothing, and knows no engine, process or HTTP.
"""

import asyncio
import difflib
import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from msgspec.structs import replace

from llm_router.core import commands as do
from llm_router.core import events as ev
from llm_router.core import story
from llm_router.core.instance import State
from llm_router.core.scheduler import Scheduler
from llm_router.core.snapshot import Snapshot
from llm_router.core.words import (
    Device,
    EndReason,
    InstanceId,
    Model,
    ModelName,
    Notice,
    Outcome,
    Reason,
    Refusal,
    Settings,
    TicketId,
)
from llm_router.host.crew.performances import Crew, Performances
from llm_router.host.desk import Exchange, Lease, Waiter, Wish
from llm_router.host.journal import Journal
from llm_router.host.machine.tasks import Tasks

log = logging.getLogger(__name__)

#: What happens too often for the log; the journal has it.
_ROUTINE: Final = (ev.Arrived, ev.Released, ev.Ticked, ev.LoadProgressed, ev.Progressed)
_COMMON: Final = (do.Grant, do.Tell)

NEAREST: Final = 3
#: The journal knows no infinity; ten years are as good.
FOR_EVER_S: Final = 315_360_000.0


@dataclass(slots=True)
class _Held:
    """A ticket from its arrival to its end."""

    waiter: Waiter
    model: ModelName
    arrived: float
    lease: Lease | None = None
    #: Bytes of the answer at the last look.
    moved: int | None = 0


class Conductor:
    """The desk of the road of bytes, and the only owner of the scheduler. Lives within one running loop."""

    def __init__(
        self,
        crew: Crew,
        tasks: Tasks,
        *,
        journal: Journal | None = None,
        recorded: Callable[[Exchange], None] | None = None,
        scheduler: Scheduler | None = None,
        serial: int = 0,
    ) -> None:
        """``serial``: the highest number that an instance of an earlier run has had."""
        self._crew = crew
        self._performances = Performances(crew, tasks, self.tell)
        self._journal = journal
        self._recorded = recorded
        self._scheduler = scheduler or Scheduler()
        self._loop = asyncio.get_running_loop()
        self._inbox: deque[ev.Event] = deque()
        self._stepping = False
        self._timer: asyncio.Handle | None = None
        self._armed_for = 0.0
        self._held: dict[TicketId, _Held] = {}
        self._waiting: dict[ModelName, dict[TicketId, Waiter]] = {}
        self._numbers = itertools.count(1)
        self._names: Mapping[str, ModelName] = {}
        self._default: ModelName | None = None
        self._finished = asyncio.Event()
        self._serial: int | None = serial
        self._configured: ev.Configured | None = None
        if journal is not None:
            journal.begin_files_with(self._once_more)

    # -- the desk

    def find(self, name: str) -> ModelName | None:
        return self._names.get(name) if name else self._default

    def nearest(self, name: str) -> list[str]:
        return difflib.get_close_matches(name, list(self._names), n=NEAREST, cutoff=0.4)

    def names(self) -> list[str]:
        """Every name and alias that can be asked for."""
        return list(self._names)

    def serving(self) -> tuple[ModelName, ...]:
        ready = [inst for inst in self.snapshot().instances if inst.state is State.ready]
        return tuple(inst.model for inst in sorted(ready, key=lambda inst: -(inst.last_used or 0.0)))

    def arrive(self, wish: Wish, waiter: Waiter) -> TicketId:
        ticket = TicketId(next(self._numbers))
        self._held[ticket] = _Held(waiter, wish.model, self._loop.time())
        self._waiting.setdefault(wish.model, {})[ticket] = waiter
        self.tell(
            ev.Arrived(
                ticket=ticket,
                model=wish.model,
                caller=wish.caller,
                priority=wish.priority,
                background=wish.background,
                patience_s=wish.patience_s,
                keep_s=None if wish.keep_s is None else min(wish.keep_s, FOR_EVER_S),
            )
        )
        return ticket

    def withdraw(self, ticket: TicketId) -> None:
        held = self._held.get(ticket)
        if held is None:
            return
        if held.lease is not None:
            # The grant crossed the client's leaving on the way.
            self._end_lease(ticket, held.lease, Outcome.left)
            return
        self._forget(ticket, held)
        self.tell(ev.Withdrawn(ticket))

    def let_go(self, ticket: TicketId) -> None:
        held = self._held.get(ticket)
        waiting = {} if held is None else self._waiting.get(held.model, {})
        if held is None or ticket not in waiting or self._is_loading(held.model):
            self.withdraw(ticket)
        else:
            held.waiter = waiting[ticket] = _Loader(self)

    def release(self, ticket: TicketId, exchange: Exchange) -> None:
        held = self._held.get(ticket)
        if held is None or held.lease is None:
            log.error("a lease was released twice or never granted: ticket %s of %s", ticket, exchange.model)
            return
        if self._recorded is not None and exchange.status:
            self._recorded(exchange)
        self._end_lease(ticket, held.lease, exchange.outcome)

    def notice(self, ticket: TicketId) -> Notice | None:
        return self._scheduler.notice(ticket, self._loop.time())

    # -- for the application

    def configure(
        self, models: Iterable[Model], devices: Iterable[Device], settings: Settings, names: Mapping[str, ModelName]
    ) -> None:
        """Put a configuration in force: the first one, or a reload. ``names`` are all names and aliases."""
        models = tuple(models)
        self._names = dict(names)
        self._default = next((model.name for model in models if model.default), None)
        if self._default is None and len(models) == 1:
            self._default = models[0].name
        self._configured = ev.Configured(models, tuple(devices), settings, self._serial)
        self._serial = None
        self.tell(self._configured)

    def _once_more(self) -> str:
        """The configuration in force, for a file of the journal that begins without it."""
        if self._configured is None:
            return ""
        configured = replace(self._configured, serial=self._scheduler.serial)
        return story.write_json(self._loop.time(), configured, again=True)

    def adopt(self, adopted: ev.Adopted) -> None:
        """Take over a running engine of an earlier router."""
        self._performances.follow(adopted.instance)
        self.tell(adopted)

    def snapshot(self) -> Snapshot:
        """Everything that can be seen from outside, as of now."""
        return self._scheduler.snapshot(self._loop.time())

    def age(self, ticket: TicketId) -> float | None:
        """Seconds since the ticket arrived, ``None`` if it is over."""
        held = self._held.get(ticket)
        return None if held is None else self._loop.time() - held.arrived

    async def shut_down(self, *, keep_engines: bool) -> None:
        """Refuse who waits, let the answers end (up to the drain limit), stop the engines; return when done."""
        self.tell(ev.ShutdownAsked(keep_engines))
        await self._finished.wait()

    def load(self, model: ModelName) -> None:
        """Load the model as if somebody waited for it, on an operator's word: remembered failures are forgotten."""
        if not self._is_loading(model):
            self.tell(ev.ForgiveAsked(model))
            self.arrive(Wish(model, caller="operator"), _Loader(self))

    def _is_loading(self, model: ModelName) -> bool:
        """Whether it is waited for without wanting an answer."""
        return any(isinstance(waiter, _Loader) for waiter in self._waiting.get(model, {}).values())

    def unload(self, model: ModelName) -> None:
        """Let its answers end, then stop it."""
        self.tell(ev.UnloadAsked(model))

    def pin(self, model: ModelName, *, pin: bool) -> None:
        """Keep it loaded whoever asks for room, or no longer, until the next reload."""
        self.tell(ev.PinAsked(model, pin))

    def cancel(self, ticket: TicketId) -> bool:
        """End a running answer or a wait on an operator's word. False if there is no such ticket."""
        held = self._held.get(ticket)
        if held is None:
            return False
        if held.lease is None:
            self._forget(ticket, held)
            self.tell(ev.Withdrawn(ticket))
            held.waiter.refused(Refusal(Reason.unloaded, held.model))
        else:
            held.waiter.ended(EndReason.asked)
        return True

    def close(self) -> None:
        """Stop the timer. Nothing is told after this."""
        if self._timer is not None:
            self._timer.cancel()

    # -- events in, commands out

    def tell(self, event: ev.Event) -> None:
        """Tell the scheduler what happened and carry out what follows. Returns at once; may be called from within."""
        self._inbox.append(event)
        if self._stepping:
            return
        self._stepping = True
        try:
            while self._inbox:
                self._step(self._inbox.popleft())
        finally:
            self._stepping = False
        self._arm()

    def _step(self, event: ev.Event) -> None:
        now = self._loop.time()
        if self._journal is not None:
            self._journal.write(partial(story.write_json, now, event))
        if not isinstance(event, _ROUTINE):
            log.info("%s", story.write_text(event))
        try:
            commands = self._scheduler.step(event, now)
        except Exception:
            # A bug in the core: it raises before it changes anything. Say so loudly, keep serving, leave nobody waiting.
            log.exception("cannot follow %r; the journal up to here shows how it came to this", event)
            commands = []
            if isinstance(event, ev.Arrived):
                commands = [do.Refuse(event.ticket, Refusal(Reason.shutting_down, event.model, retry_after_s=5.0))]
        for command in commands:
            try:
                self._perform(command)
            except Exception:
                # One client's bad luck must not become that of whoever happened to be the cause of this step.
                log.exception("cannot carry out %r", command)

    def _arm(self) -> None:
        deadline = self._scheduler.deadline()
        if self._timer is not None:
            if self._armed_for == deadline:
                return
            self._timer.cancel()
            self._timer = None
        if deadline is not None:
            # Remembered here: for a moment that has passed uvloop gives a handle that does not know its time.
            self._armed_for = deadline
            self._timer = self._loop.call_at(deadline, self._tick)

    def _tick(self) -> None:
        self._timer = None
        moving = [ticket for ticket, held in self._held.items() if held.lease is not None and _moves(held)]
        if moving:
            self.tell(ev.Progressed(moving[0], tuple(moving[1:])))
        self.tell(ev.Ticked())

    def _perform(self, command: do.Command) -> None:
        if not isinstance(command, _COMMON):
            log.info("%s", story.write_text(command))
        match command:
            case do.Grant(ticket, instance):
                self._grant(ticket, instance)
            case do.Refuse(ticket, refusal):
                held = self._held.get(ticket)
                if held is not None:
                    self._forget(ticket, held)
                    held.waiter.refused(refusal)
            case do.Tell(model):
                for waiter in list(self._waiting.get(model, {}).values()):
                    waiter.told()
            case do.End(ticket, reason):
                held = self._held.get(ticket)
                if held is not None:
                    held.waiter.ended(reason)
            case do.Finish():
                self._finished.set()
            case _:
                self._performances.begin(command)

    def _grant(self, ticket: TicketId, instance: InstanceId) -> None:
        held = self._held.get(ticket)
        if held is None:
            # Withdrawn in the same breath; the scheduler hears of it next and the grant is given back.
            self._inbox.append(ev.Released(ticket, outcome=Outcome.left))
            return
        self._waiting[held.model].pop(ticket, None)
        held.lease = self._crew.lease(instance, ticket, held.arrived, self._loop.time())
        self._crew.begun(instance, ticket, held.waiter.moved)
        held.waiter.granted(held.lease)

    def _end_lease(self, ticket: TicketId, lease: Lease, outcome: Outcome) -> None:
        del self._held[ticket]
        self._crew.over(lease.instance, ticket, outcome)
        self.tell(ev.Released(ticket, outcome=outcome))

    def _forget(self, ticket: TicketId, held: _Held) -> None:
        self._held.pop(ticket, None)
        waiting = self._waiting.get(held.model)
        if waiting is not None:
            waiting.pop(ticket, None)
            if not waiting:
                del self._waiting[held.model]


def _moves(held: _Held) -> bool:
    """Whether its answer moved since the last look. What cannot be seen to move must not be ended for standing still."""
    moved = held.waiter.moved()
    before, held.moved = held.moved, moved
    return moved is None or moved != before


class _Loader:
    """Waits for a model without wanting an answer: gives its lease back at once."""

    def __init__(self, conductor: Conductor) -> None:
        self._conductor = conductor

    def granted(self, lease: Lease) -> None:
        self._conductor.withdraw(lease.ticket)

    def refused(self, refusal: Refusal) -> None:
        log.info(
            "%s is not loaded: %s", refusal.model, refusal.failure.cause if refusal.failure else refusal.reason.value
        )

    def told(self) -> None:
        """The status shows it."""

    def ended(self, reason: EndReason) -> None:
        """Nothing is held."""

    def moved(self) -> int:
        return 0
