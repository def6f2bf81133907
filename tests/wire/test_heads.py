from llm_router.wire import heads


def test_a_request_head_is_written_anew() -> None:
    head = heads.request_head(
        b"POST",
        b"/v1/x?y=1",
        [
            (b"host", b"client"),
            (b"connection", b"keep-alive, X-Secret"),
            (b"x-secret", b"1"),
            (b"content-length", b"99"),
            (b"x-router-task", b"t"),
            (b"content-type", b"text/plain"),
            (b"x-kept", b"1"),
            (b"x-kept", b"2"),
        ],
        b"127.0.0.1:9",
        3,
        extra=heads.encoded((("Content-Type", "application/json"),)),
    )
    assert head == (
        b"POST /v1/x?y=1 HTTP/1.1\r\nhost: 127.0.0.1:9\r\nx-kept: 1\r\nx-kept: 2\r\n"
        b"content-type: application/json\r\ncontent-length: 3\r\n\r\n"
    )


def test_a_request_without_a_body_has_no_length_and_may_switch() -> None:
    head = heads.request_head(b"GET", b"/", [(b"upgrade", b"websocket")], b"h", None, upgrade=b"websocket")
    assert head == b"GET / HTTP/1.1\r\nhost: h\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n"


def test_an_answer_keeps_what_is_not_of_this_hop() -> None:
    lines = heads.answer_headers(
        [
            (b"content-type", b"application/json"),
            (b"transfer-encoding", b"chunked"),
            (b"access-control-allow-origin", b"*"),
            (b"set-cookie", b"a=b"),
            (b"x-llm-router-model", b"forged"),
            (b"connection", b"x-hop"),
            (b"x-hop", b"1"),
            (b"x-more", b"1"),
        ]
    )
    assert b"".join(lines) == (b"content-type: application/json\r\nx-more: 1\r\nx-content-type-options: nosniff\r\n")


def test_pages_of_engines_are_kept_apart_unless_trusted() -> None:
    page = [(b"content-type", b"Text/HTML; charset=utf-8"), (b"content-security-policy", b"default-src *")]
    assert b"content-security-policy: sandbox allow-scripts" in b"".join(heads.answer_headers(page))
    assert b"content-security-policy" not in b"".join(heads.answer_headers(page, trust_pages=True))


def test_status_lines_have_words_and_a_way_out() -> None:
    assert heads.status_line(404) == b"HTTP/1.1 404 Not Found\r\n"
    assert heads.status_line(599) == b"HTTP/1.1 599 Status\r\n"
    assert heads.status_line(9999).startswith(b"HTTP/1.1 502 ")


def test_words_of_a_header() -> None:
    assert heads.tokens(b"Keep-Alive, ,X") == [b"keep-alive", b"x"]
    assert heads.value_of([(b"a", b"1"), (b"a", b"2")], b"a") == b"1"
    assert heads.value_of([], b"a") == b""


def test_a_model_that_was_not_found_has_no_header() -> None:
    assert heads.own_lines("a1", "") == [b"x-request-id: a1\r\n"]
