"""The durable log of names: one table, numbered from 1 without gaps in commit order.

There is one writer at a time, whatever the number of processes and machines: a transaction that appends takes
the write lock before it reads where the list ends. So a read of everything behind row n never misses a name
that commits late.

Every append writes a random stamp beside its names. The last row that a process holds is read again with each
exchange; a different row, or none, proves that the database has lost commits since (a standby was promoted
that lacked them, a back-up was restored). Version 1.0.0 writes no stamps; its rows are compared by name.
"""

import secrets
from collections.abc import Sequence
from typing import Protocol

# Position, name and stamp of one name. The stamp is None in rows that version 1.0.0 has written.
Row = tuple[int, str, str | None]

START: Row = (0, "", None)  # holds the place before the first row
FIRST_WIZARDS = ("Harry", "Ron", "Hermione")

# Seconds that one exchange may take, and how many of them it may wait for locks: long enough for another
# program's transaction. The database ends the wait by itself, so no session of a client that left goes on.
STORAGE_TIMEOUT = 4
LOCK_TIMEOUT = 3

# The number of names that a long list is read in at a time. Each chunk has its own timeout, and rendering one
# needs little memory (100,000 names at once: 7 MiB that the process would not give back).
READ_CHUNK = 1_000

# Creates the table for both databases. Tables of version 1.0.0 have the first two columns.
CREATE_TABLE = """CREATE TABLE IF NOT EXISTS wizards (
position integer NOT NULL PRIMARY KEY, name text NOT NULL, stamp text)"""
ADD_STAMP = "ALTER TABLE wizards ADD COLUMN stamp text"


class StorageError(Exception):
    """The database cannot be used as it is; the message says why."""


class HistoryLostError(StorageError):
    """The database lacks names that it had committed. Only a restart of the process can accept that."""


class Store(Protocol):
    """The log in one database.

    Calls of the same kind must not overlap; a read and an append may. They raise HistoryLostError,
    StorageError or what the driver raises. An append that fails or is cancelled may have been carried out, or
    still be; the next exchange tells. A store that was closed can be opened again, on any event loop.
    """

    where: str  # the database as messages name it: a file's absolute path, or a URL without secrets
    poll_seconds: float  # how often to look for names of other processes, if the list is followed

    async def open(self) -> None:
        """Create or upgrade the table; put the first wizards into an empty one."""

    async def read(self, after: Row) -> list[Row]:
        """Return the rows behind `after`, at most READ_CHUNK; fewer if no more exist."""

    async def append(self, names: Sequence[str], after: Row, limit: int) -> tuple[list[Row], int]:
        """Append the first of `names`, as far as the list stays within `limit` names, and commit.

        Return rows behind `after` as `read` does, and how many names were appended.
        """

    def is_current(self, last: Row) -> bool:
        """Whether `last` is known, without waiting, to be the last row that is committed."""

    async def close(self) -> None:
        """Close every connection. A cancellation may leave one open."""


def new_stamp() -> str:
    """Return a random stamp of 64 bits for the names of one append."""
    return secrets.token_hex(8)


def rows_behind(after: Row, found: list[Row]) -> list[Row]:
    """Return the rows of `found`, which were read from `after` on, that are behind it.

    Raises HistoryLostError if `after` is gone or another row, or if a row between others is missing.
    """
    known = found if after[0] else [START, *found]
    if not found or known[0] != after:
        raise HistoryLostError(f"row {max(after[0], 1):,} of the list is gone, or another one")
    if len(known) != known[-1][0] - after[0] + 1:  # they are in order, and no two positions are alike
        raise HistoryLostError(f"a row behind row {after[0]:,} of the list is missing")
    return known[1:]


def first_line(error: Exception) -> str:
    """Return the first line of what an error says."""
    if isinstance(error, TimeoutError):
        return "It gave no answer in time."
    return (str(error) or repr(error)).splitlines()[0]
