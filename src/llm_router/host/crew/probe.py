"""From a living process to a proved instance: asks an engine's questions until one token was made (R21-R24).

It walks the adapter's steps, reads the log meanwhile, watches that something moves, and gives either a proof
or a failure with its cause. It starts and stops nothing. All that it sees of the machine comes in as ``Eyes``.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import replace

from llm_router.core.words import Failure, FailureKind
from llm_router.engines.engine import Answer, Ended, Engine, Job, Judgement, Question, Step, Verdict
from llm_router.host.crew.movement import Movement
from llm_router.host.crew.progress import Progress, Vitals

#: The phase before any other: the program comes up.
STARTING: Final = "starting"
#: Pauses between questions in seconds: while it is young or nearly ready, and otherwise. Longer ones would miss
#: the 150 ms (R21) whenever a load ends before its time, and ten small questions a second cost next to nothing.
QUICK_S: Final = 0.025
USUAL_S: Final = 0.1
#: So long after the beginning a start counts as young (seconds).
YOUNG_S: Final = 3.0
#: A question with a limited number of asks is repeated after longer and longer pauses (seconds).
FIRST_RETRY_S: Final = 0.1
LAST_RETRY_S: Final = 1.0
#: How often the log is read, and how often the processes are measured (seconds).
LOOK_S: Final = 0.05
MEASURE_S: Final = 0.5
#: News of a phase comes at once, of mere progress at most this often (seconds).
NEWS_S: Final = 0.5
#: What an asker may take beyond the question's own limit before its answer counts as none (seconds).
ASKER_GRACE_S: Final = 1.0
#: After this pause the port's owner is looked up again before a stranger is suspected (seconds).
OWNER_AGAIN_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class Eyes:
    """What the probe sees of one instance.

    ``ask`` never raises; ``Answer.status`` is 0 when nothing answered. ``ended`` returns when the main process
    has ended. ``log`` gives the lines since the last call, ``tail`` the last ones. ``owned`` tells whether the
    listener on a port belongs to the instance, ``None`` if nobody can know. ``vitals`` measures its processes.
    ``stream``, where there is one, gives an answer again and again as it grows, the complete one last.
    """

    ask: Callable[[str, int, Question], Awaitable[Answer]]
    ended: Callable[[], Awaitable[Ended]]
    log: Callable[[], Sequence[str]] = lambda: ()
    tail: Callable[[], Sequence[str]] = lambda: ()
    owned: Callable[[int], bool | None] = lambda _port: None
    vitals: Callable[[], Vitals | None] = lambda: None
    stream: Callable[[str, int, Question], AsyncGenerator[Answer, None]] | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits in seconds. ``total_s`` bounds the whole start. ``silent_s`` is how long nothing may move: no line
    of the log, no memory, no reading, no computing; ``phases`` has other values for phases by name."""

    total_s: float = 600.0
    silent_s: float = 120.0
    phases: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Proof:
    """The instance made a token. ``seconds`` since the probe began; ``phases`` are the seconds spent in each."""

    seconds: float
    phases: Mapping[str, float]


News = Callable[[str, float | None, float | None], None]
"""Takes a phase in words, 0-100 %, and the seconds that are probably left."""


async def prove(
    engine: Engine,
    job: Job,
    eyes: Eyes,
    *,
    limits: Limits = Limits(),
    history: Sequence[float] = (),
    weights: int | None = None,
    news: News = lambda _phase, _percent, _left: None,
    steps: Sequence[Step] | None = None,
) -> Proof | Failure:
    """Walk the steps (by default those of a start) to their end.

    ``history`` are the seconds of the model's last loads, ``weights`` the size of its files in bytes; both
    only serve the progress. The process is left as it is, whatever comes out.
    """
    walk = _Walk(engine, job, eyes, limits, Progress(history, weights), news)
    return await walk.run(engine.steps(job) if steps is None else steps)


class _Walk:
    """One start on its way. Times are the loop's."""

    def __init__(self, engine: Engine, job: Job, eyes: Eyes, limits: Limits, progress: Progress, news: News) -> None:
        self._engine = engine
        self._job = job
        self._eyes = eyes
        self._limits = limits
        self._progress = progress
        self._news = news
        self._now = asyncio.get_running_loop().time
        self._began = self._phase_began = self._now()
        self._movement = Movement(self._began)
        self._phase = STARTING
        self._phases: dict[str, float] = {}
        self._near = asyncio.Event()
        self._measured = self._told = float("-inf")
        self._last_news: tuple[str, float | None] | None = None
        self._owner_known = False

    async def run(self, steps: Sequence[Step]) -> Proof | Failure:
        failure: Failure | None
        self._tell()
        try:
            async with asyncio.timeout(self._limits.total_s):
                failure = await self._first_of(steps)
        except TimeoutError:
            failure = Failure(
                FailureKind.timeout,
                f"cannot start {self._job.model}: it is not ready after {self._limits.total_s:g} s "
                f"(in phase: {self._phase}); see its log, or raise load_timeout if it only needs longer",
            )
        self._look()
        if failure is not None:
            return failure if failure.tail else replace(failure, tail=tuple(self._eyes.tail()))
        self._enter(self._phase)
        return Proof(self._elapsed(), self._phases)

    async def _first_of(self, steps: Sequence[Step]) -> Failure | None:
        """What comes first: the end of the steps, the end of the process, or the end of all movement."""
        async with asyncio.TaskGroup() as group:
            walking = group.create_task(self._steps(steps))
            ending = group.create_task(self._until_ended())
            looking = group.create_task(self._until_hopeless())
            await asyncio.wait({walking, ending, looking}, return_when=asyncio.FIRST_COMPLETED)
            for task in (walking, ending, looking):
                task.cancel()
        # A process that has ended is dead whatever it answered before.
        for task in (ending, looking):
            if not task.cancelled():
                return task.result()
        return walking.result()

    async def _until_ended(self) -> Failure:
        ended = await self._eyes.ended()
        self._look()
        return self._engine.explain(self._job, ended, self._eyes.tail())

    async def _until_hopeless(self) -> Failure:
        """Read the log, measure, tell; until a line shows that all is lost or nothing moves any more."""
        while True:
            failure = self._look()
            if failure is not None:
                return failure
            silent = self._now() - self._movement.moved
            if silent > self._limits.phases.get(self._phase, self._limits.silent_s):
                why = self._engine.explain(self._job, None, self._eyes.tail())
                return replace(why, cause=f"{why.cause} (nothing moved for {silent:.0f} s in phase: {self._phase})")
            await asyncio.sleep(LOOK_S if self._elapsed() < YOUNG_S or self._near.is_set() else USUAL_S)

    # -- asking

    async def _steps(self, steps: Sequence[Step]) -> Failure | None:
        for step in steps:
            failure = await self._step(step)
            if failure is not None:
                return failure
        return self._stranger() if await self._foreign() else None

    async def _step(self, step: Step) -> Failure | None:
        question, asks = step.question, 0
        while True:
            answer, judged = await self._answer(question, step)
            if answer.status and not self._owner_known and await self._foreign():
                return self._stranger()
            if judged.verdict is Verdict.yes:
                return None
            if judged.verdict is Verdict.no:
                return judged.failure or Failure(FailureKind.crashed, self._unanswered(step, answer))
            if judged.instead is not None and judged.instead != question:
                question = judged.instead
                continue
            asks += 1
            if step.attempts and asks >= step.attempts:
                return Failure(FailureKind.timeout, self._unanswered(step, answer))
            if step.attempts:
                await asyncio.sleep(min(LAST_RETRY_S, FIRST_RETRY_S * 2 ** (asks - 1)))
            else:
                await self._pause()

    async def _answer(self, question: Question, step: Step) -> tuple[Answer, Judgement]:
        if question.stream and self._eyes.stream is not None:
            return await self._streamed(question, step, self._eyes.stream)
        try:
            async with asyncio.timeout(question.timeout_s + ASKER_GRACE_S):
                answer = await self._eyes.ask(self._job.host, self._job.port, question)
        except TimeoutError:
            answer = Answer(0, body=b"silent")
        return answer, self._heard(step.judge(answer))

    async def _streamed(
        self, question: Question, step: Step, stream: Callable[[str, int, Question], AsyncGenerator[Answer, None]]
    ) -> tuple[Answer, Judgement]:
        answer = Answer(0, body=b"silent")
        judged = step.judge(answer)
        try:
            async with (
                asyncio.timeout(question.timeout_s + ASKER_GRACE_S),
                # The generator is closed at once, and with it the connection, when the judge has heard enough.
                aclosing(stream(self._job.host, self._job.port, question)) as answers,
            ):
                async for answer in answers:
                    judged = self._heard(step.judge(answer))
                    self._movement.says(self._now())
                    if judged.verdict is not Verdict.wait:
                        break
        except TimeoutError:
            answer = Answer(0, body=b"silent")
            judged = step.judge(answer)
        return answer, judged

    def _heard(self, judged: Judgement) -> Judgement:
        if judged.phase:
            self._enter(judged.phase)
        if judged.percent is not None:
            self._progress.said(judged.percent)
        return judged

    async def _pause(self) -> None:
        """Wait for the next ask, but not longer than until the log says that it is near."""
        if self._near.is_set():
            await asyncio.sleep(QUICK_S)
            return
        try:
            async with asyncio.timeout(QUICK_S if self._elapsed() < YOUNG_S else USUAL_S):
                await self._near.wait()
        except TimeoutError:
            return

    async def _foreign(self) -> bool:
        """Whether somebody else listens on our port. One look may come too early, two do not."""
        if self._eyes.owned(self._job.port) is not False:
            self._owner_known = True
            return False
        await asyncio.sleep(OWNER_AGAIN_S)
        self._owner_known = self._eyes.owned(self._job.port) is not False
        return not self._owner_known

    def _stranger(self) -> Failure:
        return Failure(
            FailureKind.port_in_use,
            f"cannot start {self._job.model}: another process answers on its port {self._job.port}; "
            "stop that or choose another port",
        )

    def _unanswered(self, step: Step, answer: Answer) -> str:
        said = f"status {answer.status}" if answer.status else answer.body.decode("utf-8", "replace")[:80] or "silence"
        return f"cannot start {self._job.model}: no good answer for the step {step.name!r}; the last one was: {said}"

    # -- looking

    def _look(self) -> Failure | None:
        """Take in what the log and the processes show; a failure if a line shows that it cannot succeed."""
        failure = self._read_log()
        if self._now() - self._measured >= MEASURE_S:
            self._measure()
        self._tell()
        return failure

    def _read_log(self) -> Failure | None:
        for line in self._eyes.log():
            self._movement.says(self._now())
            fact = self._engine.read(line)
            if fact is None:
                continue
            if fact.failure is not None:
                return fact.failure
            if fact.port is not None and fact.port != self._job.port:
                return Failure(
                    FailureKind.port_in_use,
                    f"cannot start {self._job.model}: it listens on port {fact.port} instead of {self._job.port}, "
                    "which must have been taken meanwhile",
                )
            if fact.percent is not None:
                self._progress.said(fact.percent)
            if fact.phase:
                self._enter(fact.phase)
            if fact.near:
                self._near.set()
        return None

    def _measure(self) -> None:
        vitals, self._measured = self._eyes.vitals(), self._now()
        if vitals is not None:
            self._progress.measured(vitals, loading=self._phase != STARTING)
        self._movement.measured(vitals, self._measured)

    def _enter(self, phase: str) -> None:
        """Book the time of the present phase, and begin this one."""
        now = self._now()
        self._phases[self._phase] = self._phases.get(self._phase, 0.0) + now - self._phase_began
        self._phase, self._phase_began = phase, now

    def _tell(self) -> None:
        elapsed = self._elapsed()
        percent = self._progress.percent(elapsed)
        news = (self._phase, None if percent is None else round(percent))
        first_of_phase = self._last_news is None or self._last_news[0] != self._phase
        if not first_of_phase and (news == self._last_news or self._now() - self._told < NEWS_S):
            return
        self._last_news, self._told = news, self._now()
        self._news(self._phase, percent, self._progress.left_s(elapsed))

    def _elapsed(self) -> float:
        return self._now() - self._began
