"""The router's lines look as people know them, and come out of a text exactly as they went in."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router.core.words import ModelName, Notice, Stage
from llm_router.wire import lines

M = ModelName("qwen-32b")
NEVER_SEEN = "\u2061\u2062\u2063\u2064"


def test_the_classic_lines_to_the_letter() -> None:
    assert lines.switching("M") == "🔄 Switching to M..."
    assert lines.loading("M", 15, 180, 38, 20) == "⏳ Loading M... 15s / 180s (38 %, about 20 s left)"
    assert lines.loading("M", 15.4) == "⏳ Loading M... 15s"
    assert lines.loading("M", 15, 180, left_s=-1) == "⏳ Loading M... 15s / 180s (about 0 s left)"
    assert lines.ready("M", 42.2) == "✅ M ready (42s)"
    assert lines.ready("M", 0.42) == "✅ M ready (0.4s)"
    assert lines.footer(128, 2.83, 45.2) == "⚡ 45.2 tok/s (128 tokens in 2.8s)"
    assert lines.footer(10, 4, estimated=True) == "⚡ 2.5 tok/s (~10 tokens in 4.0s)"
    assert lines.footer(0, 0) == "⚡ 0.0 tok/s (0 tokens in 0.0s)"


@pytest.mark.parametrize(
    ("place", "word"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (22, "22nd"), (112, "112th")]
)
def test_the_place_in_line(place: int, word: str) -> None:
    assert lines.queued("M", place, ("A", "B"), 40.2) == f"🕒 {word} in line for M, after A, B: about 40 s"
    assert lines.queued("M", place) == f"🕒 {word} in line for M"


@pytest.mark.parametrize(
    ("notice", "line"),
    [
        (Notice(M, Stage.queued, 1.0, place=2, ahead=(ModelName("A"), M)), "🕒 2nd in line for qwen-32b, after A"),
        (Notice(M, Stage.queued, 1.0), "🔄 Switching to qwen-32b..."),
        (Notice(M, Stage.draining, 1.0, place=3), "🔄 Switching to qwen-32b..."),
        (Notice(M, Stage.stopping, 1.0), "🔄 Switching to qwen-32b..."),
        (Notice(M, Stage.starting, 1.0), "⏳ Loading qwen-32b... 0s / 180s"),
        (Notice(M, Stage.loading, 9.0, percent=38, running_s=7), "⏳ Loading qwen-32b... 7s / 180s (38 %)"),
        (Notice(M, Stage.waking, 9.0, left_s=2, running_s=1), "⏳ Loading qwen-32b... 1s / 180s (about 2 s left)"),
        (Notice(M, Stage.ready, 42.0), "✅ qwen-32b ready (42s)"),
    ],
)
def test_a_notice_in_words(notice: Notice, line: str) -> None:
    assert lines.told(notice, 180) == line


NAMES = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), min_size=1, max_size=12)
SECONDS = st.floats(0, 1e5)
MAYBE = st.none() | st.floats(0, 1e5)
WAITING = (
    st.builds(lines.switching, NAMES)
    | st.builds(lines.loading, NAMES, SECONDS, MAYBE, st.none() | st.floats(0, 100), MAYBE)
    | st.builds(lines.queued, NAMES, st.integers(1, 200), st.tuples(NAMES), MAYBE)
)
READY = st.builds(lines.ready, NAMES, SECONDS)
FOOTER = st.builds(lines.footer, st.integers(0, 10**6), SECONDS, MAYBE, estimated=st.booleans())
#: Texts that are full of what a careless cleaner would stumble over.
PIECES = st.sampled_from(
    [
        *NEVER_SEEN,
        lines.OPEN,
        lines.CLOSE,
        "⚡ ",
        "✅ ",
        "\n",
        "\n\n",
        "x",
        " ready (1s)",
        "⚡ 1.0 tok/s (1 tokens in 1.0s)",
    ]
)
HOSTILE = st.lists(PIECES | READY | FOOTER | st.text(max_size=3), max_size=14).map("".join)
ANSWERS = HOSTILE.map(lines.without)
PLAIN_ANSWERS = HOSTILE.map(lines.without_unmarked)


@given(st.text(st.characters(exclude_characters=NEVER_SEEN)))
def test_texts_of_others_are_never_changed(text: str) -> None:
    assert lines.without(text) == text


@given(ANSWERS, st.lists(WAITING, max_size=3), READY, FOOTER)
def test_what_goes_in_comes_out(answer: str, waiting: list[str], ready: str, footer: str) -> None:
    told = [*(lines.before(line) for line in waiting), lines.before(ready, last=True), answer, lines.after(footer)]
    assert lines.without("".join(told)) == answer


@given(PLAIN_ANSWERS, st.lists(WAITING, max_size=3), READY, FOOTER)
def test_what_goes_in_unmarked_comes_out_too(answer: str, waiting: list[str], ready: str, footer: str) -> None:
    told = [*(lines.before(line, marked=False) for line in waiting), lines.before(ready, last=True, marked=False)]
    assert lines.without_unmarked("".join([*told, answer, lines.after(footer, marked=False)])) == answer


@given(HOSTILE)
def test_cleaning_twice_is_cleaning_once(text: str) -> None:
    for clean in (lines.without, lines.without_unmarked):
        once = clean(text)
        assert clean(once) == once


@given(HOSTILE)
def test_only_whole_pieces_are_taken_out(text: str) -> None:
    """What is left of a text, without marks, can be read in the text in the same order."""
    rest = iter(text)
    assert all(letter in rest for letter in lines.without_unmarked(text))


@given(st.lists(WAITING, min_size=1, max_size=3), READY)
def test_a_trimmed_answer_that_never_came_is_empty(waiting: list[str], ready: str) -> None:
    told = "".join(lines.before(line, marked=False) for line in waiting)
    assert lines.without_unmarked(told[:-1]) == ""
    assert lines.without_unmarked(told + ready) == ""


@given(WAITING)
def test_trimming_does_not_harm_the_marks(line: str) -> None:
    told = lines.before(line, last=True)
    assert told.strip() == told
    assert not re.search(r"\s", lines.OPEN + lines.CLOSE)


def test_a_sentence_about_a_line_is_not_a_line() -> None:
    text = "It said ✅ M ready (42s)\n\nand ⚡ 45.2 tok/s (128 tokens in 2.8s)"
    assert lines.without_unmarked(text) == text
    assert lines.without_unmarked("✅ M ready soon\n\nHello") == "✅ M ready soon\n\nHello"


def test_a_line_in_the_middle_is_known_by_its_marks_only() -> None:
    line = lines.switching("M")
    assert lines.without(f"a{lines.before(line)}b") == "ab"
    assert lines.without_unmarked(f"a\n{line}\nb") == f"a\n{line}\nb"


def test_a_name_cannot_forge_a_mark() -> None:
    assert lines.without(lines.before(lines.switching(f"M{lines.CLOSE}")) + "a") == "a"


def test_nested_marks_cost_one_pass() -> None:
    nested = lines.OPEN * 100_000 + "x" + lines.CLOSE * 100_000
    assert lines.without(nested) == ""
    footers = "\n\n⚡ 1.0 tok/s (1 tokens in 1.0s)" * 20_000
    assert lines.without_unmarked(footers + "x") == footers + "x"
    assert lines.without_unmarked("✅ M ready (1s)\n\n" * 20_000 + "a" + footers) == "a"
