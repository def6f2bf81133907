"""An engine's log, line by line: pieces, control codes, secrets, floods, truncation."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router.host.machine.logs import LogTail, clean


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "engine.log"


def append(log: Path, content: bytes) -> None:
    with log.open("ab") as file:
        file.write(content)


def test_before_the_file_exists_there_is_nothing(log: Path) -> None:
    tail = LogTail(log)
    assert tail.read_new() == []
    append(log, b"first\n")
    assert tail.read_new() == ["first"]


def test_a_line_comes_once_it_is_whole(log: Path) -> None:
    tail = LogTail(log)
    append(log, b"one\ntw")
    assert tail.read_new() == ["one"]
    append(log, b"o\n")
    assert tail.read_new() == ["two"]
    assert tail.read_new() == []
    assert tail.tail(5) == ("one", "two")
    assert tail.tail(1) == ("two",)
    assert tail.tail(0) == ()


def test_redraws_of_a_bar_are_lines_and_blank_ones_are_dropped(log: Path) -> None:
    append(log, b"\r 10%\r 50%\r\n\n  \nready\r\n")
    assert LogTail(log).read_new() == [" 10%", " 50%", "ready"]


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"\x1b[32mINFO\x1b[0m: up", "INFO: up"),
        (b"\x1b[2K\x1b[1A50%", "50%"),
        (b"\x1b]0;title\x07done", "done"),
        (b"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        (b"\x1b(Bplain", "plain"),
        (b"bell\x07 nul\x00 tab\t.", "bell nul tab\t."),
        ("\x9b31mü".encode(), "31mü"),
        (b"bad \xff byte", "bad \ufffd byte"),
        (b"cut \x1b[3", "cut 3"),
    ],
)
def test_control_codes_are_taken_out(raw: bytes, text: str) -> None:
    assert clean(raw) == text


def test_secrets_never_show(log: Path) -> None:
    append(log, b"--api-key sk-12 and sk-1\nYour API key is: abc\nx Your admin key is: def\n")
    tail = LogTail(log, secrets=["sk-1", "", "sk-12"])
    assert tail.read_new() == [
        "--api-key [redacted] and [redacted]",
        "Your API key is [redacted]",
        "x Your admin key is [redacted]",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "server_args=ServerArgs(model_path='m', api_key='{}', admin_api_key=None, port=30000)",
        "server_args={{'api_key': '{}', 'admin_api_key': '{}', 'port': 1}}",
        "non-default args: {{'api_key': ['{}'], 'port': 8000}}",
        '{{"api-key": "{}"}}',
        "running: llama-server -m x.gguf --api-key {} --port 8085",
        "python -m sglang.launch_server --api-key={} --admin-api-key={}",
        "api_key='{}",
    ],
)
def test_a_key_that_nobody_told_the_router_does_not_show_among_the_settings(log: Path, line: str) -> None:
    append(log, line.format("t0p", "t0p").encode() + b"\n")
    assert LogTail(log).read_new() == [line.format("[redacted]", "[redacted]")]


def test_settings_without_a_key_stay_as_they_are(log: Path) -> None:
    line = "ServerArgs(api_key=None, admin_api_key=None, tokenizer='x') api_key_file: keys, the monkey: 'chimp'"
    append(log, line.encode() + b"\n")
    assert LogTail(log).read_new() == [line]


def test_a_secret_at_the_cut_does_not_show_in_part(log: Path) -> None:
    append(log, b"x" * 8 + b"secret" + b"y" * 100 + b"\n")
    (line,) = LogTail(log, secrets=["secret"], max_line=10).read_new()
    assert line == "xxxxxxxx[r…"


def test_a_secret_split_by_colours_does_not_show(log: Path) -> None:
    append(log, b"sec\x1b[1mret\n")
    assert LogTail(log, secrets=["secret"]).read_new() == ["[redacted]"]


def test_an_endless_line_takes_no_endless_memory(log: Path) -> None:
    tail = LogTail(log, max_line=10)
    found = []
    for _ in range(20):
        append(log, b"x" * 1000)
        found += tail.read_new()
        assert len(tail._rest) <= 1040
    append(log, b"the end of it\nnext\n")
    assert found + tail.read_new() == ["x" * 10 + "…", "next"]


def test_only_the_last_lines_are_kept(log: Path) -> None:
    append(log, b"".join(b"%d\n" % number for number in range(500)))
    tail = LogTail(log, keep=200)
    assert len(tail.read_new()) == 500
    assert list(tail.lines) == [str(number) for number in range(300, 500)]


def test_a_flood_is_taken_in_bounded_pieces(log: Path) -> None:
    append(log, b"0123456789abcde\n" * 40_000)
    tail = LogTail(log)
    first = tail.read_new()
    assert len(first) == 256 * 1024 // 16
    assert len(first) + len(tail.finish()) == 40_000


def test_a_truncated_file_is_read_from_its_beginning(log: Path) -> None:
    append(log, b"old line\nhalf a li")
    tail = LogTail(log)
    tail.read_new()
    os.truncate(log, 0)
    assert tail.read_new() == []
    append(log, b"new\n")
    assert tail.read_new() == ["new"]
    assert list(tail.lines) == ["old line", "new"]


def test_the_end_brings_the_line_without_end(log: Path) -> None:
    append(log, b"one\nsegmentation fa")
    tail = LogTail(log)
    assert tail.finish() == ["one", "segmentation fa"]
    assert tail.finish() == []


def test_its_repr_says_where_it_stands(log: Path) -> None:
    append(log, b"one\n")
    tail = LogTail(log)
    tail.read_new()
    assert repr(tail) == f"<tail of {log} at 4, 1 lines>"


PIECES = st.lists(st.sampled_from([b"a", b"secret", b"\n", b"\r", b"\x1b[1m", b"\xc3\xbc", b"\xff", b"x" * 90, b" "]))


@given(PIECES, st.data())
def test_how_the_bytes_are_cut_changes_nothing(pieces: list[bytes], data: st.DataObject) -> None:
    content = b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)))))

    def lines(parts: list[bytes]) -> list[str]:
        tail = LogTail(Path("unread"), secrets=["secret"], max_line=20)
        return [line for part in [*parts, b"\n"] for line in tail._take(part)]

    whole = lines([content])
    assert lines([content[a:b] for a, b in zip([0, *cuts], [*cuts, len(content)], strict=True)]) == whole
    assert not any("secret" in line or "\n" in line or "\x1b" in line for line in whole)
    assert all(0 < len(line) <= 21 for line in whole)


def test_at_the_end_of_a_large_log_only_its_last_part_is_read(log: Path) -> None:
    """A dead engine's log of days must not stop everybody's streams while it is read."""
    tail = LogTail(log)
    append(log, b"begun\n")
    assert tail.read_new() == ["begun"]
    append(log, b"".join(b"%099d\n" % number for number in range(60_000)) + b"out of memory")
    found = tail.finish()
    assert 20_000 < len(found) < 22_000
    assert found[0] == f"{60_000 - len(found) + 1:099d}", "it begins with a whole line"
    assert found[-1] == "out of memory"
    assert tail.finish() == []


def test_what_nobody_has_read_for_long_is_passed_over(log: Path) -> None:
    tail = LogTail(log)
    append(log, b"".join(b"%099d\n" % number for number in range(60_000)))
    found = tail.latest()
    assert 2_000 < len(found) <= 256 * 1024 // 100
    assert found[-1] == f"{59_999:099d}"
    append(log, b"one\ntw")
    assert tail.latest() == ["one"]
    append(log, b"o\n")
    assert tail.latest() == ["two"]
    assert tail.latest() == []
    assert list(tail.lines)[-2:] == ["one", "two"]
