"""The durable log: the same promises on SQLite and on PostgreSQL."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

import pytest

from support.stores import NO_LIMIT, append_names, make_store, read_rows
from wizards.storage.base import (
    FIRST_WIZARDS,
    READ_CHUNK,
    START,
    HistoryLostError,
    Row,
    Store,
    rows_behind,
)


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    store = make_store(url)
    await store.open()
    yield store
    await store.close()


async def test_new_log_holds_the_first_three(store: Store) -> None:
    """A new log holds the first three wizards, in order, with one stamp."""
    rows = await store.read(START)
    assert [(position, name) for position, name, _ in rows] == list(enumerate(FIRST_WIZARDS, 1))
    assert len({stamp for _, _, stamp in rows}) == 1
    assert rows[0][2]


async def test_exchange_returns_what_is_new(store: Store) -> None:
    """Both exchanges return every row behind the given one, an append its own rows last, with one stamp."""
    rows = await store.read(START)
    new, appended = await store.append(["Luna", "Ginny"], rows[1], NO_LIMIT)
    assert appended == 2
    assert [name for _, name, _ in new] == ["Hermione", "Luna", "Ginny"]
    assert new[1][2] == new[2][2] != rows[0][2]
    assert await store.read(rows[2]) == new[1:]
    assert await store.read(new[2]) == []


async def test_append_stops_at_the_limit(store: Store) -> None:
    """Names up to the limit are appended; the others are left out."""
    last = (await store.read(START))[-1]
    (luna,), appended = await store.append(["Luna", "Ginny"], last, 4)
    assert (luna[:2], appended) == ((4, "Luna"), 1)
    assert await store.append(["Ginny"], luna, 4) == ([], 0)


async def test_read_returns_chunks(store: Store) -> None:
    """A long list is read in chunks, each starting where the one before ended."""
    names = [f"w{number}" for number in range(2 * READ_CHUNK)]
    first = await store.read(START)
    await store.append(names, first[-1], NO_LIMIT)
    chunks = [await store.read(START)]
    while len(chunks[-1]) == READ_CHUNK:
        chunks.append(await store.read(chunks[-1][-1]))
    assert [name for chunk in chunks for _, name, _ in chunk] == [*FIRST_WIZARDS, *names]
    assert len(chunks) == 3


async def test_append_far_behind_the_end(store: Store) -> None:
    """An append of a process that is more than a chunk behind lands at the end, and returns a chunk."""
    first = await store.read(START)
    await store.append([f"w{number}" for number in range(2 * READ_CHUNK)], first[-1], NO_LIMIT)
    rows, appended = await store.append(["Luna"], first[0], NO_LIMIT)
    assert (len(rows), appended) == (READ_CHUNK, 1)
    assert (await read_rows(store, rows[-1]))[-1][:2] == (2 * READ_CHUNK + 4, "Luna")


@pytest.mark.parametrize(
    "name", ["'; DROP TABLE wizards; --", "é 🧙 \u202e\x01\n", "%s :name $1 {}", "\\'\"\\,{", "a" * 255]
)
async def test_stores_any_text(store: Store, name: str) -> None:
    """A name is returned exactly as it was appended, and recognized as the last row."""
    (row,) = await append_names(store, name)
    assert row[1] == name
    assert await store.read(row) == []
    assert (await store.append([name], row, NO_LIMIT))[0][0][1] == name


async def test_reopened_log_is_unchanged(url: str) -> None:
    """A reopened log holds what was appended, and the first three once; one store can be opened again."""
    store = make_store(url)
    for name in ("Luna", "Ginny"):
        await store.open()
        await append_names(store, name)
        await store.close()
    store = make_store(url)
    await store.open()
    assert [name for _, name, _ in await read_rows(store)] == [*FIRST_WIZARDS, "Luna", "Ginny"]
    await store.close()


async def test_two_stores_share_a_list(url: str) -> None:
    """Concurrent appends of two stores are all in the list, in one order, after the first three."""
    stores = [make_store(url), make_store(url)]
    await asyncio.gather(*(store.open() for store in stores))

    async def append(store: Store, prefix: str) -> None:
        last = (await store.read(START))[-1]
        for number in range(50):
            rows, appended = await store.append([f"{prefix}{number}"], last, NO_LIMIT)
            last = rows[-1]  # which may be the other store's already
            assert appended == 1
            assert f"{prefix}{number}" in [name for _, name, _ in rows]

    await asyncio.gather(append(stores[0], "a"), append(stores[1], "b"))
    lists = [await read_rows(store) for store in stores]
    assert lists[0] == lists[1]
    names = [name for _, name, _ in lists[0]]
    assert tuple(names[:3]) == FIRST_WIZARDS
    assert [name for name in names if name.startswith("a")] == [f"a{number}" for number in range(50)]
    assert len(names) == 103
    await asyncio.gather(*(store.close() for store in stores))


async def test_read_and_append_overlap(store: Store) -> None:
    """A read and an append of one store may run at the same time."""
    last = (await store.read(START))[-1]
    for _ in range(20):
        (rows, _), _ = await asyncio.gather(store.append(["Luna"], last, NO_LIMIT), store.read(last))
        last = rows[-1]
    assert len(await read_rows(store)) == 23


FOREIGN: list[Row] = [(5, "Luna", "stamp"), (3, "Hermione", "another stamp"), (3, "Draco", None)]


@pytest.mark.parametrize("after", FOREIGN)
async def test_lost_history_is_an_error(store: Store, after: Row) -> None:
    """If the last row that the caller holds is gone or another, both exchanges fail and append nothing."""
    with pytest.raises(HistoryLostError, match=f"row {after[0]} of the list is gone, or another one"):
        await store.read(after)
    with pytest.raises(HistoryLostError, match=f"row {after[0]} of the list is gone, or another one"):
        await store.append(["Ginny"], after, NO_LIMIT)
    assert len(await read_rows(store)) == 3


def test_gap_and_emptiness_are_errors() -> None:
    """A missing row between others, and a list without its first row, are lost history, too."""
    one: Row = (1, "Harry", None)
    assert rows_behind(START, [one]) == [one]
    assert rows_behind(one, [one]) == []
    cases: list[tuple[Row, list[Row]]] = [
        (START, []),
        (START, [(2, "Ron", None)]),
        (one, [one, (3, "Hermione", None)]),
    ]
    for after, found in cases:
        with pytest.raises(HistoryLostError):
            rows_behind(after, found)


async def test_last_row_is_never_stale(tmp_path: Path) -> None:
    """`is_current` knows at once what another process has committed, before and after checkpoints."""
    store = make_store(f"sqlite:///{tmp_path}/wizards.db")
    await store.open()
    last = (await store.read(START))[-1]
    assert store.is_current(last)
    with Shell(tmp_path / "wizards.db") as shell:
        for number in range(4, 40):
            shell.run(f"INSERT INTO wizards (position, name) VALUES ({number}, 'Luna')")
            assert not store.is_current(last)
            last = (number, "Luna", None)
            assert store.is_current(last)
            if number % 3 == 0:
                shell.run(f"PRAGMA wal_checkpoint({'TRUNCATE' if number % 2 else 'RESTART'})")
            assert store.is_current(last)
    await store.close()


async def test_same_length_is_not_current(tmp_path: Path) -> None:
    """`is_current` tells a list from another one of the same length."""
    store = make_store(f"sqlite:///{tmp_path}/wizards.db")
    await store.open()
    (luna,) = await append_names(store, "Luna")
    with Shell(tmp_path / "wizards.db") as shell:
        shell.run("DELETE FROM wizards WHERE position = 4")
        shell.run("INSERT INTO wizards VALUES (4, 'Luna', 'another stamp')")
        assert not store.is_current(luna)
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
