"""Many processes share one list: all of their answers together could come from a single list."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from support.history import Record, check_history
from support.servers import Server
from support.stores import make_store
from support.workload import make_client, run_workload, send
from wizards.storage.base import FIRST_WIZARDS
from wizards.storage.sqlite_connection import library


@contextmanager
def start_together(directory: Path, url: str, *, count: int = 2, workers: int = 2) -> Iterator[list[Server]]:
    """Start servers on one database at the same moment; they must run until the block ends."""
    with ExitStack() as stack:
        servers = [stack.enter_context(Server(directory, url, workers=workers)) for _ in range(count)]
        yield servers
        for server in servers:
            assert server.process is not None
            assert server.process.poll() is None, server.output()


async def read_from_each(servers: list[Server]) -> list[Record]:
    async with make_client(1) as client:
        return [await send(client, server.base_url) for server in servers]


async def test_servers_answer_as_one_list(url: str, tmp_path: Path) -> None:
    """Two servers of two workers each, started on an empty database, answer 48 clients like one list."""
    with start_together(tmp_path, url) as servers:
        history = await run_workload(servers)
        history += await read_from_each(servers)
    check_history(history, history[-1].names)
    assert {record.status for record in history} == {200}
    assert len(history[-1].names) == 3 + 48 * 24 / 2


async def test_check_fails_for_one_list_per_process(tmp_path: Path) -> None:
    """The same workload on one list per process fails the check, so the check can fail."""
    with start_together(tmp_path, "sqlite://") as servers:
        history = await run_workload(servers)
        history += await read_from_each(servers)
    with pytest.raises(AssertionError, match=r"prefix|lost|stale"):
        check_history(history, history[-1].names)


async def test_concurrent_start_on_an_empty_database(url: str, tmp_path: Path) -> None:
    """Eight servers that start together on an empty database all serve it, with the first three once."""
    with start_together(tmp_path, url, count=8, workers=0) as servers:
        answers = await read_from_each(servers)
    assert [(answer.status, answer.names) for answer in answers] == [(200, [*FIRST_WIZARDS])] * 8


async def test_open_waits_for_another_creator(tmp_path: Path) -> None:
    """Opening a new SQLite file waits for another process that holds its lock."""
    store = make_store(f"sqlite:///{tmp_path}/wizards.db")
    other = library.connect(tmp_path / "wizards.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    opening = asyncio.create_task(store.open())
    await asyncio.wait({opening}, timeout=0.2)  # the task would end early if it did not wait for the lock
    other.close()
    (error,) = await asyncio.gather(opening, return_exceptions=True)
    await store.close()
    assert error is None
