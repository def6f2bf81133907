import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.admin_api import chunk, told
from llm_router.doors.cli.talking import Silence, Terminal, printable, receive


class Screen:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def waiting(self, words: str) -> None:
        self.seen.append(f"[{words}]")

    def text(self, words: str, *, thinking: bool) -> None:
        self.seen.append(f"({words})" if thinking else words)


def test_what_is_shown_when() -> None:
    screen = Screen()
    thought = {"choices": [{"delta": {"reasoning_content": "hm"}}]}
    reply = receive(
        [
            told("Loading"),
            told("ready", done=True),
            thought,
            chunk("a"),
            chunk("b", finish="stop"),
            told("fast", done=True),
        ],
        screen,
    )
    assert screen.seen == ["[Loading]", "[]", "(hm)", "a", "b", "[]"]
    assert (reply.text, reply.reasoning, reply.finish, reply.closing) == ("ab", "hm", "stop", "fast")
    assert reply.statuses == ("Loading", "ready", "fast")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "delta", "content", "event", "data", "type", "usage", "finish_reason", "description"]
            ),
            inner,
        )
    ),
    max_leaves=12,
)


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(["choices", "event", "usage"]), JSON)))
def test_any_chunk_is_passed_over_or_shown(chunks: list[dict[str, object]]) -> None:
    reply = receive(chunks, Silence())
    assert isinstance(reply.text, str)


def test_the_terminal_cannot_be_steered() -> None:
    assert printable("a\x1b[31m\tb\n\r\x9b") == "a�[31m\tb\n��"
    assert printable("⚡ 👩‍🚀 [bold]é") == "⚡ 👩‍🚀 [bold]é"


def test_the_passing_line_goes_to_standard_error_and_goes_away(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    screen = Terminal()
    screen.waiting("Loading [m]: 40 %")
    screen.waiting("")
    screen.text("think", thinking=True)
    screen.text("answer", thinking=False)
    shown = capsys.readouterr()
    assert shown.out == "answer"
    assert "Loading [m]: 40 %" in shown.err
    assert "think" in shown.err
