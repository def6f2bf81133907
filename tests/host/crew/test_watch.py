"""An engine that is healthy, slow, silent, failing or sick, as the watch sees it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest

from fakes.virtual_time import run
from llm_router.core.words import Failure, FailureKind, Outcome, TicketId
from llm_router.engines.engine import Answer, Job, Judgement, LogFact, Question, Step, Verdict
from llm_router.host.crew.progress import Vitals
from llm_router.host.crew.watch import AGAIN_S, COMPUTING, LOOK_S, QUIET_S, SUSPICIOUS, WHOLE_ANSWERS, Watch

TOKEN_S = 60.0
CHEAP, TOKEN = Question("GET", "/health"), Question("POST", "/v1/chat/completions", timeout_s=TOKEN_S)


def judge(answer: Answer) -> Judgement:
    if answer.status == 200:
        return Judgement(Verdict.yes)
    if answer.status == 0:
        return Judgement(Verdict.wait)
    return Judgement(Verdict.no, Failure(FailureKind.crashed, answer.body.decode()))


class Engine:
    """What a watch wants of an engine."""

    asks = True

    def watch(self, job: Job) -> Step | None:
        return Step("health", CHEAP, judge) if self.asks else None

    def steps(self, job: Job) -> tuple[Step, ...]:
        return (Step("ready", CHEAP, judge), Step("first token", TOKEN, judge))

    def read(self, line: str) -> LogFact | None:
        return LogFact(works=True) if line == "a batch of the prompt" else LogFact(phase=line)


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


# -- long prompts, on virtual time


@dataclass
class World:
    """An engine with one slot: while it answers somebody it makes no token for anybody else.

    ``sent`` are the bytes of each answer; ``cpu`` is the share of a core that it computes with, ``line`` what it
    logs at each look. ``well``: it answers its health check. ``refuses``: it refuses a token at once. ``then`` is
    called now and then with the time.
    """

    sent: dict[TicketId, int | None] = field(default_factory=dict)
    cpu: float = 0.0
    gpu: bool = False
    line: str = "POST /v1/chat/completions 200"
    well: bool = True
    refuses: bool = False
    then: Callable[[float], None] = lambda _now: None
    spent: float = 0.0
    asked: list[str] = field(default_factory=list)
    working: set[TicketId] = field(default_factory=set)
    leases: dict[TicketId, Callable[[], int | None]] = field(default_factory=dict)

    async def ask(self, host: str, port: int, question: Question) -> Answer:
        self.asked.append(question.path)
        if question.path == CHEAP.path and self.well:
            return Answer(200)
        if not self.refuses and (self.sent or not self.well):
            await asyncio.sleep(question.timeout_s)
            return Answer(0, body=b"silent")
        return Answer(0, body=b"refused") if self.refuses else Answer(200)

    def watch(self, quiet_s: float = QUIET_S) -> Watch:
        self.lease()
        return Watch(
            Engine(),  # type: ignore[arg-type]
            Job("m", ("engine",), 1),
            self.ask,
            self.leases,
            log=lambda: [self.line],
            vitals=lambda: Vitals(self.spent, 0, 0, self.gpu),
            works=self.working.update,
            quiet_s=quiet_s,
        )

    def lease(self) -> None:
        """A lease for each answer."""
        self.leases.clear()
        self.leases.update((ticket, partial(self.sent.get, ticket)) for ticket in self.sent)

    async def pass_time(self) -> None:
        while True:
            self.then(now())
            self.lease()
            await asyncio.sleep(0.5)
            self.spent += self.cpu * 0.5

    def found(self, within_s: float, *, failed: int = 0, quiet_s: float = QUIET_S) -> tuple[Failure, float] | None:
        """What is found and when, ``None`` if nothing is within so many seconds, after so many failed requests."""

        async def story() -> tuple[Failure, float] | None:
            passing = asyncio.ensure_future(self.pass_time())  # noqa: TID251 - cancelled below
            watch = self.watch(quiet_s)
            for _ in range(failed):
                watch.over(Outcome.failed)
            try:
                async with asyncio.timeout(within_s):
                    return await watch.run(), now()
            except TimeoutError:
                return None
            finally:
                passing.cancel()

        return run(story())


def now() -> float:
    return asyncio.get_running_loop().time()


ONE, TWO = TicketId(1), TicketId(2)
FOR_LONG = QUIET_S * COMPUTING / 2


@pytest.mark.parametrize("sign", [{"cpu": 0.5}, {"gpu": True}], ids=["processor", "GPU"])
@pytest.mark.parametrize("count", [0, 17, None], ids=["a prompt", "in the middle", "a whole answer"])
def test_an_engine_that_computes_is_left_alone_however_long_it_is_silent(
    sign: dict[str, Any], count: int | None
) -> None:
    world = replace(World({ONE: count}), **sign)
    assert world.found(FOR_LONG) is None
    assert world.asked == [], "not even asked"
    assert world.working == {ONE}, "the desk hears that its lease has not stalled"


def test_an_engine_whose_log_tells_of_its_work_is_left_alone_for_ever() -> None:
    world = World({ONE: 0}, line="a batch of the prompt")
    assert world.found(QUIET_S * COMPUTING * 1.5) is None
    assert world.asked == []
    assert world.working == {ONE}


def test_an_engine_that_hangs_is_found_though_lines_are_logged_of_those_who_come() -> None:
    world = World({ONE: 0})
    result = world.found(FOR_LONG)
    assert result is not None
    failure, at = result
    assert "cannot make a token any more" in failure.cause
    assert QUIET_S < at <= QUIET_S + TOKEN_S + 2 * LOOK_S
    assert world.working == set()


@pytest.mark.parametrize("sign", [{"cpu": 1.0}, {"gpu": True}], ids=["processor", "GPU"])
def test_an_engine_that_spins_while_it_hangs_is_found_too(sign: dict[str, Any]) -> None:
    world = replace(World({ONE: 0}), **sign)
    result = world.found(QUIET_S * COMPUTING * 2)
    assert result is not None
    assert QUIET_S * COMPUTING < result[1] < QUIET_S * (COMPUTING + 2)
    assert world.asked == [TOKEN.path]


def test_the_little_that_an_idle_server_computes_is_no_work() -> None:
    assert World({ONE: 0}, cpu=0.05).found(FOR_LONG) is not None


def test_an_answer_that_begins_while_a_token_is_waited_for_clears_the_engine() -> None:
    """The prompt was read in the meantime, and the token that was asked for stands in line behind the answer."""
    world = World({ONE: 0})

    def begin(moment: float) -> None:
        if moment > QUIET_S + 20.0:
            world.sent[ONE] = int(moment)

    world.then = begin
    assert world.found(FOR_LONG) is None
    assert world.asked == [TOKEN.path]


def test_an_engine_that_begins_to_compute_while_a_token_is_waited_for_is_left_alone() -> None:
    world = World({ONE: 0})

    def begin(moment: float) -> None:
        world.cpu = 1.0 if moment > QUIET_S + 10.0 else 0.0

    world.then = begin
    assert world.found(FOR_LONG) is None


@pytest.mark.parametrize("cpu", [0.0, 4.0])
def test_clients_who_leave_and_come_again_hide_no_hang(cpu: float) -> None:
    """Each waits half as long as silence is suffered; nobody gets a byte. What it computes in between is not for them."""
    world = World()

    def come_and_go(moment: float) -> None:
        turn, place = divmod(moment, QUIET_S / 2 + 10.0)
        world.sent = {TicketId(int(turn)): 0} if place < QUIET_S / 2 else {}
        world.cpu = 0.0 if world.sent else cpu

    world.then = come_and_go
    result = world.found(QUIET_S * 5)
    assert result is not None
    assert result[1] > QUIET_S


def test_what_it_computes_while_nobody_asks_excuses_nothing() -> None:
    result = World(cpu=4.0, well=False).found(FOR_LONG)
    assert result is not None
    assert result[1] <= LOOK_S + SUSPICIOUS * (AGAIN_S + CHEAP.timeout_s) + TOKEN_S


def test_who_refuses_a_token_at_once_is_not_busy() -> None:
    result = World({ONE: 0}, cpu=1.0, well=False, refuses=True).found(FOR_LONG, failed=SUSPICIOUS)
    assert result is not None
    assert result[1] <= LOOK_S


@pytest.mark.parametrize("quiet_s", [4.0, QUIET_S])
def test_who_fails_requests_while_it_reads_a_long_prompt_may_read_on(quiet_s: float) -> None:
    """A template that it cannot fill in, a request too large: it is asked for a token, which must wait."""
    world = World({ONE: 0}, cpu=1.0)
    assert world.found(quiet_s * 10, failed=SUSPICIOUS, quiet_s=quiet_s) is None
    assert world.asked == [TOKEN.path]


def test_who_hears_nothing_beside_others_who_do_is_worked_on() -> None:
    world = World({ONE: 0, TWO: 0})

    def stream(moment: float) -> None:
        world.sent[TWO] = int(moment * 100)

    world.then = stream
    assert world.found(FOR_LONG) is None
    assert world.asked == []
    assert world.working == {ONE}
