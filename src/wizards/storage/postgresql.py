"""The log in a PostgreSQL database, for processes on many machines.

An exchange is one message of several statements (PostgreSQL's simple query protocol), and so one round trip.
The server carries an append out by itself: the lock is held for no round trip, and a client that dies does
not keep it. Nothing is prepared or set for a session, so a pooler may run each exchange in another one.
"""

import asyncio
import logging
import select
from collections.abc import Mapping, Sequence
from typing import Any

from psycopg import AsyncClientCursor, AsyncConnection, OperationalError, ProgrammingError
from psycopg.abc import RV, PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.errors import InsufficientPrivilege
from psycopg.waiting import wait_async

from wizards.storage.base import (
    CREATE_TABLE,
    FIRST_WIZARDS,
    READ_CHUNK,
    START,
    STORAGE_TIMEOUT,
    HistoryLostError,
    Row,
    StorageError,
    first_line,
    new_stamp,
    rows_behind,
)

logger = logging.getLogger(__name__)

# Two seconds is the least that libpq takes, so that there is time for a second host.
DEFAULTS = {"connect_timeout": "2", "fallback_application_name": "wizards"}

# Any number that no other application locks: it spells "wizards". Unlike LOCK TABLE it asks for no privilege
# and does not wait for VACUUM. Version 1.0.0 locks the table instead, which excludes the INSERT below.
LOCK_KEY = int.from_bytes(b"wizards", "big")
LOCK = f"""BEGIN ISOLATION LEVEL READ COMMITTED;
SELECT set_config('lock_timeout', '{STORAGE_TIMEOUT - 1}s', true), pg_advisory_xact_lock({LOCK_KEY});
"""

# The last column tells how many of the table's three columns there are.
FACTS = """SELECT pg_is_in_recovery(), current_setting('server_encoding'),
current_setting('synchronous_commit'), (SELECT count(*) FROM pg_attribute
WHERE attrelid = to_regclass('wizards') AND attname IN ('position', 'name', 'stamp') AND NOT attisdropped)"""
PREPARE = f"{CREATE_TABLE}; ALTER TABLE wizards ADD COLUMN IF NOT EXISTS stamp text"

ROWS_FROM = """SELECT position, name, stamp FROM wizards
WHERE position >= %(position)s ORDER BY position LIMIT %(chunk)s"""
READ = f"SELECT pg_is_in_recovery(); {ROWS_FROM}"

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
        parameters = {**DEFAULTS, **_parse(url), "client_encoding": "utf8"}
        if "," in str(parameters.get("host", parameters.get("hostaddr", ""))):  # several: find the primary
            parameters.setdefault("target_session_attrs", "read-write")
        conninfo = make_conninfo("", **parameters)
        self.where = _without_secrets(url)
        self._appends, self._reads = _Link(conninfo), _Link(conninfo)

    async def open(self) -> None:
        [[(is_standby, encoding, synchronous_commit, columns)]] = await self._appends.run(FACTS)
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
        await self.append(FIRST_WIZARDS, START, len(FIRST_WIZARDS))  # none fits if there are any

    async def read(self, after: Row) -> list[Row]:
        try:
            return await self._read(after, self._reads)
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

    async def _read(self, after: Row, link: "_Link") -> list[Row]:
        [[(is_standby,)], found] = await link.run(READ, _bounds(after))
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


class _Connection(AsyncConnection[Any]):
    async def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:  # noqa: ASYNC109
        # psycopg's own sends a cancel request if it is cancelled. That would end the wait of a commit for its
        # synchronous standby: others could see the commit, and a failover would lose it.
        return await wait_async(gen, self.pgconn.socket, interval=interval, timeout=timeout)


class _Link:
    """One connection, made when it is needed and dropped, without a word to the server, after any failure."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._connection: _Connection | None = None

    async def run(self, statements: str, parameters: Mapping[str, object] | None = None) -> list[Any]:
        """Return the result of each statement: its rows, or how many it has changed."""
        try:
            async with asyncio.timeout(STORAGE_TIMEOUT):
                connection = await self._connect()
                cursor = await connection.execute(statements, parameters)
                results: list[Any] = []
                more: bool | None = True
                while more:
                    results.append(await cursor.fetchall() if cursor.description else cursor.rowcount)
                    more = cursor.nextset()
                return results
        except BaseException:
            self.close()
            raise

    def refuse_standby(self) -> StorageError:
        """Drop the connection, so that the next one may find the primary; return the error."""
        host = self._connection.info.host if self._connection else ""
        self.close()
        return StorageError(f"{host} is a standby, and its list may be an older one; the primary is needed")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.pgconn.finish()
            self._connection = None

    async def _connect(self) -> _Connection:
        if self._connection is not None and not _is_alive(self._connection):
            self.close()
        if self._connection is None:
            self._connection = await _Connection.connect(
                self._conninfo, autocommit=True, prepare_threshold=None, cursor_factory=AsyncClientCursor
            )
        return self._connection


def _is_alive(connection: _Connection) -> bool:
    # An idle connection has something to read if its server has closed it. So no append is sent in vain.
    poll = select.poll()
    poll.register(connection.pgconn.socket, select.POLLIN)
    try:
        while poll.poll(0):
            connection.pgconn.consume_input()
    except OperationalError:
        return False
    return True


def _bounds(after: Row) -> dict[str, object]:
    position, name, stamp = after
    # `after` comes along, unless it is no row.
    return {"position": position, "name": name, "stamp": stamp, "chunk": READ_CHUNK + bool(position)}


def _parse(url: str) -> Mapping[str, Any]:
    try:
        return conninfo_to_dict(url)
    except ProgrammingError as error:  # which may repeat a part of a password
        why = (
            str(error).strip() if "URI query parameter" in str(error) else "check its user, password and host"
        )
        raise StorageError(f"the value is no URL that PostgreSQL takes: {why}") from None


def _without_secrets(url: str) -> str:
    # Split as libpq does it; then whatever looks like one more @ is left out, too.
    scheme, _, rest = url.partition("://")
    credentials, at, place = rest.partition("@")
    if not at or "/" in credentials:
        credentials, place = "", rest
    user = credentials.partition(":")[0]
    return f"{scheme}://{user}{'@' if user else ''}{place.partition('?')[0].rpartition('@')[2]}"
