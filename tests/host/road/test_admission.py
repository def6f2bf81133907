import pytest

from llm_router.host.road.admission import admit, judge, meant_for_engine
from llm_router.host.road.incoming import Request
from llm_router.host.road.road import Limits, Visitor, open_guard
from llm_router.wire.errors import Fault
from llm_router.wire.heads import Headers
from llm_router.wire.paths import Route, route


def request(*headers: tuple[bytes, bytes], method: bytes = b"POST", path: bytes = b"/v1/chat/completions") -> Request:
    return Request(route(path) or Route(b""), method, path, b"", [(b"host", b"localhost"), *headers])


def code(fault: Fault | None) -> str | None:
    return None if fault is None else fault.code


@pytest.mark.parametrize(
    ("version", "hosts", "url", "said"),
    [
        ("1.1", 1, b"/", None),
        ("1.0", 0, b"/", None),
        ("1.1", 1, b"http://a/x", None),
        ("1.1", 0, b"/", "bad_request"),
        ("1.0", 2, b"/", "bad_request"),
        ("1.1", 1, b"a:443", "bad_request"),
        ("2.0", 1, b"/", "http_version"),
        ("0.9", 1, b"/", "http_version"),
    ],
)
def test_what_every_request_must_be(version: str, hosts: int, url: bytes, said: str | None) -> None:
    assert code(judge(version, hosts, url)) == said


def test_who_is_let_in_is_known_by_its_head() -> None:
    one = request((b"x-request-id", b"abc"), (b"x-router-chat", b"7"), (b"origin", b"http://localhost"))
    assert admit(one, Limits(), open_guard) is None
    assert (one.ident, one.visitor, one.origin) == ("abc", Visitor("chat:7"), b"http://localhost")


@pytest.mark.parametrize("ident", [b"", b"x" * 129, b"a\tb", b"\xe9"])
def test_an_id_that_cannot_be_written_is_not_taken_over(ident: bytes) -> None:
    one = request((b"x-request-id", ident))
    assert admit(one, Limits(), open_guard) is None
    assert one.ident == ""


def test_what_is_refused_by_its_head() -> None:
    limits = Limits(max_body=10)
    assert code(admit(request((b"content-length", b"11")), limits, open_guard)) == "body_too_large"
    assert code(admit(request((b"content-length", b"10")), limits, open_guard)) is None
    assert code(admit(request((b"origin", b"https://evil.example")), limits, open_guard)) == "origin_not_allowed"
    assert code(admit(request(method=b"GET"), limits, open_guard)) == "method_not_allowed"
    assert code(admit(request(method=b"GET", path=b"/v1/audio/voices"), limits, open_guard)) is None


def test_the_guard_has_the_last_word() -> None:
    def guard(path: str, headers: Headers, peer: str) -> Visitor | Fault:
        return Fault(401, "invalid_key", "cannot let you in")

    assert code(admit(request(), Limits(), guard)) == "invalid_key"


@pytest.mark.parametrize(
    ("method", "url", "found"),
    [
        (b"POST", b"/v1/chat/completions", (b"/v1/chat/completions", b"")),
        (b"GET", b"/v1/audio/voices?model=m", (b"/v1/audio/voices", b"model=m")),
        (b"POST", b"http://a/v1/embeddings", (b"/v1/embeddings", b"")),
        (b"GET", b"/v1/models", None),
        (b"GET", b"/", None),
    ],
)
def test_requests_for_engines_are_known_by_their_address(
    method: bytes, url: bytes, found: tuple[bytes, bytes] | None
) -> None:
    for _ in range(2):  # the second time it may be known already
        one = meant_for_engine(method, url, [], {})
        assert (None if one is None else (one.path, one.query)) == found


def test_a_preflight_is_one_whatever_its_address() -> None:
    headers = [(b"origin", b"http://localhost"), (b"access-control-request-method", b"POST")]
    for url in (b"/v1/chat/completions", b"/v1/models"):
        one = meant_for_engine(b"OPTIONS", url, headers, dict(headers))
        assert one is not None
        assert one.route.path == b""
