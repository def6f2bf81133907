"""Whose port it is, with real sockets on loopback addresses."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest

from llm_router.host.machine import ports

LISTEN = """
import socket, sys
s = socket.socket(); s.bind((sys.argv[1], 0)); s.listen(); print(s.getsockname()[1], flush=True); sys.stdin.read()
"""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with closing(socket.create_server(("127.0.0.1", 0))) as made:
        yield made


def port_of(listener: socket.socket) -> int:
    port: int = listener.getsockname()[1]
    return port


@pytest.fixture
def stranger() -> Iterator[tuple[int, int]]:
    """Another process that listens: its pid and port."""
    command = [sys.executable, "-ISc", LISTEN, "127.0.0.1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())
        process.kill()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1"])
def test_a_free_port_can_be_taken(host: str) -> None:
    port = ports.free_port(host)
    with closing(socket.create_server((host, port), family=ports._family(host))):
        assert ports.held_by(port) is not None


def test_an_address_of_another_machine_has_no_free_port() -> None:
    with pytest.raises(OSError, match="assign"):
        ports.free_port("192.0.2.1")


async def test_a_port_without_listener_is_refused(listener: socket.socket) -> None:
    port = port_of(listener)
    assert not await ports.is_refused("127.0.0.1", port)
    listener.close()
    assert await ports.is_refused("127.0.0.1", port)


async def test_silence_is_not_refusal() -> None:
    """A full backlog drops the attempt: somebody is there."""
    with closing(socket.socket()) as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        assert not await ports.is_refused("127.0.0.1", port_of(full), timeout_s=0.02)
        for one in waiting:
            one.close()


def test_our_own_port_is_ours(listener: socket.socket) -> None:
    assert ports.owned_by(port_of(listener), {os.getpid()}) is True
    assert ports.owned_by(port_of(listener), []) is False


def test_a_strangers_port_is_not_ours(stranger: tuple[int, int]) -> None:
    pid, port = stranger
    assert ports.owned_by(port, {os.getpid()}) is False
    assert ports.owned_by(port, {pid}) is True
    assert ports.owned_by(port, {pid, os.getpid()}) is True


def test_of_a_port_without_listener_nobody_knows(listener: socket.socket) -> None:
    port = port_of(listener)
    listener.close()
    assert ports.owned_by(port, {os.getpid()}) is None


def test_an_established_connection_is_no_listener(listener: socket.socket) -> None:
    with closing(socket.create_connection(listener.getsockname())) as client:
        client_port: int = client.getsockname()[1]
        assert ports.owned_by(client_port, {os.getpid()}) is None
        assert ports.held_by(client_port) is None


def test_who_died_owns_nothing(listener: socket.socket) -> None:
    assert ports.owned_by(port_of(listener), {2**22 + 1}) is False


def test_what_may_not_be_read_is_not_denied(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(path: str) -> list[str]:
        raise PermissionError(path)

    monkeypatch.setattr(os, "listdir", forbidden)
    assert ports.owned_by(port_of(listener), {os.getpid()}) is None
    assert ports._sockets(os.getpid()) is None


def test_the_nearer_address_answers(stranger: tuple[int, int]) -> None:
    """We listen everywhere on the stranger's port, but 127.0.0.1 is the stranger's, as the kernel sees it."""
    pid, port = stranger
    with closing(socket.create_server(("127.0.0.2", port))):
        assert ports.owned_by(port, {os.getpid()}, "127.0.0.1") is False
        assert ports.owned_by(port, {os.getpid()}, "127.0.0.2") is True
        assert ports.listener_pids(port) == {pid, os.getpid()}


@pytest.mark.parametrize("where", ["0.0.0.0", "::", "::1"])
def test_wildcards_answer_for_all(where: str) -> None:
    with closing(socket.create_server((where, 0), family=ports._family(where), dualstack_ipv6=where == "::")) as made:
        host = "::1" if where == "::1" else "127.0.0.1"
        assert ports.owned_by(port_of(made), {os.getpid()}, host) is True
        assert ports.owned_by(port_of(made), [], "localhost" if host == "127.0.0.1" else host) is False


def test_the_holder_is_named(stranger: tuple[int, int]) -> None:
    pid, port = stranger
    named = ports.held_by(port)
    assert named is not None
    assert f"(pid {pid} of " in named


def test_a_holder_that_may_not_be_looked_at_is_said_to_be_one(
    stranger: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "_sockets", lambda _: None)
    assert ports.held_by(stranger[1]) == "a process that this user may not look at"


def test_several_addresses_share_the_port_that_the_first_one_chose() -> None:
    bound = ports.bind_all(("127.0.0.1", "127.0.0.2", "::1"), 0)
    try:
        assert len({port_of(one) for one in bound}) == 1
        assert [one.getsockname()[0] for one in bound] == ["127.0.0.1", "127.0.0.2", "::1"]
    finally:
        for one in bound:
            one.close()


def test_a_further_address_may_come_up_later_but_not_the_first() -> None:
    nobodys = "192.0.2.1"  # kept for documentation, so no interface has it
    for one in ports.bind_all(("127.0.0.1", nobodys), 0):
        one.close()
    with pytest.raises(ports.BindError, match="cannot listen on 192"):
        ports.bind_all((nobodys, "127.0.0.1"), 0)


def test_if_one_address_is_taken_none_is_held(listener: socket.socket) -> None:
    port = port_of(listener)
    with pytest.raises(ports.BindError, match=f"127.0.0.1 port {port}"):
        ports.bind_all(("127.0.0.2", "127.0.0.1"), port)
    ports.bind("127.0.0.2", port).close()
