"""Finds out an engine that answers its health check but fails its requests, or none at all (R27).

While an instance is idle it is asked the adapter's cheap question; while requests run, it must show that it works;
and requests that fail one after another count too. Whatever looks bad gets a second opinion: one token. It never
asks for a token without a suspicion, and it restarts nobody: it reports. What shows work is laid down in movement.py.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from llm_router.core.words import Failure, FailureKind, Outcome, TicketId
from llm_router.engines.engine import Answer, Engine, Job, Judgement, Question, Step, Verdict
from llm_router.host.crew.movement import Movement
from llm_router.host.crew.progress import Vitals

#: Between two looks (seconds); at an engine that answers at least this often.
LOOK_S: Final = 5.0
#: After a bad answer it is asked again so soon: what is broken should not be given to many.
AGAIN_S: Final = 1.0
#: While requests run and nothing moves for so long (seconds), the engine is suspected.
QUIET_S: Final = 120.0
#: So many times longer may it be still while it works on answers that come whole at their end: an engine that takes
#: one request after another could not give a second opinion meanwhile.
WHOLE_ANSWERS: Final = 5
#: So many times longer may it compute without a word. A long prompt is that, and leaves no room for a second opinion
#: where prompts are read one after another; but so is an engine that spins while it hangs.
COMPUTING: Final = 30
#: So many bad answers in a row, or failed requests in a row, are a suspicion.
SUSPICIOUS: Final = 3

Ask = Callable[[str, int, Question], Awaitable[Answer]]


class Watch:
    """Watches one proved instance.

    ``leases`` are the live counts of bytes passed, by ticket; ``log`` gives the lines since the last call, and
    ``vitals`` measures its processes. ``works`` hears of the leases that are silent while the engine works.
    """

    def __init__(
        self,
        engine: Engine,
        job: Job,
        ask: Ask,
        leases: Mapping[TicketId, Callable[[], int | None]],
        *,
        log: Callable[[], Sequence[str]] = lambda: (),
        vitals: Callable[[], Vitals | None] = lambda: None,
        works: Callable[[tuple[TicketId, ...]], None] = lambda _silent: None,
        look_s: float = LOOK_S,
        quiet_s: float = QUIET_S,
    ) -> None:
        self._engine = engine
        #: May be replaced by one with another key.
        self.job = job
        self._ask = ask
        self._leases = leases
        self._log = log
        self._vitals = vitals
        self._works = works
        self._look_s = look_s
        self._quiet_s = quiet_s
        self._bad_answers = 0
        self._silences = 0
        self._failed_requests = 0
        self._now = asyncio.get_running_loop().time
        self._looked = self._now()
        #: Seconds in which requests ran, until the last look: who wants nothing hears no silence.
        self._ran_s = 0.0
        self._movement = Movement(self._ran_s)
        #: Bytes of each lease at the last look.
        self._counts: dict[TicketId, int | None] = {}

    def over(self, outcome: Outcome) -> None:
        """A lease ended so. What a client did is no fault of the engine's, and no proof of its health."""
        if outcome is Outcome.failed:
            self._failed_requests += 1
        elif outcome in (Outcome.done, Outcome.continues):
            self._failed_requests = 0
            self._movement.says(self._clock())

    async def run(self) -> Failure:
        """Return when the instance is found sick, with the reason."""
        while True:
            await asyncio.sleep(self._pause())
            self._look()
            suspicion = await self._suspicion()
            if suspicion is None:
                continue
            began = self._clock()
            second = await self._second_opinion()
            if second.verdict is Verdict.yes:
                if self._bad_answers >= SUSPICIOUS:
                    # It says itself that it is unwell: drained and replaced, though it makes tokens.
                    return Failure(FailureKind.crashed, suspicion)
                self._movement.says(self._clock())
            elif second.verdict is Verdict.no or self._bad_answers >= SUSPICIOUS or not self._worked_since(began):
                why = f": {second.failure.cause}" if second.failure is not None else ""
                return Failure(FailureKind.crashed, f"{self.job.model} runs but cannot make a token any more{why}")
            self._bad_answers = self._silences = self._failed_requests = 0

    def _pause(self) -> float:
        if self._leases:
            return min(self._look_s, LOOK_S, self._quiet_s / 4)
        return min(self._look_s, AGAIN_S) if self._bad_answers or self._silences else self._look_s

    # -- what is seen without asking

    def _look(self) -> None:
        """Take in what has moved since the last look."""
        self._ran_s, self._looked = self._clock(), self._now()
        before, self._counts = self._counts, {ticket: count() for ticket, count in self._leases.items()}
        if not self._counts:
            self._movement.rests()
            return
        silent = tuple(ticket for ticket, count in self._counts.items() if count in (None, before.get(ticket) or 0))
        speaks = len(silent) < len(self._counts) or self._tells_of_work()
        if speaks:
            self._movement.says(self._ran_s)
        works = speaks or self._movement.measured(self._vitals(), self._ran_s)
        if silent and works and not self._is_mute():
            self._works(silent)

    def _clock(self) -> float:
        return self._ran_s + (self._now() - self._looked if self._counts else 0.0)

    def _tells_of_work(self) -> bool:
        """Whether its log has a line about work since the last time that somebody wanted to know."""
        facts = [self._engine.read(line) for line in self._log()]
        return any(fact is not None and fact.works for fact in facts)

    def _is_mute(self) -> bool:
        return self._ran_s - self._movement.said >= COMPUTING * self._quiet_s

    def _worked_since(self, moment: float) -> bool:
        """Whether it has shown since then why it made no token: it works on another answer."""
        return self._movement.moved > moment and not self._is_mute()

    # -- what is suspicious

    async def _suspicion(self) -> str | None:
        if self._failed_requests >= SUSPICIOUS:
            return f"{self.job.model} failed {self._failed_requests} requests in a row"
        if self._leases:
            self._bad_answers = 0
            return self._stillness()
        return await self._unwell()

    def _stillness(self) -> str | None:
        model, running = self.job.model, len(self._leases)
        still = self._ran_s - self._movement.moved
        if still >= self._quiet_s * (WHOLE_ANSWERS if None in self._counts.values() else 1):
            return f"{model} shows no sign of work for {still:.0f} s while {running} requests run"
        if self._is_mute():
            mute = self._ran_s - self._movement.said
            return f"{model} computes without a word for {mute:.0f} s while {running} requests run"
        return None

    async def _unwell(self) -> str | None:
        step = self._engine.watch(self.job)
        if step is None:
            return None
        judged = await self._judge(step)
        if judged.verdict is Verdict.yes:
            self._bad_answers = 0
            return None
        self._bad_answers += judged.verdict is Verdict.no
        self._silences = 0 if judged.verdict is Verdict.no else self._silences + 1
        if max(self._bad_answers, self._silences) < SUSPICIOUS:
            return None
        why = judged.failure.cause if judged.failure is not None else "it does not answer its health check"
        return f"{self.job.model} is unwell: {why}"

    # -- asking

    async def _second_opinion(self) -> Judgement:
        """One token: the last step of a start is its proof. While it waits for that, it is looked at as ever."""
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(self._judge(self._engine.steps(self.job)[-1]))
            while not (await asyncio.wait({asked}, timeout=self._pause()))[0]:
                self._look()
        return asked.result()

    async def _judge(self, step: Step) -> Judgement:
        judged = step.judge(await self._answer(step.question))
        if judged.instead is not None:
            judged = step.judge(await self._answer(judged.instead))
        return judged

    async def _answer(self, question: Question) -> Answer:
        """Nobody is waited for longer than silence is suffered."""
        patient = replace(question, timeout_s=min(question.timeout_s, self._quiet_s))
        return await self._ask(self.job.host, self.job.port, patient)
