"""The log on PostgreSQL: round trips, privileges, other versions, and what a session may be set to."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from support.postgresql import PostgreSQL
from support.proxy import Proxy
from support.stores import NO_LIMIT, append_names, make_store, read_rows
from wizards.storage.base import FIRST_WIZARDS, START, StorageError, Store

TABLE_1_0_0 = "CREATE TABLE wizards (position integer NOT NULL PRIMARY KEY, name text NOT NULL)"


@contextmanager
def connect(url: str) -> Iterator[psycopg.Connection]:
    """Yield another program's connection, outside of a transaction."""
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


async def names_in(store: Store) -> list[str]:
    return [name for _, name, _ in await read_rows(store)][3:]


async def test_exchange_is_one_round_trip(postgresql: PostgreSQL) -> None:
    """A read and an append take a single round trip each, the append's lock and commit included."""
    async with Proxy(postgresql) as proxy:
        store = make_store(proxy.url(postgresql.new_database()))
        await store.open()
        last = (await store.read(START))[-1]
        for number in range(3):
            before = proxy.round_trips
            await store.read(last)
            assert proxy.round_trips == before + 1
            rows, _ = await store.append([f"w{number}", "another"], last, NO_LIMIT)
            assert proxy.round_trips == before + 2
            last = rows[-1]
        await store.close()


async def test_read_is_repeated_on_a_fresh_connection(postgresql: PostgreSQL) -> None:
    """A read whose connection dies under it succeeds on another one; an append fails, and stays single."""
    url = postgresql.new_database()
    async with Proxy(postgresql) as proxy:
        store = make_store(proxy.url(url))
        await store.open()
        last = (await store.read(START))[-1]
        proxy.abort_next_request()
        assert await store.read(last) == []
        proxy.abort_next_request()
        with pytest.raises(psycopg.OperationalError):
            await store.append(["Luna"], last, NO_LIMIT)
        assert await names_in(store) == []
        (row,), _ = await store.append(["Luna"], last, NO_LIMIT)
        assert row[:2] == (4, "Luna")
        await store.close()


async def test_wait_for_a_table_lock_is_bounded(postgresql: PostgreSQL) -> None:
    """An exchange gives a locked table up within its time, and leaves no session that waits on."""
    url = postgresql.new_database()
    store = make_store(url)
    await store.open()
    last = (await store.read(START))[-1]
    with psycopg.connect(url) as other:
        other.execute("LOCK TABLE wizards IN ACCESS EXCLUSIVE MODE")
        exchanges = store.read(last), store.append(["Luna"], last, NO_LIMIT)
        errors = await asyncio.gather(*exchanges, return_exceptions=True)
        assert [type(error) for error in errors] == [psycopg.errors.LockNotAvailable] * 2
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'wizards'::regclass"
        assert postgresql.execute(waiting, postgresql.database_of(url)) == "0"
    assert await names_in(store) == []
    await store.close()


async def test_client_that_is_gone_holds_no_lock(postgresql: PostgreSQL) -> None:
    """An append whose client hears nothing any more is committed, and holds up no other."""
    url = postgresql.new_database()
    async with Proxy(postgresql) as proxy:
        gone, other = make_store(proxy.url(url)), make_store(url)
        await gone.open()
        await other.open()
        last = (await gone.read(START))[-1]
        proxy.drops_responses = True
        lost = asyncio.create_task(gone.append(["Luna"], last, NO_LIMIT))
        async with asyncio.timeout(3.5):
            while await names_in(other) != ["Luna"]:
                pass
            await append_names(other, "Ginny")
        assert not lost.done()
        with pytest.raises(TimeoutError):
            await lost
        await gone.close()
    assert await names_in(other) == ["Luna", "Ginny"]
    await other.close()


async def test_privileges(postgresql: PostgreSQL) -> None:
    """A role that may only SELECT and INSERT can serve a table that another one has made; less is refused."""
    url = postgresql.new_database()
    owner, server = make_store(url), make_store(url.replace("wizards@", "merlin@"))
    await owner.open()
    with connect(url) as connection:
        connection.execute("DROP ROLE IF EXISTS merlin")
        connection.execute("CREATE ROLE merlin LOGIN")
        connection.execute("GRANT SELECT ON wizards TO merlin")
        with pytest.raises(StorageError, match="the role may not INSERT into the table wizards"):
            await server.open()
        connection.execute("GRANT INSERT ON wizards TO merlin")
        await server.open()
        await append_names(server, "Luna")
        assert await names_in(owner) == ["Luna"]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SET ROLE merlin; DELETE FROM wizards")
    for store in (owner, server):
        await store.close()
    with connect(url) as connection:
        connection.execute("DROP OWNED BY merlin")
        connection.execute("DROP ROLE merlin")


async def test_table_of_another_owner_is_not_upgraded(postgresql: PostgreSQL) -> None:
    """A role that may not add the column is told who has to run what."""
    url = postgresql.new_database()
    with connect(url) as connection:
        connection.execute(TABLE_1_0_0)
        connection.execute("CREATE ROLE ron LOGIN")
        connection.execute("GRANT SELECT, INSERT ON wizards TO ron; GRANT CREATE ON SCHEMA public TO ron")
        store = make_store(url.replace("wizards@", "ron@"))
        with pytest.raises(
            StorageError, match=r"must be owner of table wizards\. Its owner has to run: CREATE"
        ):
            await store.open()
        await store.close()
        connection.execute("DROP OWNED BY ron")
        connection.execute("DROP ROLE ron")


def append_as_1_0_0(url: str, names: list[str]) -> None:
    """Append as a process of version 1.0.0 does, each name in a transaction of four statements."""
    with psycopg.connect(url) as connection:
        for name in names:
            connection.execute("LOCK TABLE wizards IN SHARE ROW EXCLUSIVE MODE")
            query = "SELECT position, name FROM wizards WHERE position >= 1 ORDER BY position"
            found = connection.execute(query).fetchall()
            connection.execute("INSERT INTO wizards (position, name) VALUES (%s, %s)", [len(found) + 1, name])
            connection.commit()


async def test_deploy_beside_version_1_0_0(postgresql: PostgreSQL) -> None:
    """An old table is upgraded at start; old and new processes then append beside each other."""
    url = postgresql.new_database()
    with connect(url) as connection:
        connection.execute(TABLE_1_0_0)
        connection.cursor().executemany(
            "INSERT INTO wizards VALUES (%s, %s)", list(enumerate([*FIRST_WIZARDS, "Luna"], 1))
        )
    store = make_store(url)
    await store.open()
    rows = await store.read(START)
    assert [(name, stamp) for _, name, stamp in rows[3:]] == [("Luna", None)]
    olds = [f"old{number}" for number in range(50)]
    old = asyncio.create_task(asyncio.to_thread(append_as_1_0_0, url, olds))
    news: list[str] = []
    while not old.done() or len(news) < 50:
        news.append(f"new{len(news)}")
        new, appended = await store.append(news[-1:], rows[-1], NO_LIMIT)
        assert appended == 1
        rows += new
    await old
    rows += await store.read(rows[-1])
    names = [name for _, name, _ in rows][4:]
    assert [name for name in names if name.startswith("old")] == olds
    assert [name for name in names if name.startswith("new")] == news
    assert await read_rows(store) == rows
    await store.close()


async def test_altered_table_disturbs_no_store(postgresql: PostgreSQL) -> None:
    """A column that is added under an open store costs it no failure."""
    url = postgresql.new_database()
    store = make_store(url)
    await store.open()
    await append_names(store, "Luna")
    with connect(url) as connection:
        connection.execute("ALTER TABLE wizards ADD COLUMN note text")
        await append_names(store, "Ginny")
    assert await names_in(store) == ["Luna", "Ginny"]
    await store.close()


@pytest.mark.parametrize("value", ["off", "local"])
async def test_unsafe_commit_is_named(
    postgresql: PostgreSQL, caplog: pytest.LogCaptureFixture, value: str
) -> None:
    """A database that acknowledges commits before they are safe is named at start."""
    url = postgresql.new_database()
    postgresql.execute(f"ALTER DATABASE {postgresql.database_of(url)} SET synchronous_commit = {value}")
    store = make_store(url)
    await store.open()
    await store.close()
    assert caplog.messages == [f"synchronous_commit is {value}: acknowledged names may be lost."]


async def test_settings_of_the_session_make_no_difference(postgresql: PostgreSQL) -> None:
    """Other defaults of the database, such as the isolation level, change nothing that a store relies on."""
    url = postgresql.new_database()
    for setting in (
        "default_transaction_isolation = 'serializable'",
        "standard_conforming_strings = off",
        "client_encoding = 'LATIN1'",
        "DateStyle = 'German'",
    ):
        postgresql.execute(f"ALTER DATABASE {postgresql.database_of(url)} SET {setting}")
    stores = [make_store(url), make_store(url)]
    for store in stores:
        await store.open()
    for number in range(10):
        await asyncio.gather(*(append_names(store, f"é\\'{number}") for store in stores))
    assert await names_in(stores[0]) == [f"é\\'{number // 2}" for number in range(20)]
    for store in stores:
        await store.close()


async def test_database_without_an_encoding(postgresql: PostgreSQL) -> None:
    """A database that takes any bytes holds any name."""
    postgresql.execute("CREATE DATABASE bytes ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    store = make_store(postgresql.url("bytes"))
    await store.open()
    await append_names(store, "é 🧙")
    assert await names_in(store) == ["é 🧙"]
    await store.close()
    postgresql.execute("DROP DATABASE bytes")
