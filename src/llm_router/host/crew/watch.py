"""Finds out an engine that answers its health check but fails its requests, or none at all (R27).

While an instance is idle it is asked the adapter's cheap question; while requests run, bytes must move; and
requests that fail one after another count too. Whatever looks bad gets a second opinion: one token. It never
asks for a token without a suspicion, and it restarts nobody: it reports.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Final

from llm_router.core.words import Failure, FailureKind, Outcome, TicketId
from llm_router.engines.engine import Answer, Engine, Job, Judgement, Question, Step, Verdict

#: Between two looks (seconds).
LOOK_S: Final = 5.0
#: After a bad answer it is asked again so soon: what is broken should not be given to many.
AGAIN_S: Final = 1.0
#: While requests run and nothing moves for so long (seconds), the engine is suspected: longer than a long prefill.
QUIET_S: Final = 120.0
#: So many times longer may it be quiet while it works on answers that come whole at their end: an engine that takes
#: one request after another could not give a second opinion meanwhile.
WHOLE_ANSWERS: Final = 5
#: So many bad answers in a row, or failed requests in a row, are a suspicion.
SUSPICIOUS: Final = 3

Ask = Callable[[str, int, Question], Awaitable[Answer]]


class Watch:
    """Watches one proved instance. ``leases`` are the live counts of bytes passed, by ticket."""

    def __init__(
        self,
        engine: Engine,
        job: Job,
        ask: Ask,
        leases: Mapping[TicketId, Callable[[], int | None]],
        *,
        look_s: float = LOOK_S,
        quiet_s: float = QUIET_S,
    ) -> None:
        self._engine = engine
        #: May be replaced by one with another key.
        self.job = job
        self._ask = ask
        self._leases = leases
        self._look_s = look_s
        self._quiet_s = quiet_s
        self._bad_answers = 0
        self._silences = 0
        self._failed_requests = 0
        self._moved: dict[TicketId, int | None] = {}
        self._moved_at = asyncio.get_running_loop().time()

    def over(self, outcome: Outcome) -> None:
        """A lease ended so. What a client did is no fault of the engine's, and no proof of its health."""
        if outcome is Outcome.failed:
            self._failed_requests += 1
        elif outcome in {Outcome.done, Outcome.continues}:
            self._failed_requests = 0

    async def run(self) -> Failure:
        """Return when the instance is found sick, with the reason."""
        while True:
            doubtful = self._bad_answers or self._silences
            await asyncio.sleep(min(self._look_s, AGAIN_S) if doubtful else self._look_s)
            suspicion = await self._suspicion()
            if suspicion is None:
                continue
            second = await self._one_token()
            if second is not None or self._bad_answers >= SUSPICIOUS:
                # It says itself that it is unwell, or it cannot make a token: either way it is drained and replaced.
                return second or Failure(FailureKind.crashed, suspicion)
            self._forgive()

    async def _suspicion(self) -> str | None:
        if self._failed_requests >= SUSPICIOUS:
            return f"{self.job.model} failed {self._failed_requests} requests in a row"
        if self._leases:
            self._bad_answers = 0
            return self._stillness()
        self._moved_at = asyncio.get_running_loop().time()
        return await self._unwell()

    def _stillness(self) -> str | None:
        now = asyncio.get_running_loop().time()
        moved = {ticket: count() for ticket, count in self._leases.items()}
        if moved != self._moved:
            self._moved, self._moved_at = moved, now
        silent = now - self._moved_at
        unseen = None in moved.values()
        if silent < self._quiet_s * (WHOLE_ANSWERS if unseen else 1):
            return None
        return f"{self.job.model} sent nothing for {silent:.0f} s while {len(moved)} requests run"

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

    async def _one_token(self) -> Failure | None:
        """The second opinion: the last step of a start is its proof. ``None`` if it made a token."""
        steps = self._engine.steps(self.job)
        judged = await self._judge(steps[-1])
        if judged.verdict is Verdict.yes:
            return None
        why = f": {judged.failure.cause}" if judged.failure is not None else ""
        return Failure(FailureKind.crashed, f"{self.job.model} runs but cannot make a token any more{why}")

    async def _judge(self, step: Step) -> Judgement:
        judged = step.judge(await self._answer(step.question))
        if judged.instead is not None:
            judged = step.judge(await self._answer(judged.instead))
        return judged

    async def _answer(self, question: Question) -> Answer:
        """Nobody is waited for longer than silence is suffered."""
        patient = replace(question, timeout_s=min(question.timeout_s, self._quiet_s))
        return await self._ask(self.job.host, self.job.port, patient)

    def _forgive(self) -> None:
        self._bad_answers = self._silences = self._failed_requests = 0
        self._moved_at = asyncio.get_running_loop().time()
