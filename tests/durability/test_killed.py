"""Servers and databases that are killed under load: nothing acknowledged is lost, nothing is there twice."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.history import check
from support.postgresql import PostgreSQL
from support.servers import Server
from support.workload import make_client, recover, run_workload, send, stored


@pytest.fixture
def own_postgresql() -> Iterator[PostgreSQL]:
    """Start a PostgreSQL server for one test, which may stop it."""
    server = PostgreSQL()
    yield server
    server.remove()


async def test_servers_killed(url: str, tmp_path: Path) -> None:
    """Servers are killed in the middle of requests, over and over, and started again; the list stays one."""
    kills: list[Server] = []

    def kill(count: int, server: Server) -> None:
        if count % 150 == 0:
            kills.append(server)
            server.kill()
            server.start()

    with Server(tmp_path, url, workers=2) as one, Server(tmp_path, url, workers=2) as two:
        history = await run_workload([one, two], after_answer=kill)
        for server in (one, two):
            history += await recover(server, f"after.{server.port}")
            assert "Traceback" not in server.output(), server.output()
    check(history, await stored(url), cuts=True)
    assert len(kills) >= 5
    assert None in {record.status for record in history}, "no request was under way at any kill"


async def test_database_crashed(own_postgresql: PostgreSQL, tmp_path: Path) -> None:
    """PostgreSQL crashes under load and comes back, three times: lists and 503s, and the list stays one."""
    url = own_postgresql.new_database()
    crash, start = lambda: own_postgresql.stop("immediate"), own_postgresql.start
    plan: dict[int, Callable[[], None]] = {
        200: crash,
        300: start,
        500: crash,
        600: start,
        800: crash,
        900: start,
    }

    with Server(tmp_path, url, workers=2) as one, Server(tmp_path, url, workers=2) as two:
        history = await run_workload(
            [one, two], after_answer=lambda count, _: plan.pop(count, lambda: None)()
        )
        for server in (one, two):
            history += await recover(server, f"after.{server.port}")
            assert "Traceback" not in server.output(), server.output()
    check(history, await stored(url))
    assert not plan
    assert {record.status for record in history} == {200, 503}


def break_commit(server: PostgreSQL) -> None:
    """Break the connection of the next commit when it is on disk but not yet reported."""
    waiting = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    assert any(server.execute(waiting) for _ in range(1000)), "no commit came"


async def test_commit_without_report(own_postgresql: PostgreSQL, tmp_path: Path) -> None:
    """An append that is committed while its connection breaks is answered 503 and stands, once."""
    url = own_postgresql.new_database()
    with Server(tmp_path, url) as server:
        async with make_client(1) as client:
            history = [await send(client, server.base_url)]
            # From now on a commit that is on disk waits for a second server, which there is not.
            own_postgresql.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
            own_postgresql.stop()
            own_postgresql.start()
            breaking = asyncio.to_thread(break_commit, own_postgresql)
            record, _ = await asyncio.gather(send(client, server.base_url, "Luna"), breaking)
        own_postgresql.execute("ALTER SYSTEM RESET synchronous_standby_names")
        own_postgresql.execute("SELECT pg_reload_conf()")
        history += [record, *await recover(server, "after")]
        assert "Traceback" not in server.output(), server.output()
    check(history, await stored(url))
    assert [record.status for record in history] == [200, 503, 200]
    assert history[-1].names[3:] == ["Luna", "after.0"]
