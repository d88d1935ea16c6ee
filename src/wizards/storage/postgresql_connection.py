"""One connection to PostgreSQL, and the URL that it comes from."""

import asyncio
import select
from collections.abc import Mapping
from typing import Any

from psycopg import AsyncClientCursor, AsyncConnection, OperationalError, ProgrammingError
from psycopg.abc import RV, PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.waiting import wait_async

from wizards.storage.base import STORAGE_TIMEOUT, StorageError

# Two seconds for each host is the least that libpq takes, and leaves time for a second one.
DEFAULTS: Mapping[str, Any] = {"connect_timeout": 2, "fallback_application_name": "wizards"}


class _Connection(AsyncConnection[Any]):
    async def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:  # noqa: ASYNC109
        # psycopg's own sends a cancel request if it is cancelled. That would end the wait of a commit for its
        # synchronous standby: others could see the commit, and a failover would lose it.
        return await wait_async(gen, self.pgconn.socket, interval=interval, timeout=timeout)


class PostgreSQLConnection:
    """A connection, made on first use and dropped after any failure, without notifying the server."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._connection: _Connection | None = None

    async def run(self, statements: str, parameters: Mapping[str, object] | None = None) -> list[Any]:
        """Return the result of each statement: its rows, or how many it has changed."""
        try:
            async with asyncio.timeout(STORAGE_TIMEOUT):
                connection = await self._connect()
                cursor = await connection.execute(statements, parameters)
                return [
                    await each.fetchall() if each.description else each.rowcount
                    async for each in cursor.results()
                ]
        except BaseException:
            self.close()
            raise

    def refuse_standby(self) -> StorageError:
        """Drop the connection, so that the next one may find the primary; return the error."""
        host = self._connection.info.host if self._connection else ""
        self.close()
        return StorageError(f"{host} is a standby, whose list may be out of date; connect to the primary")

    def close(self) -> None:
        """Drop the connection, without waiting for anything."""
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


def parse_url(url: str) -> tuple[str, str]:
    """Return the connection string for a URL, and how messages name the database, without secrets.

    Raises StorageError if libpq does not take the URL.
    """
    try:
        parameters = {**DEFAULTS, **conninfo_to_dict(url), "client_encoding": "utf8"}
    except ProgrammingError as error:  # which may repeat a part of a password
        is_harmless = "URI query parameter" in str(error)
        why = str(error).strip() if is_harmless else "check its user, password and host"
        raise StorageError(f"the value is no URL that PostgreSQL takes: {why}") from None
    host = str(parameters.get("host") or parameters.get("hostaddr") or "")
    if "," in host:  # several: find the primary
        parameters.setdefault("target_session_attrs", "read-write")
    user = f"{parameters['user']}@" if "user" in parameters else ""
    # A password with an @ in it leaves its end in the host.
    place = host.rpartition("@")[2]
    if "port" in parameters and "," not in host:
        place = f"{f'[{place}]' if ':' in place else place}:{parameters['port']}"
    where = f"postgresql://{user}{place}/{parameters.get('dbname', '')}"
    return make_conninfo("", **parameters), where
