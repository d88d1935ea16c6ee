"""The log in a PostgreSQL database, for processes on many machines."""

import asyncio
from collections.abc import Callable

import asyncpg
import sqlalchemy as sql
from sqlalchemy.ext.asyncio import create_async_engine

from wizards.storage.base import STORAGE_TIMEOUT, Store, T

SETTINGS = {
    "application_name": "wizards",
    # A machine that dies in the middle of an append would keep the lock until TCP gives it up, in hours.
    "idle_in_transaction_session_timeout": f"{2 * STORAGE_TIMEOUT}s",
}


class PostgreSQLStore(Store):
    """The log in the database at `url`: any URL that PostgreSQL's own programs take."""

    def __init__(self, url: sql.URL) -> None:
        dsn = url.render_as_string(hide_password=False)

        async def connect() -> asyncpg.Connection:
            return await asyncpg.connect(dsn, server_settings=SETTINGS)

        self._engine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=connect,
            # Exchanges do not overlap, so one connection is all a process needs. The ping before each
            # (one more round trip) lets a restarted database go unnoticed while nobody asks.
            pool_size=1,
            max_overflow=0,
            pool_pre_ping=True,
            hide_parameters=True,
            # Without BEGIN and COMMIT around them a SELECT and a ping are one round trip each, not three.
            isolation_level="AUTOCOMMIT",
        )
        self._writer = self._engine.execution_options(isolation_level="READ COMMITTED")

    async def open(self) -> None:
        await self._run(_check_encoding, writes=False)
        await super().open()

    async def close(self) -> None:
        await self._engine.dispose()

    async def _run(self, work: Callable[[sql.Connection], T], *, writes: bool = True) -> T:
        engine = self._writer if writes else self._engine
        async with asyncio.timeout(STORAGE_TIMEOUT), engine.connect() as connection:
            result = await connection.run_sync(work)
            await connection.commit()
            return result


def _check_encoding(connection: sql.Connection) -> None:
    # In another one a name that it lacks would fail everybody's batch.
    encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
    if encoding not in {"UTF8", "SQL_ASCII"}:
        raise ValueError(f"its encoding is {encoding} and has to be UTF8")
