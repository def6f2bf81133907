"""One exchange: waiting, asking, breaking off; and never a lease that is not given back."""

import asyncio
import gc
import weakref

import pytest

from fakes.backend import DONE, Talk, chunk
from fakes.roadside import post, roadside
from host.road.scripts import CHAT, STREAM, echo, endless, error_of, silence, stream
from llm_router.core.words import ModelName, Notice, Outcome, Reason, Refusal, Stage
from llm_router.host.road import exchange
from llm_router.wire import heads, order
from llm_router.wire.dialect import Dialect
from llm_router.wire.manners import Manners

# Waiting


@pytest.mark.slow
async def test_a_whole_answer_is_held_no_longer_than_the_limit() -> None:
    async with roadside(stream, hold=True, manners=Manners(hold_s=0.1)) as side:
        side.desk.news = Notice(ModelName("m"), Stage.loading, 3.0, percent=10.0, left_s=25.0)
        reply = await side.ask(CHAT)
        assert (reply.status, reply.header("retry-after")) == (503, "25")
        assert reply.json()["error"]["loading"]["percent"] == 10.0
        assert (len(side.desk.gone), side.desk.withdrawn) == (1, [])
        await side.ask(CHAT, "/v1/chat/completions", "x-router-task: title_generation")
        assert (len(side.desk.gone), len(side.desk.withdrawn)) == (1, 1), "nobody waits for that"


@pytest.mark.parametrize(
    ("headers", "background"),
    [(("x-router-task: title_generation",), True), (("x-router-task: ",), False), ((), True)],
)
async def test_background_requests_are_known(headers: tuple[str, ...], background: bool) -> None:
    prompt = "### Task:\nGenerate a concise, 3-5 word title"
    async with roadside(echo) as side:
        body = {"model": "m", "stream": False, "messages": [{"role": "user", "content": prompt}]}
        await side.ask(body, "/v1/chat/completions", *headers)
        assert side.desk.wishes[0].background is background


# Refusals


@pytest.mark.parametrize(
    ("reason", "after", "status"),
    [
        (Reason.queue_full, 3.0, 429),
        (Reason.load_failed, 20.0, 503),
        (Reason.load_failed, None, 503),
        (Reason.background, None, 503),
        (Reason.shutting_down, 5.0, 503),
    ],
)
async def test_a_refusal_known_at_once_is_an_http_error(reason: Reason, after: float | None, status: int) -> None:
    async with roadside(stream) as side:
        side.desk.refusal = Refusal(reason, ModelName("m"), after)
        reply = await side.ask(STREAM)
        assert (reply.status, reply.json()["error"]["code"]) == (status, reason.value.replace("load_", "model_load_"))
        assert reply.header("retry-after") == (None if after is None else str(int(after)))
        assert reply.header("x-should-retry") == ("false" if after is None else None)


async def test_unknown_models_are_told_the_nearest() -> None:
    async with roadside(stream) as side:
        reply = await side.ask({"model": "othr"})
        assert reply.status == 404
        assert "other" in reply.json()["error"]["message"]
        reply = await side.ask({"model": "othr"}, "/v1/messages")
        assert reply.json()["error"]["type"] == "not_found_error"


async def test_without_a_model_the_default_serves_else_it_is_an_error() -> None:
    async with roadside(echo) as side:
        reply = await side.ask({"messages": []})
        assert (reply.status, reply.json()["error"]["code"]) == (400, "model_missing")
        side.desk.default = "m"
        assert (await side.ask({"messages": []})).status == 200
        assert side.backend.requests[0].json()["model"] == "m"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b'{"a":' + b"[" * 100_000, "invalid_json"),
        (b'{"model": "\xff"}', "invalid_json"),
        (b"[1]", "invalid_request"),
        (b'{"model": 5}', "invalid_request"),
        (b'{"model": "m", "stream": "yes"}', "invalid_request"),
    ],
)
async def test_bad_bodies_are_400_and_the_next_request_works(body: bytes, code: str) -> None:
    async with roadside(echo) as side:
        client = await side.client()
        await client.send(post(body))
        reply = await client.read()
        assert (reply.status, reply.json()["error"]["code"]) == (400, code)
        await client.post(CHAT)
        assert (await client.read()).status == 200


async def test_a_body_that_proves_bad_after_the_grant_gives_the_lease_back() -> None:
    async with roadside(echo) as side:
        side.desk.dialect = Dialect(model_name="x")
        reply = await side.ask(b'{"\xff":1,"model":"m"}')
        assert (reply.status, reply.json()["error"]["code"]) == (400, "invalid_json")


# The engine


async def test_the_body_ends_after_done_even_if_the_engine_does_not() -> None:
    async def script(talk: Talk) -> None:
        await talk.events(chunk("hi", "stop"), DONE, end=False)
        await talk.gone.wait()

    async with roadside(script) as side:
        client = await side.client()
        for _ in range(2):
            await client.post(STREAM)
            assert (await client.read()).complete
        assert len(side.desk.released) == 2


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 300_000,
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx",
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
    ],
)
async def test_an_answer_that_is_none_is_a_502(data: bytes) -> None:
    async def script(talk: Talk) -> None:
        await talk.send(data)

    async with roadside(script) as side:
        reply = await side.ask(CHAT)
        assert (reply.status, reply.json()["error"]["code"]) == (502, "engine_answered_badly")


async def test_an_engine_that_is_not_there_is_a_502_in_the_end() -> None:
    async with roadside(stream, again_s=0.0) as side:
        side.desk.port = 1
        reply = await side.ask(STREAM)
        assert (reply.status, reply.json()["error"]["code"]) == (502, "engine_unreachable")
        assert {exchange.outcome for exchange in side.desk.released} == {Outcome.failed}
        assert len(side.desk.released) == 21


async def test_a_request_that_met_a_dead_engine_waits_for_the_next() -> None:
    async with roadside(stream, again_s=0.0) as side:
        side.desk.port = 1
        side.desk.at_release = lambda: setattr(side.desk, "port", side.backend.port)
        client = await side.client()
        await client.post(STREAM)
        assert (await client.read()).text() == "Hello"


async def test_an_engine_that_dies_of_a_request_is_asked_once_more_and_not_again() -> None:
    async def dies_at_once(talk: Talk) -> None:
        talk.abort()

    async with roadside(dies_at_once, again_s=0.0) as side:
        reply = await side.ask(CHAT)
        assert (reply.status, reply.json()["error"]["code"]) == (502, "engine_broke_off")
        assert len(side.backend.requests) == 2


@pytest.mark.parametrize("joined", [True, False])
async def test_only_what_the_engine_says_is_progress(joined: bool) -> None:
    ping, word = asyncio.Event(), asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.events(chunk("Hel"), end=False)
        await ping.wait()
        await talk.chunk(b": ping - now\r\n\r\n")
        await word.wait()
        await talk.chunk(chunk("lo", "stop"))
        await talk.chunk(DONE)
        await talk.send(b"0\r\n\r\n")

    async with roadside(script) as side:
        side.desk.dialect = Dialect(stream_only=frozenset({"/v1/chat/completions"}))
        client = await side.client()
        await client.post(CHAT if joined else STREAM)
        await side.until(lambda: any(waiter.moved() for waiter in side.desk.leases.values()))
        (waiter,) = side.desk.leases.values()
        before = waiter.moved()
        assert before
        ping.set()
        for exchange in list(side.road.exchanges):
            exchange.tick(asyncio.get_running_loop().time() + 1000.0)  # the router says something itself
        await asyncio.sleep(0.02)
        assert waiter.moved() == before
        word.set()
        assert (await client.read()).complete
        assert (waiter.moved() or 0) > before


async def test_an_answer_that_comes_whole_cannot_be_seen_to_move() -> None:
    async with roadside(silence) as side:
        client = await side.client()
        await client.post(CHAT)
        await side.until(lambda: bool(side.backend.requests))
        (waiter,) = side.desk.leases.values()
        assert waiter.moved() is None
        client.leave()
        await side.until(lambda: not side.desk.leases)


# The client


@pytest.mark.parametrize("commit_s", [0.0, 5.0])
async def test_a_client_that_leaves_while_it_waits_is_withdrawn(commit_s: float) -> None:
    async with roadside(stream, hold=True, commit_s=commit_s) as side:
        client = await side.client()
        await client.post(STREAM)
        await side.until(lambda: bool(side.desk.waiting))
        client.leave()
        await side.until(lambda: not side.desk.waiting)
        assert side.desk.withdrawn


@pytest.mark.parametrize("script", [silence, endless])
@pytest.mark.parametrize("body", [CHAT, STREAM])
async def test_a_client_that_leaves_ends_the_generation(script: object, body: object) -> None:
    async with roadside(script) as side:  # type: ignore[arg-type]
        client = await side.client()
        await client.post(body)
        await side.until(lambda: bool(side.backend.requests))
        client.leave()
        await side.until(lambda: side.backend.left == 1 and not side.desk.leases)
        assert side.desk.released[0].outcome is Outcome.left


async def test_a_client_of_a_joined_answer_that_leaves_ends_the_generation() -> None:
    async with roadside(endless) as side:
        side.desk.dialect = Dialect(stream_only=frozenset({"/v1/chat/completions"}))
        client = await side.client()
        await client.post(CHAT)
        await side.until(lambda: bool(side.backend.requests))
        client.leave()
        await side.until(lambda: side.backend.left == 1)


async def test_a_client_that_leaves_in_its_body_leaves_nothing_behind() -> None:
    async with roadside(stream, big_body=10) as side:
        for sent in (20, 120, 1000):
            client = await side.client()
            await client.send(post({"model": "m", "pad": "x" * 5000})[:sent])
            await asyncio.sleep(0)
            client.leave()
        await side.until(lambda: not side.road.connections())
        assert not side.desk.wishes


@pytest.mark.slow
async def test_a_client_that_leaves_between_two_tries_leaves_nothing_behind() -> None:
    async with roadside(stream, again_s=60.0) as side:
        side.desk.port = 1
        client = await side.client()
        await client.post(STREAM)
        await side.until(lambda: bool(side.desk.released))
        client.leave()
        await side.until(lambda: not side.road.exchanges)
        assert not side.desk.withdrawn


async def test_a_client_that_leaves_after_the_last_byte_is_no_loss() -> None:
    async with roadside(stream) as side:
        client = await side.client()
        await client.post(STREAM)
        await client.read()
        client.leave()
        assert side.desk.released[0].outcome is Outcome.done


@pytest.mark.slow
async def test_a_slow_reader_holds_the_engine_back() -> None:
    sent = 0

    async def flood(talk: Talk) -> None:
        nonlocal sent
        await talk.events(end=False)
        block = chunk("x" * 60_000)
        while not talk.gone.is_set() and sent < 100_000_000:
            await talk.chunk(block)
            sent += len(block)
            await asyncio.sleep(0)

    async with roadside(flood) as side:
        client = await side.client()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.post(STREAM)
        before = -1
        while before != sent or sent == 0:
            before = sent
            await asyncio.sleep(0.2)
        assert 0 < sent < 50_000_000
        client.leave()
        await side.until(lambda: not side.desk.leases)


# The end


async def test_a_shutdown_ends_what_runs_and_what_waits() -> None:
    async with roadside(endless) as side:
        running, waiting = await side.client(), await side.client()
        await running.post(STREAM)
        await running.read(lambda reply: bool(reply.pieces))
        side.desk.hold = True
        await waiting.post(CHAT)
        await side.until(lambda: bool(side.desk.waiting))
        side.road.end_all()
        assert error_of(await running.read())["code"] == "shutting_down"
        assert (await waiting.read()).status == 503


@pytest.mark.parametrize("asked", [CHAT, STREAM])
async def test_an_exchange_that_is_over_leaves_nothing_for_the_collector(asked: dict[str, object]) -> None:
    answer, begun = asyncio.Event(), asyncio.Event()

    async def script(talk: Talk) -> None:
        begun.set()
        await answer.wait()
        await (stream(talk) if asked is STREAM else echo(talk))

    async with roadside(script) as side:
        gc.disable()
        try:
            client = await side.client()
            await client.post(asked)
            await begun.wait()
            running = weakref.ref(next(iter(side.road.exchanges)))
            answer.set()
            await client.read()
            await side.until(lambda: bool(side.desk.released))
            assert running() is None, "a cycle of references keeps it until the collector comes"
            await client.close()
        finally:
            gc.enable()


@pytest.mark.parametrize(("where", "step"), [(exchange, "hear"), (order, "target_for"), (heads, "answer_headers")])
async def test_a_bug_of_ours_ends_one_exchange_with_an_error_and_nothing_else(
    where: object, step: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def bug(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    async with roadside(echo) as side:
        with monkeypatch.context() as patch:
            patch.setattr(where, step, bug)
            reply = await side.ask(CHAT)
        assert (reply.status, reply.json()["error"]["code"]) == (500, "router_fault")
        assert "a bug" in caplog.text
        assert (await side.ask(CHAT)).status == 200


async def test_a_bug_while_it_waits_takes_it_out_of_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    async with roadside(echo, hold=True) as side:
        client = await side.client()
        await client.post(STREAM)
        await side.until(lambda: bool(side.desk.waiting))
        monkeypatch.setattr(side.desk, "notice", lambda _ticket: 1 / 0)
        reply = await client.read()
        assert (reply.status, reply.json()["error"]["code"]) == (500, "router_fault")
        assert side.desk.withdrawn
        assert not side.desk.waiting
