"""What people want to know later, in SQLite: every load with its phases, every exchange.

One thread owns the database; everybody else puts work into its queue and, where an answer is wanted, waits
for it on the loop. A database that cannot be opened or written costs the history, never a request.
"""

import asyncio
import contextlib
import json
import logging
import queue
import sqlite3
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from llm_router.host.desk import Exchange

log = logging.getLogger(__name__)
T = TypeVar("T")

SCHEMA: Final = (Path(__file__).parent / "schema.sql").read_text(encoding="utf-8")
#: The estimate of a load is the median of so many of the last ones.
REMEMBERED_LOADS: Final = 7
#: The oldest rows go when there are more than so many.
KEEP_LOADS: Final = 5_000
KEEP_EXCHANGES: Final = 200_000
#: Exchanges are gathered this long (seconds) and written together.
GATHER_S: Final = 1.0
#: A start or a page does not wait longer for what the history knows (seconds), however slow its disk is.
ANSWER_S: Final = 1.0
#: What is still to be written at the end gets so long (seconds).
CLOSE_S: Final = 5.0
#: Another program that writes to the file is waited for so long (seconds).
_LOCKED_S: Final = 0.5
_BROKEN: Final = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
#: Writes that wait while the disk is slow; beyond it the newest are dropped.
QUEUE_LENGTH: Final = 10_000


@dataclass(frozen=True, slots=True)
class Load:
    """One start of an engine. ``seconds`` from the start to the first token, ``phases`` seconds each.

    ``kind`` is ``start`` or ``wake``; ``cause`` is why it failed, ``None`` if it did not.
    """

    model: str
    revision: str
    kind: str
    seconds: float
    phases: Mapping[str, float]
    cause: str | None = None


class History:
    """The database at ``path``. Made by ``open``; ``close`` writes what is still queued."""

    def __init__(self, path: Path) -> None:
        """Raises ``sqlite3.Error`` or ``OSError`` if it cannot be opened. A file that is none, or broken, is set aside."""
        try:
            self._database = _opened(path)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode not in _BROKEN:
                raise
            aside = path.with_name(f"{path.name}.broken")
            _set_aside(path, aside)
            log.warning("cannot read the history %s: %s; it is now %s, and a new one begins", path, error, aside)
            self._database = _opened(path)
        self._path = path
        self._failing = False
        self._gathered: list[tuple[float, Exchange]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._work: queue.Queue[Callable[[sqlite3.Connection], None] | None] = queue.Queue(QUEUE_LENGTH)
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)
        self._thread.start()

    def record_load(self, load: Load) -> None:
        """Keep a load; returns at once."""
        now = time.time()
        self._write(lambda database: _insert_load(database, load, now))

    def record_exchange(self, exchange: Exchange) -> None:
        """Keep an exchange; returns at once. Call it within a running loop."""
        self._gathered.append((time.time(), exchange))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER_S, self._hand_over)

    async def expected(self) -> dict[tuple[str, str, str], float]:
        """The median seconds of the last good loads by (model, revision, kind). Empty if it cannot be read."""
        return await self._ask(_medians) or {}

    async def load_seconds(self, model: str, revision: str, kind: str = "start") -> list[float]:
        """The seconds of the last good starts (or wakes) of this model, the last one last."""
        return await self._ask(lambda database: _last_loads(database, model, revision, kind)) or []

    async def exchanges(self, limit: int) -> list[dict[str, object]]:
        """The newest exchanges, newest first, as plain mappings."""
        return await self._ask(lambda database: _newest(database, "exchanges", limit)) or []

    async def loads(self, limit: int) -> list[dict[str, object]]:
        """The newest loads, newest first, as plain mappings."""
        return await self._ask(lambda database: _newest(database, "loads", limit)) or []

    def close(self) -> None:
        """Write what is queued and close; a disk that hangs is not waited for."""
        self._hand_over()
        with contextlib.suppress(queue.Full):
            self._work.put(None, timeout=CLOSE_S)
        self._thread.join(timeout=CLOSE_S)

    def _hand_over(self) -> None:
        """Give the gathered exchanges to the thread, as one transaction."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        gathered, self._gathered = self._gathered, []
        if gathered:
            self._write(lambda database: _insert_exchanges(database, gathered))

    def _write(self, work: Callable[[sqlite3.Connection], None]) -> None:
        def writing(database: sqlite3.Connection) -> None:
            work(database)
            self._failing = False

        self._put(writing)

    def _put(self, work: Callable[[sqlite3.Connection], None]) -> bool:
        try:
            self._work.put_nowait(work)
        except queue.Full:
            self._report(f"more than {QUEUE_LENGTH} records wait for the disk")
            return False
        return True

    async def _ask(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        future: Future[T | None] = Future()

        def answer(database: sqlite3.Connection) -> None:
            try:
                result: T | None = work(database)
            except sqlite3.Error as error:
                self._report(str(error))
                result = None
            if future.set_running_or_notify_cancel():
                future.set_result(result)

        if not self._put(answer):
            return None
        try:
            async with asyncio.timeout(ANSWER_S):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            self._report(f"it has no answer within {ANSWER_S:.0f} s")
            return None

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                work(self._database)
            except sqlite3.Error as error:
                self._report(str(error))
                if self._database.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        self._database.execute("ROLLBACK")
        self._database.close()

    def _report(self, why: str) -> None:
        if not self._failing:
            log.warning("cannot write the history %s: %s; what happens meanwhile is not recorded", self._path, why)
        self._failing = True


def _opened(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=_LOCKED_S, check_same_thread=False, isolation_level=None)
    try:
        path.chmod(0o600)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")
        database.executescript(SCHEMA)
    except (sqlite3.Error, OSError):
        database.close()
        raise
    return database


def _set_aside(path: Path, aside: Path) -> None:
    """What SQLite keeps beside a database belongs to that one. An earlier one that was set aside goes."""
    path.replace(aside)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _insert_load(database: sqlite3.Connection, load: Load, now: float) -> None:
    database.execute(
        "INSERT INTO loads (at, model, revision, kind, seconds, phases, cause) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (now, load.model, load.revision, load.kind, load.seconds, json.dumps(dict(load.phases)), load.cause),
    )
    database.execute("DELETE FROM loads WHERE id <= (SELECT max(id) FROM loads) - ?", (KEEP_LOADS,))


def _insert_exchanges(database: sqlite3.Connection, gathered: list[tuple[float, Exchange]]) -> None:
    database.execute("BEGIN IMMEDIATE")
    database.executemany(
        "INSERT INTO exchanges (at, model, path, status, stream, outcome, waited, loaded, first_byte, total,"
        " prompt_tokens, completion_tokens, cached_tokens, tokens_per_s, estimated, request_id)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                at,
                exchange.model,
                exchange.path,
                exchange.status,
                exchange.stream,
                exchange.outcome.value,
                exchange.waited_s,
                exchange.loaded_s,
                exchange.first_byte_s,
                exchange.total_s,
                exchange.prompt_tokens,
                exchange.completion_tokens,
                exchange.cached_tokens,
                exchange.tokens_per_s,
                exchange.estimated,
                exchange.request_id,
            )
            for at, exchange in gathered
        ],
    )
    database.execute("DELETE FROM exchanges WHERE id <= (SELECT max(id) FROM exchanges) - ?", (KEEP_EXCHANGES,))
    database.execute("COMMIT")


def _medians(database: sqlite3.Connection) -> dict[tuple[str, str, str], float]:
    seconds: dict[tuple[str, str, str], list[float]] = {}
    for model, revision, kind, value in database.execute(
        "SELECT model, revision, kind, seconds FROM loads WHERE cause IS NULL ORDER BY id DESC"
    ):
        known = seconds.setdefault((model, revision, kind), [])
        if len(known) < REMEMBERED_LOADS:
            known.append(value)
    return {key: statistics.median(values) for key, values in seconds.items()}


def _last_loads(database: sqlite3.Connection, model: str, revision: str, kind: str) -> list[float]:
    rows = database.execute(
        "SELECT seconds FROM loads WHERE cause IS NULL AND kind = ? AND model = ? AND revision = ?"
        " ORDER BY id DESC LIMIT ?",
        (kind, model, revision, REMEMBERED_LOADS),
    ).fetchall()
    return [row[0] for row in reversed(rows)]


def _newest(database: sqlite3.Connection, table: str, limit: int) -> list[dict[str, object]]:
    cursor = database.execute(f"SELECT * FROM {table} ORDER BY id DESC LIMIT ?", (limit,))  # noqa: S608 - our own names
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]
