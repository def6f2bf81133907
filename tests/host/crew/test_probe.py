"""The probe on virtual time: when it asks, what it believes, and that nothing keeps it waiting for ever."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest

from fakes.virtual_time import run
from llm_router.core.words import Failure, FailureKind
from llm_router.engines.engine import (
    Answer,
    Ended,
    Engine,
    Job,
    Judgement,
    LogFact,
    Question,
    Step,
    Verdict,
)
from llm_router.engines.llamacpp import LlamaCpp
from llm_router.host.crew.probe import Eyes, Limits, Proof, prove
from llm_router.host.crew.progress import Vitals

JOB = Job("alpha", ("llama-server",), 8085, path="/models/alpha.gguf")
SILENT = Answer(0, body=b"refused")
LOADING = Answer(503, body=b'{"error":{"message":"Loading model"}}')
TOKEN = Answer(200, body=b'{"choices":[{"finish_reason":"length","message":{"content":"I"}}]}')


LIMITS = Limits()


def now() -> float:
    return asyncio.get_running_loop().time()


@dataclass
class World:
    """A pretend instance. Times are in virtual seconds since the start.

    It listens from ``listens`` on and is able from ``able`` on; it ends at ``ends`` with ``code``. ``log`` holds
    lines by their time. ``answer`` may replace the answer to a path.
    """

    listens: float = 0.1
    able: float = 2.0
    ends: float | None = None
    code: int = 1
    log: Sequence[tuple[float, str]] = ()
    answer: dict[str, Callable[[], Answer]] = field(default_factory=dict)
    owned: Callable[[], bool | None] = lambda: True
    vitals: Callable[[], Vitals | None] = lambda: Vitals(now(), 0, 0)
    takes: dict[str, float] = field(default_factory=dict)
    asked: list[tuple[float, str]] = field(default_factory=list)
    told: list[tuple[float, str, float | None, float | None]] = field(default_factory=list)
    _read: int = 0

    async def ask(self, host: str, port: int, question: Question) -> Answer:
        assert (host, port) == ("127.0.0.1", 8085)
        self.asked.append((now(), question.path))
        await asyncio.sleep(self.takes.get(question.path, 0.001))
        if question.path in self.answer:
            return self.answer[question.path]()
        if now() < self.listens:
            return SILENT
        if now() < self.able:
            return LOADING
        bodies = {"/health": Answer(200), "/props": Answer(200, body=b'{"model_alias":"alpha"}')}
        return bodies.get(question.path, TOKEN)

    async def ended(self) -> Ended:
        await asyncio.sleep(self.ends if self.ends is not None else 10**6)
        return Ended(self.code)

    def lines(self) -> Sequence[str]:
        due = [line for moment, line in self.log if moment <= now()]
        new, self._read = due[self._read :], len(due)
        return new

    def news(self, phase: str, percent: float | None, left_s: float | None) -> None:
        self.told.append((now(), phase, percent, left_s))

    def eyes(self) -> Eyes:
        tail = lambda: [line for moment, line in self.log if moment <= now()]  # noqa: E731 - one expression
        return Eyes(self.ask, self.ended, self.lines, tail, lambda _port: self.owned(), self.vitals)

    def prove(
        self,
        *,
        engine: Engine | None = None,
        limits: Limits = LIMITS,
        history: Sequence[float] = (),
        weights: int | None = None,
        steps: Sequence[Step] | None = None,
        eyes: Eyes | None = None,
    ) -> tuple[Proof | Failure, float]:
        """The result and when it came."""

        async def story() -> tuple[Proof | Failure, float]:
            result = await prove(
                engine or LlamaCpp(),
                JOB,
                eyes or self.eyes(),
                limits=limits,
                history=history,
                weights=weights,
                news=self.news,
                steps=steps,
            )
            return result, now()

        return run(story())


def failed(result: tuple[Proof | Failure, float]) -> Failure:
    assert isinstance(result[0], Failure), result
    assert result[0].cause.startswith("cannot ")
    return result[0]


# -- how soon


@pytest.mark.parametrize("able", [0.13, 0.5, 2.9, 3.2, 17.03, 59.99])
@pytest.mark.parametrize("history", [[], [18.0], [60.0], [600.0]])
def test_from_able_to_proved_takes_at_most_150_ms(able: float, history: list[float]) -> None:
    """R21, whatever the history promised."""
    result, at = World(able=able).prove(history=history)
    assert isinstance(result, Proof)
    assert at - able <= 0.15


def test_a_log_that_says_near_is_believed_at_once() -> None:
    world = World(able=30.0, log=[(30.0, "main: model loaded")])
    result, at = world.prove(history=[100.0])
    assert isinstance(result, Proof)
    assert at - 30.0 <= 0.15


def test_it_asks_quickly_at_first_and_ten_times_a_second_later() -> None:
    world = World(able=30.0)
    world.prove(history=[30.0])

    def asked(start: float, end: float) -> int:
        return sum(start <= moment < end for moment, _ in world.asked)

    assert 30 <= asked(0, 1) <= 41
    assert 90 <= asked(10, 20) <= 101


# -- what it believes


def test_the_steps_are_walked_in_order() -> None:
    world = World()
    result, _ = world.prove()
    assert isinstance(result, Proof)
    paths = list(dict.fromkeys(path for _, path in world.asked))
    assert paths == ["/health", "/props", "/v1/chat/completions"]


def test_a_no_is_final_and_carries_the_log() -> None:
    world = World(log=[(0.0, "hello")], answer={"/props": lambda: Answer(200, body=b'{"role":"router"}')})
    failure = failed(world.prove())
    assert failure.kind is FailureKind.wrong_identity
    assert failure.tail == ("hello",)
    assert "/v1/chat/completions" not in [path for _, path in world.asked]


def test_a_question_instead_is_asked_at_once_and_not_counted() -> None:
    world = World(
        answer={"/props": lambda: Answer(404), "/v1/models": lambda: Answer(200, body=b'{"data":[{"id":"alpha"}]}')}
    )
    result, at = world.prove()
    assert isinstance(result, Proof)
    assert at < world.able + 0.15


def test_the_same_question_instead_is_not_a_busy_loop() -> None:
    question = Question("GET", "/health")
    step = Step("odd", question, lambda _answer: Judgement(Verdict.wait, instead=question))
    world = World()
    failed(world.prove(steps=[step], limits=Limits(total_s=5)))
    assert len(world.asked) < 300


def test_a_limited_step_fails_after_its_asks_with_growing_pauses() -> None:
    world = World(able=0.1, answer={"/v1/chat/completions": lambda: SILENT})
    result = world.prove()
    failure = failed(result)
    assert failure.kind is FailureKind.timeout
    assert "'first token'" in failure.cause
    times = [moment for moment, path in world.asked if path == "/v1/chat/completions"]
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert len(times) == 5
    assert pauses == sorted(pauses)
    assert sum(pauses) > 1


def test_an_asker_that_never_returns_counts_as_no_answer() -> None:
    world = World(able=0.1, takes={"/health": 10**5})
    failure = failed(world.prove(limits=Limits(total_s=50)))
    assert failure.kind is FailureKind.timeout
    asked = [moment for moment, _ in world.asked]
    assert len(asked) > 10
    assert asked[1] - asked[0] <= 4


# -- whose port it is


def test_a_stranger_on_the_port_is_never_believed() -> None:
    world = World(listens=0.0, able=0.0, owned=lambda: False)
    failure = failed(world.prove())
    assert failure.kind is FailureKind.port_in_use
    assert "8085" in failure.cause
    assert [path for _, path in world.asked] == ["/health"]


def test_one_look_that_comes_too_early_is_forgiven() -> None:
    looks = iter([False, True, True, True])
    result, _ = World(owned=lambda: next(looks)).prove()
    assert isinstance(result, Proof)


def test_a_port_that_changed_hands_before_the_proof_is_found_out() -> None:
    result = World(able=2.0, owned=lambda: now() < 1.0).prove()
    assert failed(result).kind is FailureKind.port_in_use


def test_where_nobody_can_know_the_owner_the_answers_count() -> None:
    result, _ = World(owned=lambda: None).prove()
    assert isinstance(result, Proof)


def test_a_log_that_names_another_port_fails_the_start() -> None:
    world = World(log=[(1.0, "main: server is listening on http://127.0.0.1:8086")])
    failure = failed(world.prove())
    assert failure.kind is FailureKind.port_in_use
    assert "listens on port 8086 instead of 8085" in failure.cause


# -- ends


@pytest.mark.parametrize("code", [1, 0, -9, -15])
def test_the_end_of_the_process_is_explained_at_once(code: int) -> None:
    line = "error loading model: unknown model architecture: 'wonka'"
    world = World(able=100, ends=1.0, code=code, log=[(0.99, line)])
    result = world.prove()
    assert result[1] == pytest.approx(1.0, abs=0.01)
    assert failed(result).kind is FailureKind.unsupported
    assert failed(result).tail == (line,)


def test_a_process_that_ends_with_its_first_token_is_dead() -> None:
    """Both in the same moment: what counts is that nobody could be granted."""
    world = World(able=0.0, ends=0.003)
    assert failed(world.prove()).kind is FailureKind.crashed


def test_a_line_that_shows_that_all_is_lost_ends_it() -> None:
    class Doomed(LlamaCpp):
        def read(self, line: str) -> LogFact | None:
            return LogFact(failure=Failure(FailureKind.out_of_memory, f"cannot go on: {line}"))

    world = World(able=100, log=[(4.0, "no memory")])
    result = world.prove(engine=Doomed())
    assert failed(result).cause == "cannot go on: no memory"
    assert 4.0 <= result[1] <= 4.2


def test_the_whole_start_is_bounded() -> None:
    result = World(able=10**5).prove(limits=Limits(total_s=30))
    failure = failed(result)
    assert failure.kind is FailureKind.timeout
    assert "not ready after 30 s (in phase: starting)" in failure.cause
    assert result[1] == pytest.approx(30.0)


def test_a_start_in_which_nothing_moves_is_given_up_after_the_phases_limit() -> None:
    still = Vitals(5.0, 10**9, 10**9)
    world = World(able=10**5, log=[(8.0, "load_tensors: loading model tensors")], vitals=lambda: still)
    result = world.prove(limits=Limits(total_s=600, silent_s=300, phases={"loading weights": 20}))
    failure = failed(result)
    assert failure.kind is FailureKind.timeout
    assert "nothing moved for 20 s in phase: loading weights" in failure.cause
    assert 28 <= result[1] <= 29


@pytest.mark.parametrize(
    "vitals",
    [
        lambda: Vitals(0.5 * now(), 0, 0),
        lambda: Vitals(0, int(2e6 * now()), 0),
        lambda: Vitals(0, 0, int(2e6 * now())),
    ],
    ids=["computes", "grows", "reads"],
)
def test_whatever_moves_is_not_given_up(vitals: Callable[[], Vitals]) -> None:
    result, _ = World(able=100.0, vitals=vitals).prove(limits=Limits(silent_s=10))
    assert isinstance(result, Proof)


def test_the_little_that_our_own_questions_move_does_not_count() -> None:
    world = World(able=10**5, vitals=lambda: Vitals(0.02 * now(), int(1000 * now()), int(5000 * now())))
    failure = failed(world.prove(limits=Limits(silent_s=10)))
    assert failure.kind is FailureKind.timeout
    assert "nothing moved for 10 s" in failure.cause


def test_being_cancelled_leaves_nothing_running() -> None:
    async def story() -> None:
        world = World(able=10**5)
        task = asyncio.get_running_loop().create_task(prove(LlamaCpp(), JOB, world.eyes()))
        await asyncio.sleep(1.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(story())


# -- what is told


def test_phases_are_told_as_they_come_and_their_times_are_kept() -> None:
    log = [
        (1.0, "load_tensors: loading model tensors"),
        (6.0, "llama_context: constructing"),
        (8.0, "warming up the model"),
    ]
    world = World(able=9.0, log=log)
    result, _ = world.prove()
    assert isinstance(result, Proof)
    assert list(dict.fromkeys(phase for _, phase, _, _ in world.told)) == [
        "starting",
        "loading weights",
        "allocating cache",
        "warming up",
    ]
    assert world.told[0][0] == 0.0
    assert {phase: round(seconds) for phase, seconds in result.phases.items()} == {
        "starting": 1,
        "loading weights": 5,
        "allocating cache": 2,
        "warming up": 1,
    }
    assert result.seconds == pytest.approx(sum(result.phases.values()))


def test_without_history_no_time_left_is_told() -> None:
    world = World(able=10.0)
    world.prove(weights=10**9)
    assert {left for _, _, _, left in world.told} == {None}


def test_percent_comes_from_the_bytes_and_time_left_from_the_history() -> None:
    weights = 10**9
    log = [(0.0, "load_tensors: loading model tensors")]
    world = World(able=10.0, log=log, vitals=lambda: Vitals(0, int(weights * now() / 10), 0))
    world.prove(weights=weights, history=[10.0])
    middle = next(one for one in world.told if one[0] >= 5.0)
    assert middle[2] == pytest.approx(45, abs=10)
    assert middle[3] == pytest.approx(5, abs=1.5)
    percents = [percent for _, _, percent, _ in world.told if percent is not None]
    assert percents == sorted(percents)
    assert percents[-1] <= 99


def test_mere_progress_is_told_at_most_twice_a_second() -> None:
    world = World(able=10.0)
    world.prove(history=[10.0])
    assert len(world.told) <= 25


def test_an_answer_may_tell_of_progress() -> None:
    def judge(answer: Answer) -> Judgement:
        done = now() / 4 * 100
        return Judgement(Verdict.yes if done >= 100 else Verdict.wait, phase="loading modules", percent=min(done, 100))

    world = World()
    world.prove(steps=[Step("load", Question("GET", "/health"), judge)])
    assert ("loading modules", 50) in {(phase, round(percent or 0) // 10 * 10) for _, phase, percent, _ in world.told}


# -- a step whose answer is a stream


def stream_judge(answer: Answer) -> Judgement:
    if answer.status == 0:
        return Judgement(Verdict.wait)
    lines = [json.loads(line) for line in answer.body.decode().splitlines()]
    if lines and lines[-1] == "done":
        return Judgement(Verdict.yes)
    if lines and lines[-1] == "bad":
        return Judgement(Verdict.no, Failure(FailureKind.bad_file, "cannot load it"))
    return Judgement(Verdict.wait, percent=float(lines[-1]) if lines else None)


STREAM = Step("load", Question("POST", "/v1/model/load", timeout_s=60, stream=True), stream_judge, attempts=2)


def streamed(*lines: object, pause_s: float = 1.0) -> tuple[World, Eyes, list[str]]:
    world, closed = World(), []

    async def stream(_host: str, _port: int, _question: Question) -> AsyncGenerator[Answer, None]:
        body = b""
        try:
            for line in lines:
                await asyncio.sleep(pause_s)
                body += json.dumps(line).encode() + b"\n"
                yield Answer(200, body=body, complete=False)
            yield Answer(200, body=body)
        finally:
            closed.append("closed")

    return world, replace(world.eyes(), stream=stream), closed


def test_a_streamed_answer_is_judged_while_it_comes() -> None:
    world, eyes, closed = streamed(10, 50, "done", "never read")
    result, at = world.prove(steps=[STREAM], eyes=eyes)
    assert isinstance(result, Proof)
    assert at == pytest.approx(3.0)
    assert closed == ["closed"]
    assert [percent for _, _, percent, _ in world.told if percent] == [10, 50]


def test_an_error_in_a_stream_is_final() -> None:
    world, eyes, closed = streamed(10, "bad", 50)
    result = world.prove(steps=[STREAM], eyes=eyes)
    assert failed(result).cause == "cannot load it"
    assert result[1] == pytest.approx(2.0)
    assert closed == ["closed"]


def test_a_stream_that_stops_coming_is_no_answer() -> None:
    world, eyes, closed = streamed(10, 50, pause_s=100)
    failure = failed(world.prove(steps=[STREAM], eyes=eyes, limits=Limits(total_s=1000)))
    assert failure.kind is FailureKind.timeout
    assert closed == ["closed", "closed"]
