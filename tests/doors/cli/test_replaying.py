import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_router.core.events import Arrived, Configured, Event
from llm_router.core.story import write_json
from llm_router.core.words import HOST_DEVICE, Device, Model, ModelName, TicketId

Command = Callable[..., Any]
MODEL = Model(ModelName("qwen"))
DAY: tuple[Event, ...] = (
    Configured((MODEL, Model(ModelName("other"))), (Device(HOST_DEVICE, 10**9),)),
    Arrived(TicketId(1), MODEL.name),
)


@pytest.fixture
def journal(bare_home: Path) -> Path:
    path = bare_home / "journal.jsonl"
    path.write_text("".join(write_json(float(at), event) + "\n" for at, event in enumerate(DAY)))
    return path


def test_a_journal_is_told(run: Command, journal: Path) -> None:
    answer = run("replay", str(journal))
    assert answer.exit_code == 0
    first, second, third, *_ = answer.stdout.splitlines()
    assert "> Configured" in first
    assert "1.000 > Arrived 1 qwen" in second
    assert "1.000 < Check qwen#1 qwen" in third
    assert json.loads(run("replay", str(journal), "--json").stdout)["story"] == answer.stdout.splitlines()


def test_one_model_only(run: Command, journal: Path) -> None:
    told = run("replay", str(journal), "--model", "qwen").stdout
    assert "Arrived 1 qwen" in told
    assert run("replay", str(journal), "--model", "nobody").stdout == ""


def test_several_files_are_one_journal_and_standard_input_is_a_file(run: Command, journal: Path) -> None:
    lines = journal.read_text().splitlines(keepends=True)
    older = journal.with_suffix(".1")
    older.write_text(lines[0])
    journal.write_text(lines[1])
    assert "Check qwen#1" in run("replay", str(older), "-", stdin=lines[1]).stdout
    assert "Check qwen#1" in run("replay", str(older), str(journal)).stdout


def test_a_line_that_was_cut_off(run: Command, journal: Path) -> None:
    journal.write_text(journal.read_text()[:-5])
    answer = run("replay", str(journal))
    assert (answer.exit_code, answer.stdout.splitlines()[-1]) == (0, "the last line was cut off and is left out")


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"hello\n{}\n", "cannot replay "), (b"\xff\xfe", "it is not UTF-8 text"), (None, "No such file or directory")],
)
def test_what_is_no_journal(run: Command, bare_home: Path, content: bytes | None, said: str) -> None:
    path = bare_home / "x"
    if content is not None:
        path.write_bytes(content)
    answer = run("replay", str(path))
    assert (answer.exit_code, said in answer.stderr) == (1, True)
