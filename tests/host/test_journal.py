import asyncio
import errno
import logging
from functools import partial
from pathlib import Path

import pytest

from llm_router.host import journal as module
from llm_router.host.journal import Journal


async def test_lines_are_written_in_order_and_only_when_they_are_due(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    rendered: list[int] = []

    def line(number: int) -> str:
        rendered.append(number)
        return f'{{"n": {number}}}'

    for number in range(3):
        journal.write(partial(line, number))
    assert rendered == []
    journal.close()
    assert (tmp_path / "journal.jsonl").read_text() == '{"n": 0}\n{"n": 1}\n{"n": 2}\n'


async def test_it_writes_by_itself_after_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GATHER_S", 0.0)
    journal = Journal(tmp_path / "journal.jsonl")
    journal.write(lambda: "line")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (tmp_path / "journal.jsonl").read_text() == "line\n"
    journal.close()


async def test_a_busy_loop_does_not_pile_lines_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELD_LINES", 3)
    journal = Journal(tmp_path / "journal.jsonl")
    for number in range(3):
        journal.write(partial(str, number))
    assert (tmp_path / "journal.jsonl").read_text() == "0\n1\n2\n"
    journal.close()


async def test_files_are_bounded_and_rotated(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl", file_bytes=100, files=3)
    for number in range(50):
        journal.write(partial("{:020}".format, number))
        journal.flush()
    journal.close()
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["journal.jsonl", "journal.jsonl.1", "journal.jsonl.2"]
    assert all(file.stat().st_size <= 100 for file in files)
    assert (tmp_path / "journal.jsonl").read_text().splitlines()[-1] == f"{49:020}"


async def test_the_journal_is_nobody_elses(tmp_path: Path) -> None:
    Journal(tmp_path / "journal.jsonl").close()
    assert (tmp_path / "journal.jsonl").stat().st_mode & 0o777 == 0o600


async def test_a_full_disk_is_said_once_and_costs_lines_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "journal.jsonl")

    class Full:
        def write(self, text: str) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        def __getattr__(self, name: str) -> object:
            return lambda *_: 0

    good = journal._handler.stream
    monkeypatch.setattr(journal._handler, "stream", Full())
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            journal.write(lambda: "lost")
            journal.flush()
    assert [record.message for record in caplog.records] == [
        f"cannot write the journal {tmp_path / 'journal.jsonl'}: [Errno 28] No space left on device; it has a gap from here until there is room again"
    ]
    monkeypatch.setattr(journal._handler, "stream", good)
    journal.write(lambda: "kept")
    journal.close()
    assert (tmp_path / "journal.jsonl").read_text() == "kept\n"


async def test_a_file_begun_in_mid_run_has_a_head(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl", file_bytes=100, files=3)
    journal.begin_files_with(lambda: "head")
    for number in range(7):
        journal.write(partial("{:020}".format, number))
        journal.flush()
    journal.close()
    first, second = (tmp_path / "journal.jsonl.1").read_text(), (tmp_path / "journal.jsonl").read_text()
    assert first.splitlines()[0] == f"{0:020}"
    assert second.splitlines() == ["head", *(f"{number:020}" for number in range(4, 7))]


async def test_a_head_that_is_not_known_yet_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_text("an earlier run\n")
    journal = Journal(tmp_path / "journal.jsonl", file_bytes=30)
    journal.begin_files_with(str)
    for number in range(2):
        journal.write(partial("{:020}".format, number))
        journal.flush()
    journal.close()
    assert (tmp_path / "journal.jsonl").read_text() == f"{1:020}\n"
