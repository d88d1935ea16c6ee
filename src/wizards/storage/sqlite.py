"""The log in an SQLite file, or in memory.

Transactions run in threads, one hop from the event loop for each exchange: through aiosqlite every statement
takes several (measured: 150 µs an exchange here, 690 µs there). Reads have a thread beside that of the
appends, so that they do not wait for another program's write lock. Whether there is anything new is asked on
the event loop, since that takes 0.1 µs (see `wal_index`).
"""

import logging
import os
import sqlite3
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from time import monotonic

from wizards.storage.base import (
    ADD_STAMP,
    CREATE_TABLE,
    FIRST_WIZARDS,
    READ_CHUNK,
    HistoryLostError,
    Row,
    StorageError,
    new_stamp,
    rows_behind,
)
from wizards.storage.sqlite_connection import SQLiteConnection, has_wal_reset_bug, library
from wizards.storage.wal_index import LAST_ROW, LastRowReader

logger = logging.getLogger(__name__)

ROWS_FROM = "SELECT position, name, stamp FROM wizards WHERE position >= ? ORDER BY position LIMIT ?"
APPEND = "INSERT INTO wizards (position, name, stamp) VALUES (?, ?, ?)"
HAS_STAMP = "SELECT 1 FROM pragma_table_info('wizards') WHERE name = 'stamp'"

# Seconds for which reads may miss that a file was removed. An append checks after its commit.
FILE_CHECK_INTERVAL = 1


class SQLiteStore:
    """The log in the file at `path`, which is taken as it stands, or in memory if it is empty."""

    poll_seconds = 0.1  # takes 0.1 µs if there are none

    def __init__(self, path: str) -> None:
        self._file = Path(path).resolve() if path else None  # SQLite takes no absolute path for a URI
        self.where = str(self._file or "sqlite://")
        # The path may be a link, which can be made to lead elsewhere; SQLite follows it only once.
        self._files = (Path(path).absolute(), f"{self._file}-wal", f"{self._file}-shm")
        self._appends = SQLiteConnection(self._file or ":memory:")
        self._reads = SQLiteConnection(self._file) if self._file else self._appends
        self._reader: LastRowReader | None = None
        self._last: Row | None = None  # of a list in memory
        self._identities: list[tuple[int, int]] = []
        self._next_check = 0.0

    async def open(self) -> None:
        try:
            await self._appends.run(_create)
        except library.OperationalError as error:
            if error.sqlite_errorcode & 0xFF == library.SQLITE_CANTOPEN:
                raise StorageError(f"{error}. Its folder has to exist and be writable") from error
            raise
        if self._file and self._reader is None:
            connection = library.connect(f"{self._file.as_uri()}?mode=ro", uri=True, timeout=0)
            self._reader = LastRowReader(connection, Path(f"{self._file}-shm"))
            self._identities = _identities(self._files)
            if has_wal_reset_bug(library.sqlite_version_info):
                logger.warning(
                    "SQLite %s can lose commits if another program checkpoints the file. 3.51.3 cannot.",
                    library.sqlite_version,
                )

    async def read(self, after: Row) -> list[Row]:
        rows = await self._reads.run(partial(_rows_behind, after))
        self._note(rows)
        return rows

    async def append(self, names: Sequence[str], after: Row, limit: int) -> tuple[list[Row], int]:
        rows, appended = await self._appends.run(partial(_append, names, after, limit))
        self._note(rows)
        return rows, appended

    def is_current(self, last: Row) -> bool:
        if self._reader is None:
            return self._last == last
        if monotonic() >= self._next_check:
            if _identities(self._files) != self._identities:
                return False  # the exchange will say why
            self._next_check = monotonic() + FILE_CHECK_INTERVAL
        return self._reader.is_last(last)

    async def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader = self._last = None
        await self._reads.close()
        await self._appends.close()

    def _note(self, rows: list[Row]) -> None:
        if self._file is None:
            self._last = rows[-1] if rows else self._last
        elif _identities(self._files) != self._identities:
            raise HistoryLostError(f"{self._file}, or the -wal or -shm beside it, was removed or replaced")


def _identities(files: Sequence[Path | str]) -> list[tuple[int, int]]:
    try:
        return [(status.st_dev, status.st_ino) for status in map(os.stat, files)]
    except OSError:  # one is gone
        return []


def _create(connection: sqlite3.Connection) -> None:
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(CREATE_TABLE)
        if connection.execute(HAS_STAMP).fetchone() is None:
            connection.execute(ADD_STAMP)
        # Fails if the file is read-only; the statements before do not if they have nothing to do.
        connection.execute("UPDATE wizards SET name = name WHERE false")
        if connection.execute(LAST_ROW).fetchone() is None:
            _insert(FIRST_WIZARDS, 0, connection)


def _append(
    names: Sequence[str], after: Row, limit: int, connection: sqlite3.Connection
) -> tuple[list[Row], int]:
    with connection:
        # Anything less would take the write lock only at the insert, and fail if another process has written
        # since the read, whatever the busy timeout.
        connection.execute("BEGIN IMMEDIATE")
        rows = _rows_behind(after, connection)
        is_complete = len(rows) < READ_CHUNK
        last = (rows or [after])[-1] if is_complete else connection.execute(LAST_ROW).fetchone()
        own = _insert(names[: max(0, limit - last[0])], last[0], connection)
    return [*rows, *own] if is_complete else rows, len(own)


def _insert(names: Sequence[str], length: int, connection: sqlite3.Connection) -> list[Row]:
    stamp = new_stamp()
    rows: list[Row] = [(position, name, stamp) for position, name in enumerate(names, length + 1)]
    connection.executemany(APPEND, rows)
    return rows


def _rows_behind(after: Row, connection: sqlite3.Connection) -> list[Row]:
    # `after` comes along, unless it is no row.
    return rows_behind(
        after, connection.execute(ROWS_FROM, (after[0], READ_CHUNK + bool(after[0]))).fetchall()
    )
