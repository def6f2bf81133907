import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router.wire import sse

EVENT = st.sampled_from(
    [b"data: {}\n\n", b"data: a\r\n\r\n", b": c\n\n", b"event: x\ndata: y\n\n", b"data: 1\ndata: 2\r\n\r\n", b"\n\n"]
)


@given(st.lists(EVENT, max_size=8), st.lists(st.integers(0, 120), max_size=20), st.sampled_from([b"", b"data: half"]))
def test_however_it_is_cut_only_whole_events_pass_and_all_do(blocks: list[bytes], cuts: list[int], rest: bytes) -> None:
    stream = b"".join(blocks) + rest
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    split = sse.Splitter()
    out = b""
    for begin, end in itertools.pairwise(edges):
        out += split.feed(stream[begin:end])
        # Empty lines before the first event are no event and no half of one.
        assert not out.strip(b"\r\n") or out.endswith((b"\n\n", b"\n\r\n"))
    assert out == b"".join(blocks)
    assert split.rest() == rest


def test_a_hostile_event_is_not_held_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "EVENT_LIMIT", 100)
    split = sse.Splitter()
    split.feed(b"x" * 90)
    with pytest.raises(sse.EventTooLongError):
        split.feed(b"x" * 11)


def test_the_parts_of_an_event() -> None:
    assert sse.payload(b"data: a\n\n") == b"a"
    assert sse.payload(b"data:a\r\n\r\n") == b"a"
    assert sse.payload(b"event: x\ndata: a\ndata: b\n\n") == b"a\nb"
    assert sse.payload(b": comment\n\n") is None
    assert sse.name(b"event: x\ndata: a\n\n") == b"x"
    assert sse.name(b"data: a\n\n") == b""
    assert list(sse.events(b"data: a\n\ndata: b\r\n\r\n")) == [b"data: a\n\n", b"data: b\r\n\r\n"]
    assert sse.named(b"x", sse.payload(sse.data(b"y")) or b"") == b"event: x\ndata: y\n\n"


@pytest.mark.parametrize(
    ("read", "ping"),
    [
        (b": ping - 2026-11-20\r\n\r\n", True),
        (b":\n\n", True),
        (b": keep-alive\n\n: keep-alive\n\n", True),
        (b": keep-alive\n\ndata: {}\n\n", False),
        (b"data: {}\n\n", False),
        (b'{"id": 1}', False),
        (b"", False),
    ],
)
def test_what_says_nothing_is_a_ping(read: bytes, ping: bool) -> None:
    assert sse.is_ping(read) is ping
