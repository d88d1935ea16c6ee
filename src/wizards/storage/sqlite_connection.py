"""One connection to SQLite in a thread of its own, and the library that it comes from.

All connections of a process come from one library: two would break each other's locks on the file.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from wizards.storage.base import LOCK_TIMEOUT

T = TypeVar("T")


def has_wal_reset_bug(version: tuple[int, ...]) -> bool:
    """Whether this SQLite can lose commits when another program checkpoints (https://sqlite.org/wal.html).

    Fixed in 3.51.3 and, for older branches, in 3.50.7 and 3.44.6.
    """
    return (
        version < (3, 51, 3) and not (3, 50, 7) <= version < (3, 51) and not (3, 44, 6) <= version < (3, 45)
    )


def _find_library() -> Any:
    # The package pysqlite3 is the standard library's module with a newer SQLite.
    if has_wal_reset_bug(sqlite3.sqlite_version_info):
        try:
            return import_module("pysqlite3.dbapi2")
        except ImportError:
            pass
    return sqlite3


library = _find_library()


class SQLiteConnection:
    """A connection to `file` in a thread of its own; both are made on first use, also after `close`."""

    def __init__(self, file: Path | str) -> None:
        self._file = file
        self._executor: ThreadPoolExecutor | None = None
        self._connection: sqlite3.Connection | None = None

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `work` returns. A cancellation does not stop it."""
        self._executor = self._executor or ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite")
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._run, work)

    async def close(self) -> None:
        """Close the connection when the work under way has ended, and end the thread."""
        if self._executor is not None:
            await asyncio.get_running_loop().run_in_executor(self._executor, self._disconnect)
            self._executor.shutdown()
            self._executor = None

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._connection is None:
            self._connection = _connect(self._file)
        return work(self._connection)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _connect(file: Path | str) -> sqlite3.Connection:
    connection: sqlite3.Connection = library.connect(file, timeout=LOCK_TIMEOUT, isolation_level=None)
    _switch_to_wal(connection)
    connection.execute("PRAGMA synchronous=FULL")  # in WAL mode anything less syncs at checkpoints only
    return connection


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    # Of several processes that switch a new file at the same moment all but one are refused at once: the
    # busy timeout does not hold for a reader that wants to become a writer.
    latest = time.monotonic() + LOCK_TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except library.OperationalError as error:
            if error.sqlite_errorcode != library.SQLITE_BUSY or time.monotonic() > latest:
                raise
            time.sleep(0.01)  # in the store's own thread
        else:
            return
