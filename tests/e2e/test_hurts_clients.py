"""Clients that are slow, rude, broken or gone: they hurt themselves at most, and nothing of them stays."""

import asyncio
import contextlib
import json
import random
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import httpx2
import pytest

from support.router import RunningRouter, running, until
from support.wild import CHAT, SAYS, answer, files_open, memory, notes, quiet, say_so, wild, wish

pytestmark = pytest.mark.slow
MB: Final = 1024 * 1024


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRouter]:
    folder = tmp_path_factory.mktemp("router")
    with running(
        folder, wild(folder, {"one": (), "two": (), "never": (f"gate={folder / 'never'}", "chatty")})
    ) as router:
        with router.client() as client:
            assert answer(client, "one") == SAYS
        yield router
        assert "Traceback" not in router.log


@pytest.fixture
def client(router: RunningRouter) -> Iterator[httpx2.Client]:
    """A client that knows how to behave; after each test it is served, and nothing of the others is left."""
    with router.client() as client:
        files = files_without_engines(router, client)
        assert answer(client, "one") == SAYS
        yield client
        until(lambda: quiet(router), 3)
        assert answer(client, "one") == SAYS
        assert files_without_engines(router, client) == files


def files_without_engines(router: RunningRouter, client: httpx2.Client) -> int:
    """The router's open files, once what it keeps for its engines is gone with them."""
    for model in ("one", "two", "never"):
        client.post("/models/unload", json={"model": model})
    until(lambda: router.status()["instances"] == [], 5)
    counts = [files_open(router)]

    def settled() -> bool:
        counts.append(files_open(router))
        return len(set(counts[-5:])) == 1 and len(counts) > 5

    until(settled, 5)
    return counts[-1]


def connect(router: RunningRouter, receive: int = 0) -> socket.socket:
    """A bare connection; ``receive`` is the size of its window in bytes."""
    connection = socket.socket()
    if receive:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    connection.settimeout(10)
    host, port = router.url.removeprefix("http://").split(":")
    connection.connect((host, int(port)))
    return connection


def request(model: str, text: str = "hello", stream: bool = True) -> bytes:
    """A whole chat request as it goes over the wire."""
    body = json.dumps(wish(model, text, stream=stream)).encode()
    return b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (CHAT.encode(), len(body), body)


def read_until(connection: socket.socket, what: bytes) -> bytes:
    data = b""
    while what not in data:
        piece = connection.recv(65536)
        assert piece, f"it ended without {what!r}: {data[-300:]!r}"
        data += piece
    return data


def test_three_hundred_idle_and_a_hundred_slow_ones_stand_in_nobodys_way(
    router: RunningRouter, client: httpx2.Client
) -> None:
    before = memory(router)
    whole = request("one")
    with ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(connect(router))
        slow = [stack.enter_context(connect(router)) for _ in range(100)]
        # Half of them are in their head, half in their body.
        for at in range(0, len(whole) - 10, 20):
            for number, connection in enumerate(slow):
                if number % 2 or at < 60:
                    connection.sendall(whole[at : at + 20])
            if at % 60 == 0:
                assert answer(client, "one") == SAYS
        assert memory(router) - before < 16 * MB
        # One that goes on after all is served like any other.
        slow[1].sendall(whole[len(range(0, len(whole) - 10, 20)) * 20 :])
        assert b"[DONE]" in read_until(slow[1], b"[DONE]")


def test_a_client_that_never_reads_costs_a_bounded_memory_and_stops_its_engine_only(
    router: RunningRouter, client: httpx2.Client
) -> None:
    before = memory(router)
    port = router.status()["instances"][0]["port"]
    left = notes(router, "one").count("left")
    with connect(router, receive=4096) as connection, httpx2.Client(trust_env=False, verify=False) as engine:
        connection.sendall(request("one", "flood"))
        read_until(connection, b"I")

        def stands_still() -> bool:
            counts = []
            for _ in range(2):
                counts.append(engine.get(f"http://127.0.0.1:{port}/sent").json()["sent"])
                assert answer(client, "one") == SAYS
            return bool(counts[0] == counts[1] > 0)

        until(stands_still)
        assert memory(router) - before < 8 * MB
    until(lambda: notes(router, "one").count("left") == left + 1, 1.0)


@pytest.mark.parametrize("where", ["in the middle", "in the line"])
def test_a_client_that_half_closes_has_left(router: RunningRouter, client: httpx2.Client, where: str) -> None:
    with connect(router) as connection:
        connection.sendall(request("one" if where == "in the middle" else "never", "endless"))
        read_until(connection, b" on" if where == "in the middle" else b"event")
        assert not quiet(router)
        connection.shutdown(socket.SHUT_WR)
        until(lambda: quiet(router), 1.0)
        while connection.recv(65536):
            """What was on its way, then the end."""


def test_pipelined_requests_are_answered_in_turn(router: RunningRouter, client: httpx2.Client) -> None:
    with connect(router) as connection:
        connection.sendall(request("one") + b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n" + request("two", stream=False))
        told = read_until(connection, b"prompt_tokens")
    assert told.index(b"[DONE]") < told.index(b"current_model") < told.index(b"prompt_tokens")


def test_who_leaves_with_requests_in_the_pipe_takes_them_along(
    router: RunningRouter, client: httpx2.Client, tmp_path: Path
) -> None:
    asked = notes(router, "two").count("asked second")
    with connect(router) as connection:
        connection.sendall(request("one", f"hold {tmp_path / 'gate'}") + request("two", "second") * 3)
        read_until(connection, b'"I"')
    until(lambda: quiet(router), 2.0)
    say_so(tmp_path / "gate")
    assert answer(client, "two") == SAYS
    assert notes(router, "two").count("asked second") == asked


def test_a_megabyte_of_noise_in_random_pieces(router: RunningRouter, client: httpx2.Client) -> None:
    chance = random.Random(20)
    before = memory(router)
    for number in range(64):
        noise = chance.randbytes(16 * 1024)
        # A beginning that is right keeps the parser interested for longer.
        data = (b"", b"POST ", b"GET /v1/models HTTP/1.1\r\nhost: ", request("one")[:90])[number % 4] + noise
        with connect(router) as connection, contextlib.suppress(ConnectionError):
            while data:
                at = chance.randint(1, 4096)
                connection.sendall(data[:at])
                data = data[at:]
    assert answer(client, "one") == SAYS
    assert memory(router) - before < 16 * MB


def test_requests_with_bytes_changed_at_random(router: RunningRouter, client: httpx2.Client) -> None:
    chance = random.Random(21)
    answers = {400: 0, 200: 0}
    for _ in range(200):
        data = bytearray(request("one", stream=chance.random() < 0.5))
        for _ in range(chance.randint(1, 3)):
            data[chance.randrange(len(data))] = chance.choice((0, 10, 13, 32, 58, 34, 123, 255))
        with connect(router) as connection, contextlib.suppress(ConnectionError):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            told = b""
            while piece := connection.recv(65536):
                told += piece
            if told:
                status = int(told[9:12])
                assert status < 500, (bytes(data), told)
                answers[status] = answers.get(status, 0) + 1
    assert answers[400] > 20


def test_headers_without_end_are_cut_off(router: RunningRouter, client: httpx2.Client) -> None:
    before = memory(router)
    with connect(router) as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n")
        for number in range(1000):
            connection.sendall(b"x-%d: " % number + b"y" * 30_000 + b"\r\n")
        assert read_until(connection, b"head_too_large").startswith(b"HTTP/1.1 431 ")
        assert memory(router) - before < 8 * MB
        with contextlib.suppress(ConnectionError):
            while connection.recv(65536):
                """The end comes, though the request never did."""


class Caller:
    """One of many connections, with a mind of its own: asks, and leaves where chance will have it."""

    def __init__(self, router: RunningRouter, seed: int) -> None:
        self._chance = random.Random(seed)
        host, port = router.url.removeprefix("http://").split(":")
        self._address = (host, int(port))
        self.served = self.left = 0

    async def run(self, count: int) -> None:
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        for _ in range(count):
            connection = connection or await asyncio.open_connection(*self._address)
            if await self._ask(*connection):
                self.served += 1
            else:
                self.left += 1
                connection[1].transport.abort()
                connection = None
        if connection is not None:
            connection[1].close()
            await connection[1].wait_closed()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether it stayed to the end."""
        stream = self._chance.random() < 0.5
        data = request(self._chance.choice(("one", "one", "one", "two")), stream=stream)
        fate = self._chance.random()
        writer.write(data[: self._chance.randrange(len(data))] if fate < 0.1 else data)
        await writer.drain()
        if fate < 0.2:
            return False
        head = await reader.readuntil(b"\r\n\r\n")
        if fate < 0.3:
            return False
        assert head.startswith(b"HTTP/1.1 200"), head
        if b"chunked" in head:
            told = await reader.readuntil(b"0\r\n\r\n")
        else:
            length = next(
                int(line[16:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length: ")
            )
            told = await reader.readexactly(length)
        assert (b"[DONE]" if stream else SAYS.encode()) in told, told
        assert b'"error"' not in told, told
        return True


async def test_two_thousand_requests_over_two_hundred_connections_with_random_leaving(
    router: RunningRouter, client: httpx2.Client
) -> None:
    before = memory(router)
    callers = [Caller(router, seed) for seed in range(200)]
    async with asyncio.timeout(60):
        await asyncio.gather(*(caller.run(10) for caller in callers))
    assert sum(caller.served + caller.left for caller in callers) == 2000
    assert sum(caller.left for caller in callers) > 300
    until(lambda: quiet(router), 2.0)
    status = router.status()
    assert status["queue"] == []
    assert all(model["running"] == 0 and model["waiting"] == 0 for model in status["models"])
    assert all(instance["leases"] == 0 for instance in status["instances"])
    assert memory(router) - before < 24 * MB


def limited(soft: int, hard: int) -> tuple[str, ...]:
    """A command that runs another one with these limits of open files."""
    return ("sh", "-c", f'ulimit -Sn {soft}; ulimit -Hn {hard}; exec "$0" "$@"')


def test_the_usual_limit_of_a_shell_is_raised(tmp_path: Path) -> None:
    with (
        running(tmp_path, wild(tmp_path, {"one": ()}), through=limited(100, 1000)) as router,
        router.client() as client,
        ExitStack() as stack,
    ):
        for _ in range(300):
            stack.enter_context(connect(router))
        assert answer(client, "one") == SAYS


def test_a_crowd_under_a_hard_limit_leaves_the_router_what_it_needs(tmp_path: Path) -> None:
    """Nobody raises a hard limit. Those who are too many are turned away; those who are in are served, switches and all."""
    config = wild(tmp_path, {"one": (), "two": ()})
    with running(tmp_path, config, through=limited(80, 80)) as router, router.client() as client:
        assert answer(client, "one") == SAYS
        with ExitStack() as stack:
            told = Counter[bool]()
            for connection in [stack.enter_context(connect(router)) for _ in range(100)]:
                connection.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
                with contextlib.suppress(ConnectionError):
                    told[b"too_many_connections" in connection.recv(65536)] += 1
            assert told[True] > 50
            assert told[False] > 10
            for model in ("two", "one", "two"):
                assert answer(client, model) == SAYS
        with router.client() as late:
            until(lambda: late.get("/health").status_code == 200)
            assert answer(late, "one") == SAYS
        assert "Too many open files" not in router.log
        assert "Traceback" not in router.log
