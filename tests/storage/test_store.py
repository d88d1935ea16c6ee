"""The log: the same promises on SQLite and on PostgreSQL."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

import pytest

from support.stores import make_store
from wizards.storage.base import READ_CHUNK, Store, wizards

FIRST = ["Harry", "Ron", "Hermione"]
NO_LIMIT = 1_000_000


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    store = make_store(url)
    await store.open()
    yield store
    await store.close()


async def test_starts_with_three(store: Store) -> None:
    """A new log holds the first three wizards, in order."""
    assert await store.exchange([], 0, NO_LIMIT) == (FIRST, 0)


async def test_returns_what_is_new_and_its_own(store: Store) -> None:
    """An exchange returns every name behind the given position, its own last."""
    assert await store.exchange(["Luna", "Ginny"], 2, NO_LIMIT) == (["Hermione", "Luna", "Ginny"], 2)
    assert await store.exchange([], 4, NO_LIMIT) == (["Ginny"], 0)
    assert await store.exchange([], 5, NO_LIMIT) == ([], 0)


async def test_keeps_the_limit(store: Store) -> None:
    """What does not fit is left out; what fits is appended."""
    assert await store.exchange(["Luna", "Ginny"], 3, 4) == (["Luna"], 1)
    assert await store.exchange(["Ginny"], 4, 4) == ([], 0)


async def test_reads_in_portions(store: Store) -> None:
    """A long list comes in portions, each beginning where the one before ended."""
    names = [f"w{number}" for number in range(2 * READ_CHUNK)]
    await store.exchange(names, 3, NO_LIMIT)
    found: list[str] = []
    while portion := await store.read(len(found)):
        assert len(portion) <= READ_CHUNK
        found += portion
    assert found == [*FIRST, *names]


@pytest.mark.parametrize("name", ["'; DROP TABLE wizards; --", "é 🧙 \u202e\x01\n", "%s :name $1", "a" * 255])
async def test_stores_any_text(store: Store, name: str) -> None:
    """A name comes back as it went in, whatever it holds."""
    await store.exchange([name], 3, NO_LIMIT)
    assert await store.exchange([], 3, NO_LIMIT) == ([name], 0)


async def test_survives_close(url: str) -> None:
    """A log that is opened again holds what was appended, and the first three once."""
    for names in (["Luna"], ["Ginny"], []):
        store = make_store(url)
        await store.open()
        found, _ = await store.exchange(names, 0, NO_LIMIT)
        await store.close()
    assert found == [*FIRST, "Luna", "Ginny"]


async def test_two_stores_share_a_list(url: str) -> None:
    """Appends from two stores at once are all there, in one order, behind the first three."""
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
    assert names[:3] == FIRST
    assert [name for name in names if name.startswith("a")] == [f"a{number}" for number in range(50)]
    assert len(names) == 103
    await asyncio.gather(*(store.close() for store in stores))


async def test_notices_a_list_that_was_cut(store: Store) -> None:
    """A list that somebody restored to an older one behind our back is an error, not a wrong answer."""
    await store.exchange(["Luna"], 3, NO_LIMIT)
    names: list[str]
    for names in ([], ["Ginny"]):
        with pytest.raises(LookupError, match="row 5 of the list is gone"):
            await store.exchange(names, 5, NO_LIMIT)
    assert await store.exchange([], 3, NO_LIMIT) == (["Luna"], 0)


async def test_notices_a_gap(store: Store) -> None:
    """So is one that lacks a row between others."""
    await store._run(lambda connection: connection.execute(wizards.insert(), {"position": 5, "name": "x"}))
    for after in (0, 3):
        with pytest.raises(LookupError, match="of the list is gone"):
            await store.exchange([], after, NO_LIMIT)


async def test_length_is_never_behind(tmp_path: Path) -> None:
    """On a file, a store knows at once what another process has committed, checkpoints between or not."""
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


async def test_closing_keeps_the_locks_of_others(tmp_path: Path) -> None:
    """A store that closes leaves the locks alone that SQLite holds for another one in this process."""
    here, there = (make_store(f"sqlite:///{tmp_path}/wizards.db") for _ in range(2))
    await here.open()
    await there.open()
    await here.close()
    assert is_locked(tmp_path / "wizards.db-shm", DEAD_MAN_SWITCH)
    await there.close()


# The byte of the WAL-index that is locked as long as any process has the database open: whoever finds it
# free makes the index anew. (Eight locks begin at byte 120; it comes behind them.)
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
    """Another process that has an SQLite file open."""

    def __init__(self, file: Path) -> None:
        command = [sys.executable, "-c", SHELL, str(file)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def run(self, statement: str) -> None:
        """Carry a statement out, and only then return."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{statement}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline()
