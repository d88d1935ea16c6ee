"""The log in a PostgreSQL database, for processes on many machines.

An exchange is one message of several statements (PostgreSQL's simple query protocol), and so one round trip.
The server carries an append out by itself: the lock is held for no round trip, and a client that dies does
not keep it. Nothing is prepared or set for a session, so a pooler may run each exchange in another one.
"""

import logging
from collections.abc import Sequence

from psycopg import OperationalError
from psycopg.errors import InsufficientPrivilege, LockNotAvailable

from wizards.storage.base import (
    CREATE_TABLE,
    FIRST_WIZARDS,
    LOCK_TIMEOUT,
    READ_CHUNK,
    START,
    HistoryLostError,
    Row,
    StorageError,
    first_line,
    new_stamp,
    rows_behind,
)
from wizards.storage.postgresql_connection import PostgreSQLConnection, parse_url

logger = logging.getLogger(__name__)

# Any number that no other application locks: it spells "wizards". Unlike LOCK TABLE it asks for no privilege
# and does not wait for VACUUM. Version 1.0.0 locks the table instead, which excludes the INSERT below.
LOCK_KEY = int.from_bytes(b"wizards", "big")
SET_TIMEOUT = f"set_config('lock_timeout', '{LOCK_TIMEOUT}s', true)"
LOCK = f"""BEGIN ISOLATION LEVEL READ COMMITTED;
SELECT {SET_TIMEOUT}, pg_advisory_xact_lock({LOCK_KEY});
"""

# The last two columns: whether the role may append, and how many of the table's three columns there are.
FACTS = """SELECT pg_is_in_recovery(), current_setting('server_encoding'),
current_setting('synchronous_commit'), has_table_privilege(to_regclass('wizards')::oid, 'INSERT'),
(SELECT count(*) FROM pg_attribute WHERE attrelid = to_regclass('wizards')
AND attname IN ('position', 'name', 'stamp') AND NOT attisdropped)"""
PREPARE = f"{CREATE_TABLE}; ALTER TABLE wizards ADD COLUMN IF NOT EXISTS stamp text"

ROWS_FROM = """SELECT position, name, stamp FROM wizards
WHERE position >= %(position)s ORDER BY position LIMIT %(chunk)s"""
READ = f"SELECT pg_is_in_recovery(), {SET_TIMEOUT}; {ROWS_FROM}"

# In READ COMMITTED each statement sees what was committed when it began, so the INSERT sees the last row. It
# appends nothing if the caller's history is not the database's. The rows are sent without the lock.
APPEND = f"""{LOCK}
INSERT INTO wizards (position, name, stamp) SELECT length + turn, new.name, %(new_stamp)s
FROM (SELECT coalesce(max(position), 0) AS length FROM wizards) AS list,
unnest(%(names)s::text[]) WITH ORDINALITY AS new (name, turn)
WHERE length + turn <= %(limit)s AND (%(position)s = 0 OR EXISTS (SELECT FROM wizards
WHERE (position, name) = (%(position)s, %(name)s) AND stamp IS NOT DISTINCT FROM %(stamp)s));
COMMIT; {ROWS_FROM}"""  # noqa: S608  # nothing but constants goes in here


class PostgreSQLStore:
    """The log in the database at `url`, which may be any URL that libpq takes.

    Raises StorageError if libpq does not take it.
    """

    poll_seconds = 1.0  # takes an exchange

    def __init__(self, url: str) -> None:
        conninfo, self.where = parse_url(url)
        self._appends, self._reads = PostgreSQLConnection(conninfo), PostgreSQLConnection(conninfo)

    async def open(self) -> None:
        [[facts]] = await self._appends.run(FACTS)
        is_standby, encoding, synchronous_commit, may_append, columns = facts
        if is_standby:
            raise self._appends.refuse_standby()
        if encoding not in {"UTF8", "SQL_ASCII"}:  # a name that it lacks would fail the whole batch
            raise StorageError(f"its encoding is {encoding} and has to be UTF8")
        if synchronous_commit in {"off", "local"}:
            logger.warning("synchronous_commit is %s: acknowledged names may be lost.", synchronous_commit)
        if columns < 3:
            try:
                await self._appends.run(f"{LOCK}{PREPARE}; COMMIT")
            except InsufficientPrivilege as error:
                raise StorageError(f"{first_line(error)}. Its owner has to run: {PREPARE}") from error
        elif not may_append:
            raise StorageError("the role may not INSERT into the table wizards")
        [found] = await self._appends.run("SELECT 1 FROM wizards LIMIT 1")
        if not found:  # else no lock is taken: a process can start while appends wait for a standby
            await self.append(FIRST_WIZARDS, START, len(FIRST_WIZARDS))

    async def read(self, after: Row) -> list[Row]:
        try:
            return await self._read(after, self._reads)
        except LockNotAvailable:
            raise
        except (OperationalError, HistoryLostError):
            # The connection has died, or still leads to a server that is the primary no more.
            return await self._read(after, self._reads)

    async def append(self, names: Sequence[str], after: Row, limit: int) -> tuple[list[Row], int]:
        parameters = {"names": list(names), "new_stamp": new_stamp(), "limit": limit, **_bounds(after)}
        *_, appended, _, found = await self._appends.run(APPEND, parameters)
        try:
            return rows_behind(after, found), appended
        except HistoryLostError as error:
            self._appends.close()
            await self._read(after, self._appends)  # raises it again unless another connection knows better
            raise StorageError("the connection led to another server") from error

    async def _read(self, after: Row, link: PostgreSQLConnection) -> list[Row]:
        [[(is_standby, _)], found] = await link.run(READ, _bounds(after))
        if is_standby:
            raise link.refuse_standby()
        try:
            return rows_behind(after, found)
        except HistoryLostError:
            link.close()
            raise

    def is_current(self, last: Row) -> bool:  # noqa: ARG002  # only the server knows
        return False

    async def close(self) -> None:
        self._appends.close()
        self._reads.close()


def _bounds(after: Row) -> dict[str, object]:
    position, name, stamp = after
    # `after` comes along, unless it is no row.
    return {"position": position, "name": name, "stamp": stamp, "chunk": READ_CHUNK + bool(position)}
