"""The log in an SQLite file, or in memory.

Transactions run in one thread of their own, one hop from the event loop for each: through aiosqlite
every statement takes several (measured: 210 µs an exchange here, 690 µs there). Whether there is anything
new is asked on the event loop, as that takes no time worth mentioning (see `wal_index`).
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import sqlalchemy as sql

from wizards.storage.base import LENGTH, STORAGE_TIMEOUT, Store, T
from wizards.storage.wal_index import LengthReader


class SQLiteStore(Store):
    """The log in the file that `url` names, or in memory where it names none."""

    def __init__(self, url: sql.URL) -> None:
        self._engine = sql.create_engine(
            # Driver-level autocommit: transactions that write begin with the store's BEGIN IMMEDIATE, and
            # Connection.begin() ends them with a commit or a rollback. A lone SELECT needs neither.
            url,
            connect_args={"timeout": STORAGE_TIMEOUT, "isolation_level": None},
            hide_parameters=True,
        )
        sql.event.listen(self._engine, "connect", _make_durable)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite")
        self._connection: sql.Connection | None = None  # the thread's own; a pool's costs 75 µs each time
        self._file = None if url.database in (None, "", ":memory:") else Path(url.database).resolve()
        self._reader: LengthReader | None = None
        self._length: int | None = None

    async def open(self) -> None:
        await super().open()
        if self._file and self._reader is None:
            self._reader = LengthReader(self._file, str(LENGTH))

    async def exchange(self, names: Sequence[str], after: int, limit: int) -> tuple[list[str], int]:
        found, appended = await super().exchange(names, after, limit)
        if not self._file:  # nobody else can see the list, let alone add to it
            self._length = after + len(found)
        return found, appended

    def length(self) -> int | None:
        return self._reader.length() if self._reader else self._length

    async def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown()

    async def _run(self, work: Callable[[sql.Connection], T], *, writes: bool = True) -> T:  # noqa: ARG002
        def run() -> T:
            self._connection = self._connection or self._engine.connect()
            with self._connection.begin():
                return work(self._connection)

        return await asyncio.get_running_loop().run_in_executor(self._thread, run)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._engine.dispose()


def _make_durable(connection: sqlite3.Connection, _: object) -> None:
    _switch_to_wal(connection)
    connection.execute("PRAGMA synchronous=FULL")  # in WAL mode anything less syncs at checkpoints only


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    # Of several processes that switch a new file at the same moment all but one are refused at once: the
    # busy timeout does not hold for a reader that wants to become a writer.
    latest = time.monotonic() + STORAGE_TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > latest:
                raise
            time.sleep(0.01)  # in the store's own thread
        else:
            return
