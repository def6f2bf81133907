import pytest

from llm_router.wire import access


@pytest.mark.parametrize(
    ("origin", "host", "origins", "yes"),
    [
        ("http://localhost:3000", "x", (), True),
        ("https://127.0.0.1", "x", (), True),
        ("http://[::1]:8080", "x", (), True),
        ("http://localhost.evil.example", "x", (), False),
        ("http://evil.example/http://localhost", "x", (), False),
        ("null", "x", (), False),
        ("null", "", (), False),
        ("http://workstation:8002", "workstation:8002", (), True),
        ("http://192.168.1.5:8002", "192.168.1.5:8002", (), True),
        ("http://box.local", "box.local", (), True),
        ("http://evil.example:8002", "evil.example:8002", (), False),
        ("https://chat.example", "x", ("https://chat.example",), True),
        ("https://any.example", "x", ("*",), True),
    ],
)
def test_who_may_use_the_router(origin: str, host: str, origins: tuple[str, ...], yes: bool) -> None:
    assert access.allowed(origin, host, origins) is yes


def test_a_preflight_is_answered_for_what_it_asks() -> None:
    asks = [(b"access-control-request-method", b"POST"), (b"access-control-request-private-network", b"true")]
    assert access.is_preflight(b"OPTIONS", asks)
    assert not access.is_preflight(b"OPTIONS", [])
    assert not access.is_preflight(b"POST", asks)
    lines = b"".join(access.preflight(b"http://localhost", asks))
    assert b"access-control-allow-origin: http://localhost\r\n" in lines
    assert b"access-control-allow-headers: authorization, content-type\r\n" in lines
    assert b"access-control-allow-private-network: true\r\n" in lines
