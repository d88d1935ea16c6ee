"""The last row that is committed in an SQLite file, known without asking SQLite while no process commits.

In WAL mode the last step of a commit is to renew the header of the WAL-index, a file that every process with
the database open maps into its memory (https://sqlite.org/walformat.html#the_wal_index_file_format). The
header holds a checksum of the log so far and the log's salt: as long as the header is unchanged, so is the
list. Comparing it takes 0.1 µs. A SELECT takes 3, and lets other threads of the process take the interpreter.

A header that is being written at that moment either differs from the last one, or is still the last one; then
the commit is not acknowledged yet, and a read may come before it.
"""

import mmap
import os
from pathlib import Path
from sqlite3 import Connection

from wizards.storage.base import Row

HEADER_SIZE = 96  # bytes: two copies of 48

LAST_ROW = "SELECT position, name, stamp FROM wizards ORDER BY position DESC LIMIT 1"

_mapped: dict[tuple[int, int], mmap.mmap] = {}


class LastRowReader:
    """Tells the last row through a `connection` of its own to the database that `index` belongs to.

    Raises OSError if the index cannot be mapped.
    """

    def __init__(self, connection: Connection, index: Path) -> None:
        self._connection = connection
        self._index = _map(index)
        self._header = b""
        self._row: Row | None = None

    def is_last(self, row: Row) -> bool:
        """Whether `row` is the last one; also False if that is not known without waiting."""
        header = self._index[:HEADER_SIZE]
        if header != self._header:
            try:
                self._row = self._connection.execute(LAST_ROW).fetchone()
            except self._connection.Error:  # locked at this moment, or worse: the exchange will tell
                return False
            self._header = header  # read before the query, so no newer than its answer
        if self._row is not row and self._row == row:
            self._row = row  # so that the next comparison is quicker
        return self._row is row

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def _map(index: Path) -> mmap.mmap:
    # Never closed, and mapped once: closing any descriptor of a file drops all locks that the process holds
    # on it (POSIX, fcntl), and SQLite's are on this one.
    status = index.stat()
    key = status.st_dev, status.st_ino
    if key not in _mapped:
        _mapped[key] = mmap.mmap(os.open(index, os.O_RDONLY), HEADER_SIZE, prot=mmap.PROT_READ)
    return _mapped[key]
