"""An engine that is healthy, slow, silent, failing or sick, as the watch sees it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from fakes.virtual_time import run
from llm_router.core.words import Failure, FailureKind, Outcome, TicketId
from llm_router.engines.engine import Answer, Job, Judgement, Question, Step, Verdict
from llm_router.host.crew.watch import AGAIN_S, LOOK_S, SUSPICIOUS, WHOLE_ANSWERS, Watch

CHEAP, TOKEN = Question("GET", "/health"), Question("POST", "/v1/chat/completions")


def judge(answer: Answer) -> Judgement:
    if answer.status == 200:
        return Judgement(Verdict.yes)
    if answer.status == 0:
        return Judgement(Verdict.wait)
    return Judgement(Verdict.no, Failure(FailureKind.crashed, answer.body.decode()))


class Engine:
    """The two things that a watch wants of an engine."""

    asks = True

    def watch(self, job: Job) -> Step | None:
        return Step("health", CHEAP, judge) if self.asks else None

    def steps(self, job: Job) -> tuple[Step, ...]:
        return (Step("ready", CHEAP, judge), Step("first token", TOKEN, judge))


@dataclass
class Instance:
    """What it answers by path, and how often it was asked. After ``limit`` asks the test goes on."""

    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    limit: int = 12
    enough: asyncio.Event = field(default_factory=asyncio.Event)

    async def ask(self, host: str, port: int, question: Question) -> Answer:
        self.asked.append(question.path)
        if len(self.asked) >= self.limit:
            self.enough.set()
        await asyncio.sleep(0)
        return self.answers.get(question.path, Answer(200))


def watch(
    instance: Instance, leases: dict[TicketId, Callable[[], int | None]] | None = None, quiet_s: float = 60.0
) -> Watch:
    job = Job("m", ("engine",), 1)
    return Watch(Engine(), job, instance.ask, leases or {}, look_s=0.0, quiet_s=quiet_s)  # type: ignore[arg-type]


async def found(tested: Watch) -> Failure:
    async with asyncio.timeout(5):
        return await tested.run()


async def nothing_found(tested: Watch, until: asyncio.Event) -> None:
    looking = asyncio.ensure_future(tested.run())  # noqa: TID251 - cancelled below
    async with asyncio.timeout(5):
        await until.wait()
    assert not looking.done()
    looking.cancel()


async def test_a_healthy_idle_engine_is_never_asked_for_a_token() -> None:
    instance = Instance()
    await nothing_found(watch(instance), instance.enough)
    assert set(instance.asked) == {"/health"}


async def test_an_engine_that_answers_nothing_and_makes_no_token_is_found() -> None:
    instance = Instance({CHEAP.path: Answer(0), TOKEN.path: Answer(0)})
    failure = await found(watch(instance))
    assert "cannot make a token any more" in failure.cause
    assert instance.asked == [CHEAP.path] * SUSPICIOUS + [TOKEN.path]


async def test_an_engine_too_busy_for_its_health_check_that_makes_a_token_is_left_alone() -> None:
    instance = Instance({CHEAP.path: Answer(0)})
    await nothing_found(watch(instance), instance.enough)


async def test_an_engine_that_says_itself_that_it_is_unwell_is_replaced_though_it_makes_tokens() -> None:
    instance = Instance({CHEAP.path: Answer(503, body=b"unhealthy for good")})
    assert (await found(watch(instance))).cause == "m is unwell: unhealthy for good"


async def test_a_bad_answer_now_and_then_is_no_suspicion() -> None:
    instance = Instance(limit=20)

    async def sometimes(host: str, port: int, question: Question) -> Answer:
        answer = await instance.ask(host, port, question)
        return Answer(503, body=b"busy") if len(instance.asked) % SUSPICIOUS else answer

    tested = Watch(Engine(), Job("m", ("engine",), 1), sometimes, {}, look_s=0.0)  # type: ignore[arg-type]
    await nothing_found(tested, instance.enough)
    assert TOKEN.path not in instance.asked


async def test_requests_that_fail_in_a_row_ask_for_a_second_opinion() -> None:
    instance = Instance({TOKEN.path: Answer(500, body=b"no generator")})
    tested = watch(instance)
    for _ in range(SUSPICIOUS):
        tested.over(Outcome.failed)
    assert "no generator" in (await found(tested)).cause
    assert instance.asked == [TOKEN.path]


async def test_a_good_request_forgives_and_a_client_that_leaves_does_not() -> None:
    instance = Instance({TOKEN.path: Answer(500, body=b"no generator")})
    tested = watch(instance)
    for outcome in (Outcome.failed, Outcome.failed, Outcome.done, Outcome.failed, Outcome.left, Outcome.failed):
        tested.over(outcome)
    await nothing_found(tested, instance.enough)
    tested.over(Outcome.failed)
    assert (await found(tested)).kind is FailureKind.crashed


async def test_an_engine_that_hangs_while_requests_run_is_found() -> None:
    instance = Instance({TOKEN.path: Answer(0)})
    failure = await found(watch(instance, {TicketId(1): lambda: 17}, quiet_s=0.02))
    assert "cannot make a token any more" in failure.cause
    assert CHEAP.path not in instance.asked, "a busy engine is not asked for its health"


async def test_an_answer_that_moves_is_left_alone() -> None:
    instance, moved, enough = Instance(), iter(range(10_000)), asyncio.Event()

    def count() -> int:
        number = next(moved)
        if number > 50:
            enough.set()
        return number

    await nothing_found(watch(instance, {TicketId(1): count}, quiet_s=0.02), enough)
    assert instance.asked == []


async def test_a_long_prefill_that_makes_a_token_elsewhere_is_forgiven() -> None:
    instance = Instance(limit=2)
    await nothing_found(watch(instance, {TicketId(1): lambda: 17}, quiet_s=0.01), instance.enough)
    assert set(instance.asked) == {TOKEN.path}


async def test_an_engine_without_a_cheap_question_is_watched_by_its_requests_only(monkeypatch: object) -> None:
    instance, engine = Instance({TOKEN.path: Answer(0)}), Engine()
    engine.asks = False
    tested = Watch(engine, Job("m", ("engine",), 1), instance.ask, {}, look_s=0.0)  # type: ignore[arg-type]
    looking = asyncio.ensure_future(tested.run())  # noqa: TID251 - awaited below
    for _ in range(10):
        await asyncio.sleep(0)
    assert instance.asked == []
    for _ in range(SUSPICIOUS):
        tested.over(Outcome.failed)
    async with asyncio.timeout(5):
        await looking


def test_what_looks_bad_is_looked_at_again_soon() -> None:
    async def story() -> float:
        instance = Instance({"/health": Answer(503, body=b"broken"), "/v1/chat/completions": Answer(500)})
        job = Job("m", ("engine",), 1)
        await Watch(Engine(), job, instance.ask, {}).run()  # type: ignore[arg-type]
        return asyncio.get_running_loop().time()

    assert run(story()) == LOOK_S + 2 * AGAIN_S


async def test_nobody_is_waited_for_longer_than_silence_is_suffered() -> None:
    limits: list[float] = []

    async def ask(host: str, port: int, question: Question) -> Answer:
        limits.append(question.timeout_s)
        return Answer(0, body=b"silent")

    watch = Watch(Engine(), Job("m", ("engine",), 1), ask, {}, look_s=0.0, quiet_s=0.25)  # type: ignore[arg-type]
    failure = await watch.run()
    assert "cannot make a token any more" in failure.cause
    assert limits == [0.25] * (SUSPICIOUS + 1)


async def test_a_whole_answer_is_given_more_time_and_not_for_ever() -> None:
    instance = Instance({TOKEN.path: Answer(0)})
    tested = watch(instance, {TicketId(1): lambda: None}, quiet_s=0.02)
    began = asyncio.get_running_loop().time()
    await found(tested)
    assert asyncio.get_running_loop().time() - began >= 0.02 * WHOLE_ANSWERS
