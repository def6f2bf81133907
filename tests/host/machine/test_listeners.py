"""The kernel's two ways to tell who listens say the same."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from llm_router.host.machine import listeners
from llm_router.host.machine.listeners import Listener


@pytest.fixture
def ours() -> Iterator[set[Listener]]:
    """Four listeners, and as many connections that are none."""
    with ExitStack() as stack:
        made = set()
        for family, host in [
            (socket.AF_INET, "127.0.0.1"),
            (socket.AF_INET, "0.0.0.0"),
            (socket.AF_INET6, "::1"),
            (socket.AF_INET6, "::"),
        ]:
            server = stack.enter_context(closing(socket.create_server((host, 0), family=family)))
            port = server.getsockname()[1]
            inode = int(Path(f"/proc/self/fd/{server.fileno()}").readlink().name[8:-1])
            made.add(Listener(socket.inet_pton(family, host), port, inode))
            stack.enter_context(closing(socket.create_connection(("::1" if ":" in host else "127.0.0.1", port))))
        yield made


def ports_of(found: set[Listener]) -> set[int]:
    return {listener.port for listener in found}


def test_the_kernel_tells_all_listeners(ours: set[Listener]) -> None:
    found = {listener for listener in listeners.listeners() if listener.port in ports_of(ours)}
    assert found == ours


def test_without_sock_diag_the_table_tells_the_same(ours: set[Listener], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "_NETLINK_SOCK_DIAG", 4711)
    found = {listener for listener in listeners.listeners() if listener.port in ports_of(ours)}
    assert found == ours


def test_a_refusal_of_the_kernel_is_an_error_that_falls_back(
    ours: set[Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "_SOCK_DIAG_BY_FAMILY", 19)
    with pytest.raises(OSError, match="sock_diag"):
        list(listeners._by_netlink(socket.AF_INET))
    assert ours <= set(listeners.listeners())


def test_a_kernel_without_ipv6_will_do(ours: set[Listener], monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_text

    def read_text(path: Path) -> str:
        if path.name == "tcp6":
            raise FileNotFoundError(path)
        return read(path)

    monkeypatch.setattr(Path, "read_text", read_text)
    found = {listener for listener in listeners._by_proc() if listener.port in ports_of(ours)}
    assert found == {listener for listener in ours if len(listener.address) == 4}
