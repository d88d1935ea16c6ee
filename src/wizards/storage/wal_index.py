"""How many names an SQLite file holds, told without asking SQLite while nobody has committed.

In WAL mode the last thing a commit does is to renew the header of the WAL-index, a file that every process
with the database open maps into its memory (https://sqlite.org/walformat.html#the_wal_index_file_format).
The header holds a checksum of the log so far and the log's salt: as long as it is what it was, so is the
list. To compare it takes 0.1 µs. A SELECT takes 3, and lets other threads of a server take the interpreter.

A header that is just being written either differs from the one last seen, or is still that one; then the
commit has not been acknowledged, and a read may come before it.
"""

import mmap
import os
import sqlite3
from pathlib import Path

HEADER = 96  # bytes: two copies of 48

_mapped: dict[tuple[int, int], mmap.mmap] = {}


class LengthReader:
    """Tells how many names are committed (which `query` selects) in a `file` that SQLite has open as WAL.

    To make one raises OSError or sqlite3.Error where the file cannot be read.
    """

    def __init__(self, file: Path, query: str) -> None:
        self._query = query
        self._connection = sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=0)
        self._index = _map(Path(f"{file}-shm"))
        self._header = b""
        self._length = 0

    def length(self) -> int | None:
        """Return the number, or None where that cannot be told within some microseconds."""
        header = self._index[:HEADER]
        if header != self._header:
            try:
                rows: list[tuple[int]] = self._connection.execute(self._query).fetchall()
            except sqlite3.Error:  # locked just now, or worse: the exchange will tell
                return None
            self._header, self._length = header, rows[0][0]  # read before the query, so no newer than it
        return self._length

    def close(self) -> None:
        """Let go of the database."""
        self._connection.close()


def _map(index: Path) -> mmap.mmap:
    # Never closed, and mapped once: to close any descriptor of a file takes all locks away that the process
    # holds on it (POSIX, fcntl), and SQLite's are on this one.
    status = index.stat()
    key = status.st_dev, status.st_ino
    if key not in _mapped:
        _mapped[key] = mmap.mmap(os.open(index, os.O_RDONLY), HEADER, prot=mmap.PROT_READ)
    return _mapped[key]
