"""Storage outages: a 503, no lost append, and recovery without a restart."""

import asyncio
import resource
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

from support.list_client import ListClient
from support.pages import parse_page
from support.postgresql import PostgreSQL
from support.proxy import Proxy
from support.servers import Server
from wizards.storage.base import FIRST_WIZARDS

# Seconds: the database may take 4, the batch that waits for it one more; the rest is for a busy machine.
LONGEST = 7

WAITING = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND relation = 'wizards'::regclass"

UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


@contextmanager
def serve(directory: Path, url: str) -> Iterator[tuple[Server, httpx.Client]]:
    """Start a server and append `before`; yield the server and a client of it."""
    with Server(directory, url) as server, httpx.Client(base_url=server.base_url, timeout=30) as client:
        client.get("/wizards?name=before").raise_for_status()
        yield server, client


def check_recovered(server: Server) -> None:
    """Check that the server appends and reads again, lost no name, and logged one outage and its end."""
    page = httpx.get(f"{server.base_url}/wizards", params={"name": "after"}).raise_for_status().text
    names = parse_page(page)
    assert httpx.get(f"{server.base_url}/wizards").text == page
    assert names[:4] == [*FIRST_WIZARDS, "before"]
    assert names[-1] == "after"
    assert names.count("before") == 1
    output = server.output()
    assert output.count("The storage is out of reach; answering 503.") == 1
    assert output.count("The storage is back; wizards: ") == 1


def test_file_locked_by_another_program(tmp_path: Path) -> None:
    """While another program holds the write lock, appends get a 503 and reads succeed."""
    with serve(tmp_path, f"sqlite:///{tmp_path}/wizards.db") as (server, client):
        other = sqlite3.connect(tmp_path / "wizards.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        refused = client.get("/wizards?name=meanwhile")
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert "before" in client.get("/wizards").raise_for_status().text
        other.execute("ROLLBACK")
        other.close()
        check_recovered(server)


def test_full_disk(tmp_path: Path) -> None:
    """While the database cannot grow, appends get a 503 and reads succeed; both recover with free space."""
    with serve(tmp_path, f"sqlite:///{tmp_path}/wizards.db") as (server, client):
        assert server.process is not None
        size = (tmp_path / "wizards.db-wal").stat().st_size
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        for _ in range(3):
            assert client.get("/wizards", params={"name": "meanwhile"}).status_code == 503
        assert "before" in client.get("/wizards").raise_for_status().text
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, UNLIMITED)
        check_recovered(server)


def test_postgresql_restarts(tmp_path: Path, own_postgresql: PostgreSQL) -> None:
    """While PostgreSQL is down, appends and reads get a 503; the first request after its start gets a 200."""
    with serve(tmp_path, own_postgresql.new_database()) as (server, client):
        own_postgresql.stop("immediate")
        assert [client.get(f"/wizards{query}").status_code for query in ("", "?name=meanwhile")] == [503, 503]
        assert client.get("/").status_code == 200
        own_postgresql.start()
        check_recovered(server)


def test_connection_lost_while_idle(tmp_path: Path, postgresql: PostgreSQL) -> None:
    """A database connection that was terminated while idle does not cause a 503."""
    with serve(tmp_path, postgresql.new_database()) as (server, client):
        sessions = "FROM pg_stat_activity WHERE application_name = 'wizards'"
        postgresql.execute(f"SELECT pg_terminate_backend(pid) {sessions}")
        postgresql.wait_for(f"SELECT count(*) = 0 {sessions}")  # each has told its client by then
        assert "before" in client.get("/wizards?name=after").raise_for_status().text
        assert "answering 503" not in server.output()


async def test_table_locked_by_another_program(tmp_path: Path, postgresql: PostgreSQL) -> None:
    """While another program locks the table, appends get a 503, and reads are answered beside them."""
    url = postgresql.new_database()
    with Server(tmp_path, url) as server, psycopg.connect(url) as other:
        async with ListClient(server) as client, ListClient(server) as reader:
            await client.names("before")
            other.execute("LOCK TABLE wizards IN SHARE ROW EXCLUSIVE MODE")
            append = asyncio.create_task(client.timed_status("meanwhile"))
            await asyncio.to_thread(postgresql.wait_for, WAITING, postgresql.database_of(url))
            assert await reader.names() == ["before"]
            assert not append.done()
            status, seconds = await append
            assert (status, seconds < LONGEST) == (503, True)
            other.rollback()
            await asyncio.to_thread(check_recovered, server)


async def test_network_that_drops_packets(tmp_path: Path, postgresql: PostgreSQL) -> None:
    """If the database does not answer, every request gets a 503 in time, also one that waited for another."""
    async with Proxy(postgresql) as proxy:
        with Server(tmp_path, proxy.url(postgresql.new_database())) as server:
            async with ListClient(server) as one, ListClient(server) as two, ListClient(server) as reader:
                await one.names("before")
                proxy.is_dropping = True
                first = asyncio.create_task(one.timed_status("first"))
                await proxy.wait_for_request()
                second = asyncio.create_task(two.timed_status("second"))
                results = await asyncio.gather(first, second, reader.timed_status())
                assert [status for status, _ in results] == [503, 503, 503]
                assert max(seconds for _, seconds in results) < LONGEST
                proxy.is_dropping = False
                await asyncio.to_thread(check_recovered, server)


@pytest.mark.parametrize("names", [[], ["meanwhile"]], ids=["idle", "appending"])
async def test_stop_while_packets_are_dropped(
    tmp_path: Path, postgresql: PostgreSQL, names: list[str]
) -> None:
    """A stop ends in time although the database does not answer, and answers the append that is running."""
    async with Proxy(postgresql) as proxy:
        with Server(tmp_path, proxy.url(postgresql.new_database())) as server:
            async with ListClient(server) as client:
                await client.names("before")
                proxy.is_dropping = True
                appends = [asyncio.create_task(client.status(name)) for name in names]
                if appends:
                    await proxy.wait_for_request()
                server.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(server.wait, 10) == 0
                assert await asyncio.gather(*appends) == [503] * len(names)
            assert "The list is closed." in server.output()


UNUSABLE = {
    "no folder": ("sqlite:////nowhere/wizards.db", "unable to open database file. Its folder has to exist"),
    "no database": (f"sqlite:///{Path(__file__)}", "file is not a database"),
    "no server": ("postgresql://merlin:secret@127.0.0.1:1/wizards", "port 1 failed: Connection refused"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_unusable_storage_fails_the_start(tmp_path: Path, case: str) -> None:
    """A start with unusable storage prints one line with a hint, hides the password and exits with 1."""
    url, reason = UNUSABLE[case]
    with Server(tmp_path, url) as server:
        assert server.wait() == 1
    (line,) = server.output().splitlines()
    where = url.removeprefix("sqlite:///").replace(":secret", "")
    assert line.startswith(f"WIZARDS_DATABASE_URL: {where} cannot be used: ")
    assert reason in line


def test_other_encoding_fails_the_start(tmp_path: Path, postgresql: PostgreSQL) -> None:
    """A start on a database whose encoding cannot hold every name prints the encoding and exits with 1."""
    postgresql.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    url = postgresql.new_database()
    name = url.split("/")[3].partition("?")[0]
    with Server(tmp_path, url.replace(name, "latin")) as server:
        assert server.wait() == 1
    assert "its encoding is LATIN1 and has to be UTF8" in server.output()


def test_bad_setting_fails_the_start(tmp_path: Path) -> None:
    """A start with a bad setting prints one line and exits with 1."""
    with Server(tmp_path, settings={"WIZARDS_MAX_WIZARDS": "many"}) as server:
        assert server.wait() == 1
    assert server.output() == "WIZARDS_MAX_WIZARDS: 'many' is not a whole number from 3 to 10,000,000\n"
