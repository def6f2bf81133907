import json
from re import search
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router.core.commands import Command, Grant, Start
from llm_router.core.events import Arrived, Checked, Configured, Event, Gone, Proved, ShutdownAsked, Ticked
from llm_router.core.story import Line, StoryError, read_json, read_text, replay, tell, write_json, write_text
from llm_router.core.words import Device, DeviceId, InstanceId, Model, ModelName, TicketId

# Not a number is not equal to itself, and neither it nor infinity is JSON; no event has a use for them.
ANYTHING = st.one_of([st.from_type(kind) for kind in (*get_args(Event), *get_args(Command))]).filter(
    lambda what: not search(r"=-?(nan|inf)\b", repr(what))
)
MOMENTS = st.floats(allow_nan=False, allow_infinity=False)


@given(MOMENTS, ANYTHING)
def test_json_lines_are_read_as_they_were_written(at: float, what: Event | Command) -> None:
    line = write_json(at, what)
    assert "\n" not in line
    assert read_json(line) == Line(at, what)


@given(ANYTHING)
def test_readable_lines_are_read_as_they_were_written(what: Event | Command) -> None:
    assert read_text(write_text(what)) == what


@pytest.mark.parametrize(
    ("what", "text"),
    [
        (Arrived(TicketId(7), ModelName("qwen"), "ann", background=True), "Arrived 7 qwen caller=ann background=true"),
        (Arrived(TicketId(7), ModelName("7"), "ann b"), 'Arrived 7 "7" caller="ann b"'),
        (Gone(InstanceId("a#1"), frozenset({DeviceId("y"), DeviceId("x")})), "Gone a#1 dirty=[x,y]"),
        (Start(InstanceId("a#1"), ModelName("a"), (DeviceId("gpu0"),)), "Start a#1 a [gpu0]"),
        (Ticked(), "Ticked"),
    ],
)
def test_lines_are_for_reading(what: Event | Command, text: str) -> None:
    assert write_text(what) == text
    assert read_text(text) == what


def test_defaults_are_left_out() -> None:
    assert json.loads(write_json(1.5, Proved(InstanceId("a#1")))) == {"at": 1.5, "event": "Proved", "instance": "a#1"}
    assert json.loads(write_json(1.5, Grant(TicketId(1), InstanceId("a#1"))))["command"] == "Grant"


def test_a_story_says_who_spoke() -> None:
    assert tell(1.5, Ticked()) == "       1.500 > Ticked"
    assert tell(1.5, Grant(TicketId(1), InstanceId("a#1"))) == "       1.500 < Grant 1 a#1"


@pytest.mark.parametrize(
    "line", ["", "{", "[]", "7", '{"at": 1}', '{"at": "x", "event": "Ticked"}', '{"at":1,"event":"Nothing"}']
)
def test_what_is_no_line_of_a_journal_is_refused(line: str) -> None:
    with pytest.raises(StoryError, match="cannot read the journal's line"):
        read_json(line)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Nothing 7", "there is no event or command 'Nothing'"),
        ("Arrived 7", "model"),
        ("Arrived 7 a b c", "cannot read"),
        ("Arrived x a", "cannot read"),
        ("Arrived 7 a caller==", "cannot read"),
        ('Arrived 7 "a', "cannot read"),
    ],
)
def test_what_is_no_readable_line_is_refused(text: str, says: str) -> None:
    with pytest.raises(StoryError, match=says):
        read_text(text)


JOURNAL = [
    write_json(0.0, Configured((Model(ModelName("a")),), (Device(DeviceId("gpu0"), 16),))),
    write_json(1.0, Arrived(TicketId(1), ModelName("a"))),
    write_json(1.0, Start(InstanceId("a#1"), ModelName("a"), ())),
    "",
]


def test_a_journal_is_lived_through_again() -> None:
    told = list(replay(JOURNAL))
    assert told[1:] == [
        "       1.000 > Arrived 1 a",
        "       1.000 < Check a#1 a [gpu0]",
        "       1.000 < Tell a",
    ]


def test_a_last_line_that_was_cut_off_is_told_as_such() -> None:
    told = list(replay([*JOURNAL, JOURNAL[1][:20]]))
    assert told[-1] == "the last line was cut off and is left out"
    assert told[:-1] == list(replay(JOURNAL))


def test_a_broken_line_in_the_middle_is_an_error_with_its_number() -> None:
    with pytest.raises(StoryError, match="line 2"):
        list(replay([JOURNAL[0], "{", JOURNAL[1]]))


def test_a_file_begun_in_mid_run_is_told_from_there_and_said_to_be_approximate() -> None:
    head = write_json(0.5, read_json(JOURNAL[0]).what, again=True)
    assert read_json(head) == Line(0.5, read_json(JOURNAL[0]).what, again=True)
    told = list(replay([head, *JOURNAL[1:]]))
    assert told[0].startswith("approximate: the journal begins in mid-run")
    assert told[2:] == list(replay(JOURNAL))[1:]


def test_with_the_file_before_it_nothing_is_told_twice() -> None:
    head = write_json(0.5, read_json(JOURNAL[0]).what, again=True)
    assert list(replay([JOURNAL[0], head, *JOURNAL[1:]])) == list(replay(JOURNAL))


def test_a_later_run_is_lived_through_with_its_own_numbers() -> None:
    configured = Configured((Model(ModelName("a")),), (Device(DeviceId("gpu0"), 16),), serial=5)
    run = [
        write_json(0.0, configured),
        write_json(1.0, Arrived(TicketId(1), ModelName("a"))),
        write_json(2.0, Checked(InstanceId("a#6"))),
    ]
    alone = list(replay(run))
    assert "       2.000 < Start a#6 a [gpu0]" in alone
    cut = write_json(9.0, ShutdownAsked(keep_engines=False))
    for before in ([write_json(9.0, ShutdownAsked(keep_engines=False))], [cut[:20]]):
        both = list(replay([*run, *before, *run]))
        assert both[-len(alone) - 1 :] == ["another run of the router", *alone], "each run begins with nothing"
    with pytest.raises(StoryError, match="line 2"):
        list(replay([run[0], cut[:20], run[1], *run]))
