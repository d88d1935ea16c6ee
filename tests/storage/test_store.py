"""The durable log: the same promises on SQLite and on PostgreSQL."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

import pytest

from support.stores import make_store
from wizards.storage.base import FIRST_WIZARDS, READ_CHUNK, Store, wizards

NO_LIMIT = 1_000_000


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    store = make_store(url)
    await store.open()
    yield store
    await store.close()


async def test_new_log_holds_the_first_three(store: Store) -> None:
    """A new log holds the first three wizards, in order."""
    assert await store.exchange([], 0, NO_LIMIT) == ([*FIRST_WIZARDS], 0)


async def test_exchange_returns_new_names(store: Store) -> None:
    """An exchange returns every name after the given position, its own names last."""
    assert await store.exchange(["Luna", "Ginny"], 2, NO_LIMIT) == (["Hermione", "Luna", "Ginny"], 2)
    assert await store.exchange([], 4, NO_LIMIT) == (["Ginny"], 0)
    assert await store.exchange([], 5, NO_LIMIT) == ([], 0)


async def test_append_stops_at_the_limit(store: Store) -> None:
    """Names up to the limit are appended; the others are left out."""
    assert await store.exchange(["Luna", "Ginny"], 3, 4) == (["Luna"], 1)
    assert await store.exchange(["Ginny"], 4, 4) == ([], 0)


async def test_read_returns_portions(store: Store) -> None:
    """A long list is read in portions, each starting where the one before ended."""
    names = [f"w{number}" for number in range(2 * READ_CHUNK)]
    await store.exchange(names, 3, NO_LIMIT)
    found: list[str] = []
    while portion := await store.read(len(found)):
        assert len(portion) <= READ_CHUNK
        found += portion
    assert found == [*FIRST_WIZARDS, *names]


@pytest.mark.parametrize("name", ["'; DROP TABLE wizards; --", "é 🧙 \u202e\x01\n", "%s :name $1", "a" * 255])
async def test_stores_any_text(store: Store, name: str) -> None:
    """A name is returned exactly as it was appended."""
    await store.exchange([name], 3, NO_LIMIT)
    assert await store.exchange([], 3, NO_LIMIT) == ([name], 0)


async def test_reopened_log_is_unchanged(url: str) -> None:
    """A reopened log holds what was appended, and the first three once."""
    for names in (["Luna"], ["Ginny"], []):
        store = make_store(url)
        await store.open()
        found, _ = await store.exchange(names, 0, NO_LIMIT)
        await store.close()
    assert found == [*FIRST_WIZARDS, "Luna", "Ginny"]


async def test_two_stores_share_a_list(url: str) -> None:
    """Concurrent appends of two stores are all in the list, in one order, after the first three."""
    stores = [make_store(url), make_store(url)]
    await asyncio.gather(*(store.open() for store in stores))

    async def append(store: Store, prefix: str) -> None:
        for number in range(50):
            found, appended = await store.exchange([f"{prefix}{number}"], 0, NO_LIMIT)
            assert (found[-1], appended) == (f"{prefix}{number}", 1)

    await asyncio.gather(append(stores[0], "a"), append(stores[1], "b"))
    lists = [await store.exchange([], 0, NO_LIMIT) for store in stores]
    assert lists[0] == lists[1]
    names = lists[0][0]
    assert tuple(names[:3]) == FIRST_WIZARDS
    assert [name for name in names if name.startswith("a")] == [f"a{number}" for number in range(50)]
    assert len(names) == 103
    await asyncio.gather(*(store.close() for store in stores))


async def test_truncated_list_is_an_error(store: Store) -> None:
    """A list that was replaced by an older one raises an error instead of returning wrong names."""
    await store.exchange(["Luna"], 3, NO_LIMIT)
    names: list[str]
    for names in ([], ["Ginny"]):
        with pytest.raises(LookupError, match="row 5 of the list is gone"):
            await store.exchange(names, 5, NO_LIMIT)
    assert await store.exchange([], 3, NO_LIMIT) == (["Luna"], 0)


async def test_gap_is_an_error(store: Store) -> None:
    """A list with a missing row raises an error."""
    await store._run(lambda connection: connection.execute(wizards.insert(), {"position": 5, "name": "x"}))
    for after in (0, 3):
        with pytest.raises(LookupError, match="of the list is gone"):
            await store.exchange([], after, NO_LIMIT)


async def test_length_is_never_stale(tmp_path: Path) -> None:
    """`length` counts what another process has committed at once, before and after checkpoints."""
    store = make_store(f"sqlite:///{tmp_path}/wizards.db")
    assert store.length() is None
    await store.open()
    with Shell(tmp_path / "wizards.db") as shell:
        for number in range(4, 40):
            shell.run(f"INSERT INTO wizards VALUES ({number}, 'Luna')")
            assert store.length() == number
            if number % 3 == 0:
                shell.run(f"PRAGMA wal_checkpoint({'TRUNCATE' if number % 2 else 'RESTART'})")
            assert store.length() == number
    await store.close()


async def test_close_keeps_the_locks_of_another_store(tmp_path: Path) -> None:
    """Closing a store keeps the file locks that SQLite holds for another store in this process."""
    here, there = (make_store(f"sqlite:///{tmp_path}/wizards.db") for _ in range(2))
    await here.open()
    await there.open()
    await here.close()
    assert is_locked(tmp_path / "wizards.db-shm", DEAD_MAN_SWITCH)
    await there.close()


# SQLite locks this byte of the WAL-index while any process has the database open; a process that finds the
# byte unlocked rebuilds the index. (Eight other locks start at byte 120.)
DEAD_MAN_SWITCH = 128

IS_LOCKED = """
import fcntl, sys
try:
    fcntl.lockf(open(sys.argv[1], "r+b"), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(sys.argv[2]))
except BlockingIOError:
    sys.exit(1)
"""


def is_locked(file: Path, byte: int) -> bool:
    command = [sys.executable, "-c", IS_LOCKED, str(file), str(byte)]
    return subprocess.run(command, check=False).returncode == 1


SHELL = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
for line in sys.stdin:
    print(connection.execute(line).fetchone(), flush=True)
"""


class Shell:
    """Another process with an open connection to an SQLite file."""

    def __init__(self, file: Path) -> None:
        command = [sys.executable, "-c", SHELL, str(file)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def run(self, statement: str) -> None:
        """Execute a statement and wait until it is done."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{statement}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline()
