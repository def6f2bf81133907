import sqlite3
import threading
from pathlib import Path

import pytest

from llm_router.core.words import ModelName, Outcome, TicketId
from llm_router.host import history as module
from llm_router.host.desk import Exchange
from llm_router.host.history import History, Load


def load(seconds: float, model: str = "m", revision: str = "r", kind: str = "start", cause: str | None = None) -> Load:
    return Load(model, revision, kind, seconds, {"loading weights": seconds / 2}, cause)


def exchange(number: int) -> Exchange:
    return Exchange(
        ticket=TicketId(number),
        model=ModelName("m"),
        path="/v1/chat/completions",
        status=200,
        stream=True,
        outcome=Outcome.done,
        waited_s=1.5,
        loaded_s=1.0,
        first_byte_s=1.6,
        total_s=3.0,
        prompt_tokens=5,
        completion_tokens=7,
        tokens_per_s=5.0,
        request_id=f"req-{number}",
    )


async def test_the_estimate_is_the_median_of_the_last_good_loads_of_this_revision(tmp_path: Path) -> None:
    history = History(tmp_path / "history.db")
    for seconds in (100, 1, 2, 3, 4, 5, 6, 7):
        history.record_load(load(seconds))
    history.record_load(load(0.1, cause="out of memory"))
    history.record_load(load(9, revision="other"))
    history.record_load(load(2, kind="wake"))
    assert await history.expected() == {("m", "r", "start"): 4, ("m", "other", "start"): 9, ("m", "r", "wake"): 2}
    assert await history.load_seconds("m", "r") == [1, 2, 3, 4, 5, 6, 7]
    assert await history.load_seconds("m", "unknown") == []
    history.close()


async def test_it_is_still_there_after_a_restart(tmp_path: Path) -> None:
    history = History(tmp_path / "history.db")
    history.record_load(load(4))
    history.record_exchange(exchange(1))
    history.record_exchange(exchange(2))
    history.close()
    again = History(tmp_path / "history.db")
    assert await again.expected() == {("m", "r", "start"): 4}
    newest = await again.exchanges(1)
    assert newest[0]["request_id"] == "req-2"
    assert newest[0]["outcome"] == "done"
    assert newest[0]["completion_tokens"] == 7
    assert len(await again.loads(10)) == 1
    again.close()


async def test_old_rows_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEEP_LOADS", 3)
    monkeypatch.setattr(module, "KEEP_EXCHANGES", 4)
    history = History(tmp_path / "history.db")
    for number in range(10):
        history.record_load(load(number))
        history.record_exchange(exchange(number))
    history._hand_over()
    assert [row["seconds"] for row in await history.loads(100)] == [9, 8, 7]
    assert [row["request_id"] for row in await history.exchanges(100)] == ["req-9", "req-8", "req-7", "req-6"]
    history.close()


async def test_a_broken_table_costs_the_history_not_the_router(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    history = History(tmp_path / "history.db")
    other = sqlite3.connect(tmp_path / "history.db")
    other.execute("DROP TABLE loads")
    other.commit()
    other.close()
    history.record_load(load(1))
    assert await history.expected() == {}
    assert "cannot write the history" in caplog.text
    history.record_exchange(exchange(1))
    history._hand_over()
    assert len(await history.exchanges(10)) == 1
    history.close()


async def test_a_file_that_is_no_database_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    letter = b"this is not a database, it is a letter" * 100
    for name in ("history.db", "history.db-wal"):
        (tmp_path / name).write_bytes(letter)
    history = History(tmp_path / "history.db")
    history.record_load(load(4))
    assert await history.expected() == {("m", "r", "start"): 4}
    history.close()
    assert (tmp_path / "history.db.broken").read_bytes() == letter
    assert "it is now" in caplog.text


def test_a_history_that_cannot_be_opened_is_an_error_and_stays(tmp_path: Path) -> None:
    (tmp_path / "history.db").mkdir()
    with pytest.raises(sqlite3.OperationalError):
        History(tmp_path / "history.db")
    assert (tmp_path / "history.db").is_dir()


@pytest.mark.slow
async def test_another_who_holds_the_database_delays_nobody_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "ANSWER_S", 0.05)
    history = History(tmp_path / "history.db")
    other = sqlite3.connect(tmp_path / "history.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    history.record_load(load(1))
    assert await history.expected() == {}, "a write waits for the other one, and the question behind it"
    other.execute("ROLLBACK")
    other.close()
    history.record_load(load(2))
    monkeypatch.setattr(module, "ANSWER_S", 5.0)
    assert await history.expected() == {("m", "r", "start"): 1.5}
    assert caplog.text.count("cannot write the history") == 1
    history.close()


async def test_a_disk_that_is_full_is_said_once_whatever_is_read_meanwhile(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    history = History(tmp_path / "history.db")
    history._database.execute(f"PRAGMA max_page_count={history._database.execute('PRAGMA page_count').fetchone()[0]}")
    for _ in range(3):
        for number in range(200):
            history.record_exchange(exchange(number))
        history._hand_over()
        assert await history.expected() == {}
    assert caplog.text.count("database or disk is full") == 1
    history._database.execute("PRAGMA max_page_count=100000")
    history.record_load(load(3))
    assert await history.expected() == {("m", "r", "start"): 3}
    history.close()


async def test_more_work_than_the_disk_can_take_is_dropped_and_nobody_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "QUEUE_LENGTH", 1)
    history = History(tmp_path / "history.db")
    begun, go_on = threading.Event(), threading.Event()

    def hang(_: sqlite3.Connection) -> None:
        begun.set()
        go_on.wait()

    history._put(hang)
    begun.wait()
    history.record_load(load(1))
    assert await history.expected() == {}
    assert "wait for the disk" in caplog.text
    go_on.set()
    history.close()


def test_the_database_is_nobody_elses(tmp_path: Path) -> None:
    History(tmp_path / "history.db").close()
    assert (tmp_path / "history.db").stat().st_mode & 0o777 == 0o600
