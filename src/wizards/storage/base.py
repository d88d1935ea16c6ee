"""The durable log of names: one table, numbered from 1 without gaps in commit order.

There is one writer at a time, whatever the number of processes and machines: a transaction that appends
first takes the database's write lock, then reads what others have committed since, then adds its own
names behind it. So a reader that asks for "everything after n" can never miss a name that commits late.

SQLite and PostgreSQL run the same transactions; they differ in how one is run (see `sqlite` and
`postgresql`) and in the statement that takes the lock.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import sqlalchemy as sql

T = TypeVar("T")

FIRST_WIZARDS = ("Harry", "Ron", "Hermione")

# How long, in seconds, one exchange may wait for the database: long enough for another program's
# transaction, short enough that a stop, which waits for the exchange under way, stays under ten.
STORAGE_TIMEOUT = 5

# How many names a long list is read in at a time. Each portion has its own patience, and what rendering one
# needs for a moment stays small (100,000 names at once: 7 MiB that the process would not give back).
READ_CHUNK = 1_000

# Lets one writer in at a time. On SQLite anything less than IMMEDIATE would take the write lock only at
# the insert, and fail if another process has written since the read, whatever the busy timeout.
WRITE_LOCK = {
    "sqlite": "BEGIN IMMEDIATE",
    "postgresql": "LOCK TABLE wizards IN SHARE ROW EXCLUSIVE MODE",
}

# Lets one creator in at a time: on PostgreSQL two CREATE TABLE IF NOT EXISTS at once can collide.
# The number has to be one that no other application takes: it spells "wizards".
CREATE_LOCK = {
    "sqlite": "BEGIN IMMEDIATE",
    "postgresql": f"SELECT pg_advisory_xact_lock({int.from_bytes(b'wizards', 'big')})",
}

wizards = sql.Table(
    "wizards",
    sql.MetaData(),
    sql.Column("position", sql.Integer, primary_key=True, autoincrement=False),
    sql.Column("name", sql.Text, nullable=False),
)
# Made once: SQLAlchemy knows its compiled form then, and need not find out what each new object says (15 µs).
LENGTH = sql.select(sql.func.max(wizards.c.position))
APPEND = sql.insert(wizards)
ROWS_FROM = (
    sql.select(wizards.c.position, wizards.c.name)
    .where(wizards.c.position >= sql.bindparam("first"))
    .order_by(wizards.c.position)
)


class Store(ABC):
    """The log in one database.

    Calls must not overlap; the roster's lock sees to that. They raise whatever the driver raises. A call
    that fails or is cancelled may or may not have been carried out; the next one tells.
    """

    async def open(self) -> None:
        """Make the table with the first wizards in it, unless somebody has."""
        await self._run(_create)

    async def read(self, after: int) -> list[str]:
        """Return the names behind the first `after`, READ_CHUNK of them at most."""
        query = ROWS_FROM.limit(READ_CHUNK + bool(after))  # the last one that is known comes along
        return await self._run(partial(_names_after, after, query), writes=False)

    async def exchange(self, names: Sequence[str], after: int, limit: int) -> tuple[list[str], int]:
        """Append the first of `names`, as far as the log stays within `limit` names, and commit.

        Return every name behind the first `after`, the appended ones last, and how many were appended.
        """
        return await self._run(partial(_exchange, names, after, limit), writes=bool(names))

    def length(self) -> int | None:
        """Return how many names are committed, or None where that takes more than some microseconds."""
        return None

    @staticmethod
    def explain(error: Exception) -> str:
        """Return the first line of what an error says; later ones of SQLAlchemy's hold the statement."""
        return (str(error) or repr(error)).splitlines()[0]

    @abstractmethod
    async def close(self) -> None:
        """Let go of the database."""

    @abstractmethod
    async def _run(self, work: Callable[[sql.Connection], T], *, writes: bool = True) -> T:
        """Return what `work` returns, run in a transaction (one that `writes`, or a single SELECT)."""


def _create(connection: sql.Connection) -> None:
    connection.exec_driver_sql(CREATE_LOCK[connection.dialect.name])
    wizards.create(connection, checkfirst=True)
    if connection.scalar(LENGTH) is None:
        _append(FIRST_WIZARDS, 0, connection)


def _exchange(
    names: Sequence[str], after: int, limit: int, connection: sql.Connection
) -> tuple[list[str], int]:
    if names:
        connection.exec_driver_sql(WRITE_LOCK[connection.dialect.name])
    found = _names_after(after, ROWS_FROM, connection)
    length = after + len(found)
    fitting = names[: max(0, limit - length)]
    if fitting:
        _append(fitting, length, connection)
    return [*found, *fitting], len(fitting)


def _names_after(after: int, query: sql.Select[Any], connection: sql.Connection) -> list[str]:
    # The last row that is known already comes along, to show that it is still there.
    first = max(after, 1)
    rows = connection.execute(query, {"first": first}).all()
    if not rows or rows[-1].position != first + len(rows) - 1:  # they are in order, and no two are alike
        raise LookupError(f"row {first} of the list is gone; restart once the database is what it should be")
    names = [name for _, name in rows]
    return names[1:] if after else names


def _append(names: Sequence[str], after: int, connection: sql.Connection) -> None:
    rows = [{"position": position, "name": name} for position, name in enumerate(names, after + 1)]
    connection.execute(APPEND, rows)
