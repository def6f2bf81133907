"""Whatever is sent one behind another, and however it is cut: each request gets its own answer, in order, or the
connection ends behind the first that ends it. Nothing hangs and nothing is swallowed."""

import asyncio
import contextlib
import json
from dataclasses import dataclass
from random import Random

import pytest

from fakes.backend import Talk
from fakes.roadside import Client, post, roadside
from llm_router.host.machine.tasks import Tasks

#: Bodies above this are received past the parser; here even small ones are.
BIG = 3000


@dataclass(frozen=True)
class Sent:
    """A request's bytes, the status and the ``id`` of its answer, and whether the connection ends behind it."""

    data: bytes
    status: int
    ident: str = ""
    last: bool = False


async def tells_id(talk: Talk) -> None:
    """Answers with the request's id and the length of what came, sometimes in pieces."""
    body = json.loads(talk.request.body)
    answer = json.dumps({"id": body["id"], "pad": len(body["pad"])}).encode()
    if body["chunked"]:
        await talk.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
        for letter in (answer[:5], answer[5:]):
            await talk.send(b"%x\r\n%b\r\n" % (len(letter), letter))
        await talk.send(b"0\r\n\r\n")
    else:
        await talk.json(json.loads(answer))


def _request(random: Random, ident: str) -> Sent:
    size = random.choice([0, 10, BIG - 200, BIG + 200, 5 * BIG, 100_000])
    body = {"model": "m", "id": ident, "pad": "x" * size, "chunked": random.random() < 0.5}
    match random.choice(
        ["small", "plain", "chunked", "closes", "page", "lost", "preflight", "unknown", "broken", "wrong"]
    ):
        case "small":
            return Sent(post({**body, "pad": ""}, "/v1/embeddings"), 200, ident)
        case "plain":
            return Sent(post(body, "/v1/embeddings"), 200, ident)
        case "chunked":
            return Sent(_in_chunks(json.dumps(body).encode(), random), 200, ident)
        case "closes":
            return Sent(post(body, "/v1/embeddings", "connection: close"), 200, ident, last=True)
        case "page":
            return Sent(b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n", 200)
        case "lost":
            return Sent(post(body, "/none"), 404)
        case "preflight":
            head = b"OPTIONS /v1/embeddings HTTP/1.1\r\nhost: a\r\norigin: http://localhost:3000\r\n"
            return Sent(head + b"access-control-request-method: POST\r\n\r\n", 204)
        case "unknown":
            return Sent(post({**body, "model": "another"}, "/v1/embeddings"), 404)
        case "broken":
            return Sent(post(b'{"model":' + b"x" * size, "/v1/embeddings"), 400)
        case _:
            return Sent(b"GET /v1/chat/completions HTTP/1.1\r\nhost: a\r\n\r\n", 405, last=True)


def _in_chunks(body: bytes, random: Random) -> bytes:
    parts = [b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"]
    at = 0
    while at < len(body):
        size = random.randint(1, max(2, len(body) // 3))
        parts.append(b"%x\r\n%b\r\n" % (len(body[at : at + size]), body[at : at + size]))
        at += size
    return b"".join((*parts, b"0\r\n\r\n"))


async def _send(client: Client, data: bytes, random: Random) -> None:
    """In pieces, at times with a pause between them in which the other side may read."""
    at = 0
    while at < len(data):
        size = random.choice([1, 7, 100, 1000, BIG, 20_000, len(data)])
        try:
            await client.send(data[at : at + size])
        except (ConnectionError, RuntimeError):  # the latter is uvloop's
            return  # it ended, as it may behind the last request
        at += size
        for _ in range(random.choice([0, 0, 1, 3])):
            await asyncio.sleep(0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
async def test_each_request_gets_its_answer_in_order(seed: int) -> None:
    random, tasks = Random(seed), Tasks("test")
    async with roadside(tells_id, big_body=BIG) as side:
        for turn in range(25):
            requests = [_request(random, f"{turn}-{number}") for number in range(random.randint(1, 6))]
            served = next((n + 1 for n, one in enumerate(requests) if one.last), len(requests))
            client = await side.client()
            sending = tasks.spawn("send", _send(client, b"".join(one.data for one in requests), random))
            for number, one in enumerate(requests[:served]):
                reply = await client.read()
                where = f"turn {turn}, request {number} of {[(it.status, len(it.data), it.last) for it in requests]}"
                assert reply.status == one.status, where
                assert reply.complete, where
                if one.ident:
                    assert reply.json()["id"] == one.ident, where
            await sending
            if served < len(requests) or requests[-1].last:
                assert await client.ended(), "nothing is served behind the last one"
            await client.close()
    await tasks.aclose()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
async def test_whoever_leaves_wherever_leaves_nothing_behind(seed: int) -> None:
    """That nothing is left is what the road's stage looks at when it ends."""
    random, tasks = Random(seed), Tasks("test")
    async with roadside(tells_id, big_body=BIG, hold=True) as side:
        granted = asyncio.Event()

        async def grant_some() -> None:
            while await granted.wait():
                for ticket in [ticket for ticket in side.desk.waiting if random.random() < 0.5]:
                    side.desk.grant(ticket)
                await asyncio.sleep(random.choice([0, 0.001]))

        granting = tasks.spawn("grant", grant_some())
        for turn in range(12):
            requests = [_request(random, f"{turn}-{number}") for number in range(random.randint(1, 5))]
            data = b"".join(one.data for one in requests)
            (granted.set if random.random() < 0.6 else granted.clear)()
            client = await side.client()
            sending = tasks.spawn("send", _send(client, data[: random.randint(0, len(data))], random))
            with contextlib.suppress(TimeoutError, ConnectionError):
                for _ in range(random.randint(0, len(requests) - 1)):
                    async with asyncio.timeout(0.02):
                        await client.read()
            await asyncio.sleep(random.choice([0, 0.001, 0.003]))
            client.leave()
            await sending
            await side.until(lambda: not side.road.connections())
            assert granted.is_set() or not side.desk.waiting
        granting.cancel()
    await tasks.aclose()
