"""One list behind many processes: what any of them answers, one list can have answered."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import make_url

from support.history import FIRST, Record, check
from support.servers import Server
from support.workload import make_client, run_workload, send
from wizards.storage.sqlite import SQLiteStore


@contextmanager
def run(directory: Path, url: str, *, servers: int = 2, workers: int = 2) -> Iterator[list[Server]]:
    """Start servers on one database at the same moment; they must go on, and print no traceback."""
    with ExitStack() as stack:
        started = [stack.enter_context(Server(directory, url, workers=workers)) for _ in range(servers)]
        yield started
        for server in started:
            assert server.process is not None
            assert server.process.poll() is None, server.output()
            assert "Traceback" not in server.output(), server.output()


async def read_all(servers: list[Server]) -> list[Record]:
    async with make_client(1) as client:
        return [await send(client, server.base_url) for server in servers]


async def test_answers_as_one_list(url: str, tmp_path: Path) -> None:
    """Two servers of two workers each, started on an empty database, answer 48 clients as one list would."""
    with run(tmp_path, url) as servers:
        history = await run_workload(servers)
        history += await read_all(servers)
    check(history, history[-1].names)
    assert {record.status for record in history} == {200}
    assert len(history[-1].names) == 3 + 48 * 24 / 2


async def test_notices_a_list_per_process(tmp_path: Path) -> None:
    """The same load on a list per process fails the check, so the check can fail."""
    with run(tmp_path, "sqlite://") as servers:
        history = await run_workload(servers)
        history += await read_all(servers)
    with pytest.raises(AssertionError, match=r"prefix|lost|older"):
        check(history, history[-1].names)


async def test_starts_together(url: str, tmp_path: Path) -> None:
    """Eight servers started at one moment on an empty database all come up, with the first three once."""
    with run(tmp_path, url, servers=8, workers=0) as servers:
        answers = await read_all(servers)
    assert [(answer.status, answer.names) for answer in answers] == [(200, FIRST)] * 8


async def test_opens_while_another_process_creates(tmp_path: Path) -> None:
    """A new SQLite file that another process has locked just now can be opened a moment later."""
    store = SQLiteStore(make_url(f"sqlite:///{tmp_path}/wizards.db"))
    other = sqlite3.connect(tmp_path / "wizards.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    opening = asyncio.create_task(store.open())
    await asyncio.wait({opening}, timeout=0.2)  # it ends early where it does not wait for the other
    other.close()
    (error,) = await asyncio.gather(opening, return_exceptions=True)
    await store.close()
    assert error is None
