"""Storage trouble: a 503, nothing lost, and recovery without help."""

import resource
import sqlite3
from pathlib import Path

import httpx
import pytest

from support.clients import names_shown
from support.postgresql import PostgreSQL
from support.servers import Server

SOFT_LIMIT_OFF = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


def check_recovered(server: Server, *acknowledged: str) -> None:
    """Check that the server appends again, lost nothing, and logged the outage and its end, once each."""
    page = httpx.get(f"{server.base_url}/wizards", params={"name": "after"}).raise_for_status().text
    names = names_shown(page)
    assert names[:3] == ["Harry", "Ron", "Hermione"]
    assert names[-1] == "after"
    assert [name for name in names if name in acknowledged] == list(acknowledged)
    output = server.output()
    assert output.count("The storage is out of reach; answering 503.") == 1
    assert output.count("The storage is back; wizards: ") == 1
    assert "Traceback" not in output


def test_file_locked_by_another_program(tmp_path: Path) -> None:
    """While another program holds the write lock appends get a 503 and reads go on; then all is well."""
    with Server(tmp_path, f"sqlite:///{tmp_path}/wizards.db") as server:
        client = httpx.Client(base_url=server.base_url, timeout=30)
        client.get("/wizards?name=before").raise_for_status()
        other = sqlite3.connect(tmp_path / "wizards.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        refused = client.get("/wizards?name=meanwhile")
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert "before" in client.get("/wizards").raise_for_status().text
        other.execute("ROLLBACK")
        other.close()
        check_recovered(server, "before")
        client.close()


def test_full_disk(tmp_path: Path) -> None:
    """While the files cannot grow appends get a 503, reads go on; with room again all is well."""
    with Server(tmp_path, f"sqlite:///{tmp_path}/wizards.db") as server:
        client = httpx.Client(base_url=server.base_url, timeout=30)
        client.get("/wizards?name=before").raise_for_status()
        assert server.process is not None
        size = (tmp_path / "wizards.db-wal").stat().st_size
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        for _ in range(3):
            assert client.get("/wizards", params={"name": "meanwhile"}).status_code == 503
        assert "before" in client.get("/wizards").raise_for_status().text
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, SOFT_LIMIT_OFF)
        check_recovered(server, "before")
        client.close()


def test_postgresql_goes_and_comes(tmp_path: Path) -> None:
    """While PostgreSQL is down both appends and reads get a 503; the first request after it gets a 200."""
    database = PostgreSQL()
    with Server(tmp_path, database.new_database()) as server:
        client = httpx.Client(base_url=server.base_url, timeout=30)
        client.get("/wizards?name=before").raise_for_status()
        database.stop("immediate")
        assert [client.get(f"/wizards{query}").status_code for query in ("", "?name=meanwhile")] == [503, 503]
        assert client.get("/").status_code == 200
        database.start()
        check_recovered(server, "before")
        client.close()
    database.remove()


def test_unnoticed_restart_of_postgresql(tmp_path: Path, postgresql: PostgreSQL) -> None:
    """A connection that died while nobody asked costs nobody a 503."""
    with Server(tmp_path, postgresql.new_database()) as server:
        client = httpx.Client(base_url=server.base_url, timeout=30)
        client.get("/wizards?name=before").raise_for_status()
        postgresql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            " AND application_name = 'wizards'"
        )
        assert "before" in client.get("/wizards?name=after").raise_for_status().text
        assert "503" not in server.output()
        client.close()


NO_START = {
    "no folder": ("sqlite:////nowhere/wizards.db", "unable to open database file. Its folder has to exist"),
    "no database": (f"sqlite:///{Path(__file__)}", "file is not a database"),
    "no server": ("postgresql://merlin:secret@127.0.0.1:1/wizards", "The server has to run there"),
}


@pytest.mark.parametrize("case", NO_START)
def test_unusable_storage_stops_the_start(tmp_path: Path, case: str) -> None:
    """Storage that cannot be used ends the start with one line, with a hint, no password, and status 1."""
    url, reason = NO_START[case]
    with Server(tmp_path, url) as server:
        assert server.wait() == 1
    (line,) = server.output().splitlines()
    assert line.startswith(f"WIZARDS_DATABASE_URL: {url.replace('secret', '***')} cannot be used: ")
    assert reason in line


def test_other_encodings_stop_the_start(tmp_path: Path, postgresql: PostgreSQL) -> None:
    """So does a database that cannot hold every name."""
    postgresql.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    url = postgresql.new_database()
    name = url.split("/")[3].partition("?")[0]
    with Server(tmp_path, url.replace(name, "latin")) as server:
        assert server.wait() == 1
    assert "its encoding is LATIN1 and has to be UTF8." in server.output()


def test_bad_setting_stops_the_start(tmp_path: Path) -> None:
    """So does a bad setting."""
    with Server(tmp_path, settings={"WIZARDS_MAX_WIZARDS": "many"}) as server:
        assert server.wait() == 1
    assert server.output() == "WIZARDS_MAX_WIZARDS: 'many' is not a whole number from 3 to 10,000,000\n"
