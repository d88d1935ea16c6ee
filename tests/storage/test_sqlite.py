"""The log in an SQLite file: other programs, other versions, and a file that is removed or replaced."""

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from support.list_client import ListClient
from support.servers import Server
from support.stores import NO_LIMIT, append_names, make_store, read_rows, read_table
from wizards.storage import sqlite
from wizards.storage.base import START, HistoryLostError
from wizards.storage.sqlite_connection import has_wal_reset_bug, library

REMOVED = "The database has lost names; answering 503 until this process is restarted. It holds 4 wizards; "

# Seconds until reads have to notice that a file is gone. They look once a second; the machine may be busy.
SOON = 5


def run_script(script: str, *arguments: Path | str) -> None:
    """Run Python code in another process, where the standard library's SQLite may open the same file."""
    subprocess.run([sys.executable, "-c", script, *arguments], check=True, stderr=subprocess.PIPE, text=True)


def remove(file: Path, *suffixes: str) -> None:
    for suffix in suffixes:
        Path(f"{file}{suffix}").unlink()


def replace(file: Path) -> None:
    """Remove the database with all its files, and make a new one."""
    remove(file, "", "-wal", "-shm")
    run_script("import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('CREATE TABLE t (a)')", file)


CHANGES = {
    "database removed": lambda file: remove(file, ""),
    "log removed": lambda file: remove(file, "-wal"),
    "index removed": lambda file: remove(file, "-shm"),
    "all removed": lambda file: remove(file, "", "-wal", "-shm"),
    "replaced": replace,
}


@pytest.mark.parametrize("change", CHANGES)
async def test_removed_file_is_noticed_by_reads(change: str, tmp_path: Path) -> None:
    """Soon after a file is removed or replaced every request gets a 503, and one line says why."""
    file = tmp_path / "wizards.db"
    with Server(tmp_path, f"sqlite:///{file}") as server:
        async with ListClient(server) as client:
            await client.names("Luna")
            CHANGES[change](file)
            start = time.monotonic()
            while await client.status() == 200:
                assert time.monotonic() - start < SOON
            assert [await client.status(name) for name in ("", "Ginny", "")] == [503, 503, 503]
            message = f"{REMOVED}{file}, or the -wal or -shm beside it, was removed or replaced.\n"
            assert server.output().count(message) == 1


@pytest.mark.parametrize("change", CHANGES)
async def test_removed_file_is_noticed_by_appends(change: str, tmp_path: Path) -> None:
    """No append is acknowledged once a file is removed or replaced, not even the next one."""
    file = tmp_path / "wizards.db"
    with Server(tmp_path, f"sqlite:///{file}") as server:
        async with ListClient(server) as client:
            await client.names("Luna")
            CHANGES[change](file)
            assert [await client.status(name) for name in ("Ginny", "Cho", "")] == [503, 503, 503]
            assert server.output().count(REMOVED) == 1


async def test_link_that_leads_elsewhere_is_noticed(tmp_path: Path) -> None:
    """A path that is made to lead to another file counts as replaced."""
    link, other = tmp_path / "link.db", tmp_path / "other.db"
    link.symlink_to(tmp_path / "wizards.db")
    store = make_store(f"sqlite:///{link}")
    await store.open()
    (luna,) = await append_names(store, "Luna")
    other.touch()
    other_link = tmp_path / "other link"
    other_link.symlink_to(other)
    other_link.rename(link)
    with pytest.raises(HistoryLostError, match="was removed or replaced"):
        await store.append(["Ginny"], luna, NO_LIMIT)
    await store.close()


COPY = "import sqlite3, sys; old, new = map(sqlite3.connect, sys.argv[1:]); old.backup(new)"


@pytest.mark.parametrize("new", [[], ["Draco"], ["Draco", "Cho"]], ids=["shorter", "as long", "longer"])
async def test_restore_under_running_servers(new: list[str], tmp_path: Path) -> None:
    """A server that holds more than a back-up that was restored under it answers 503, until its restart."""
    file, backup = tmp_path / "wizards.db", tmp_path / "backup.db"
    with Server(tmp_path, f"sqlite:///{file}") as one, Server(tmp_path, f"sqlite:///{file}") as two:
        async with ListClient(one) as a, ListClient(two) as b:
            assert await a.names() == await b.names() == []
            run_script(COPY, file, backup)
            await a.names("Luna")
            run_script(COPY, backup, file)  # as `.restore` of SQLite's shell does it
            for name in new:
                await b.names(name)
            assert [await a.status(name) for name in ("", "Neville", "")] == [503, 503, 503]
            assert one.output().count(f"{REMOVED}row 4 of the list is gone, or another one.\n") == 1
            assert one.stop() == 0
            one.start()
            assert await a.names("Seamus") == [*new, "Seamus"]
            assert await b.names() == [*new, "Seamus"]


CREATE_1_0_0 = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
columns = "position INTEGER NOT NULL, name TEXT NOT NULL, PRIMARY KEY (position)"
connection.execute(f"CREATE TABLE wizards ({columns})")
connection.execute("INSERT INTO wizards VALUES (1, 'Harry'), (2, 'Ron'), (3, 'Hermione')")
connection.commit()
"""

APPEND_AS_1_0_0 = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
connection.execute("PRAGMA journal_mode=WAL")
for number in range(50):
    connection.execute("BEGIN IMMEDIATE")
    rows = connection.execute("SELECT position, name FROM wizards ORDER BY position").fetchall()
    connection.execute("INSERT INTO wizards (position, name) VALUES (?, ?)", (len(rows) + 1, f"old{number}"))
    connection.execute("COMMIT")
"""


async def test_deploy_beside_version_1_0_0(tmp_path: Path) -> None:
    """An old table is upgraded at start; old and new processes then append beside each other."""
    file = tmp_path / "wizards.db"
    run_script(CREATE_1_0_0, file)
    store = make_store(f"sqlite:///{file}")
    await store.open()
    rows = await store.read(START)
    assert [stamp for _, _, stamp in rows] == [None] * 3
    old = asyncio.create_task(asyncio.to_thread(run_script, APPEND_AS_1_0_0, file))
    news: list[str] = []
    while not old.done() or len(news) < 50:
        news.append(f"new{len(news)}")
        new, appended = await store.append(news[-1:], rows[-1], NO_LIMIT)
        assert appended == 1
        rows += new
    await old
    rows += await store.read(rows[-1])
    names = [name for _, name, _ in rows][3:]
    assert [name for name in names if name.startswith("old")] == [f"old{number}" for number in range(50)]
    assert [name for name in names if name.startswith("new")] == news
    assert await read_rows(store) == rows
    await store.close()


OPEN_AS_NOBODY = """
import asyncio, os, sys
from wizards.storage import urls
store = urls.make_store("sqlite:///" + sys.argv[1])
if os.geteuid() == 0:
    os.seteuid(65534)
try:
    asyncio.run(store.open())
except Exception as error:
    sys.exit(f"{error}")
"""


async def test_read_only_file_is_refused_at_start(tmp_path: Path) -> None:
    """A file that this user may only read fails the start, instead of every append."""
    folder = tmp_path / "folder"
    folder.mkdir()
    store = make_store(f"sqlite:///{folder}/wizards.db")
    await store.open()
    await store.close()
    for path in (tmp_path, *tmp_path.parents):
        path.chmod(path.stat().st_mode | 0o011)
    folder.chmod(0o777)
    (folder / "wizards.db").chmod(0o444)
    with pytest.raises(subprocess.CalledProcessError) as raised:
        run_script(OPEN_AS_NOBODY, folder / "wizards.db")
    assert raised.value.stderr == "attempt to write a readonly database\n"


@pytest.mark.parametrize(
    ("version", "has_bug"),
    [
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 53, 4), False),
    ],
)
def test_versions_with_the_wal_reset_bug(version: tuple[int, int, int], has_bug: bool) -> None:  # noqa: FBT001
    """The bug is fixed in 3.51.3, and in the last releases of two older branches."""
    assert has_wal_reset_bug(version) == has_bug


async def test_warns_of_an_sqlite_with_the_bug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that is opened with an SQLite that has the bug is worth one line; a list in memory is not."""
    for has_bug in (False, True):
        monkeypatch.setattr(sqlite, "has_wal_reset_bug", lambda _, has_bug=has_bug: has_bug)
        for url in ("sqlite://", f"sqlite:///{tmp_path}/wizards.db"):
            store = make_store(url)
            await store.open()
            await store.close()
    (message,) = caplog.messages
    assert message.startswith(
        f"SQLite {library.sqlite_version} can lose commits if another program checkpoints"
    )


APPEND_UNTIL = """
import asyncio, sys, time
from wizards.storage import sqlite
store = sqlite.SQLiteStore(sys.argv[1])
def append(connection):
    connection.execute("PRAGMA wal_autocheckpoint=5")
    last, number = connection.execute(sqlite.LAST_ROW).fetchone(), 0
    while time.time() < float(sys.argv[2]):
        (*_, last), appended = sqlite._append([f"{sys.argv[3]}.{number}"], last, 10**7, connection)
        number += appended
    return number
print(asyncio.run(store._appends.run(append)))
"""

CHECKPOINT_UNTIL = """
import sys, time
from wizards.storage.sqlite_connection import library
connection = library.connect(sys.argv[1], isolation_level=None, timeout=1)
while time.time() < float(sys.argv[2]):
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
"""


def test_checkpoints_of_other_programs_lose_nothing() -> None:
    """While two other programs checkpoint all the time, no append of four processes is lost."""
    if has_wal_reset_bug(library.sqlite_version_info):
        stop = pytest.fail if os.environ.get("CI") else pytest.skip
        stop(f"SQLite {library.sqlite_version} has the bug; this test needs pysqlite3")
    memory = Path("/dev/shm")  # where there are the most commits, so the best chance to lose one
    with TemporaryDirectory(dir=memory if memory.exists() else None) as folder:
        file = Path(folder) / "wizards.db"
        asyncio.run(_create(file))
        end = str(time.time() + 6)
        writers = [_start(APPEND_UNTIL, file, end, str(number)) for number in range(4)]
        others = [_start(CHECKPOINT_UNTIL, file, end) for _ in range(2)]
        outputs = [process.communicate()[0] for process in (*writers, *others)]
        assert [process.returncode for process in (*writers, *others)] == [0] * 6
        names = Counter(read_table(file)[3:])
    counts = enumerate(map(int, outputs[:4]))
    acknowledged = Counter(f"{writer}.{number}" for writer, count in counts for number in range(count))
    assert len(acknowledged) > 1000
    assert acknowledged - names == names - acknowledged == Counter()


async def _create(file: Path) -> None:
    store = make_store(f"sqlite:///{file}")
    await store.open()
    await store.close()


def _start(script: str, *arguments: Path | str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
