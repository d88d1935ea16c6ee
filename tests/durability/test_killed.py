"""Servers and databases are killed under load: no acknowledged append is lost or doubled."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from support.history import check_history
from support.postgresql import PostgreSQL
from support.servers import Server
from support.stores import read_list
from support.workload import append_until_acknowledged, make_client, run_workload, send


async def test_killed_servers(url: str, tmp_path: Path) -> None:
    """Servers that are killed during requests and restarted, again and again, keep one consistent list."""
    kills: list[Server] = []

    def kill(count: int, server: Server) -> None:
        if count % 150 == 0:
            kills.append(server)
            server.kill()
            server.start()

    with Server(tmp_path, url, workers=2) as one, Server(tmp_path, url, workers=2) as two:
        history = await run_workload([one, two], after_response=kill)
        for server in (one, two):
            history += await append_until_acknowledged(server, f"after.{server.port}")
    check_history(history, await read_list(url), allow_aborts=True)
    assert len(kills) >= 5
    assert None in {record.status for record in history}, "no request was in progress at any kill"


async def test_crashed_database(own_postgresql: PostgreSQL, tmp_path: Path) -> None:
    """PostgreSQL crashes under load three times: every response is a correct list or a 503."""
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
        await asyncio.gather(one.wait_until_running(), two.wait_until_running())
        history = await run_workload(
            [one, two], after_response=lambda count, _: plan.pop(count, lambda: None)()
        )
        for server in (one, two):
            history += await append_until_acknowledged(server, f"after.{server.port}")
    check_history(history, await read_list(url))
    assert not plan
    assert {record.status for record in history} == {200, 503}


def break_commit(server: PostgreSQL) -> None:
    """Terminate the session of the next commit after the commit is on disk, before it is reported."""
    waiting = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    assert any(server.execute(waiting) for _ in range(1000)), "no commit was waiting"


async def test_unreported_commit(own_postgresql: PostgreSQL, tmp_path: Path) -> None:
    """An append that is committed although its connection breaks gets a 503 and is in the list once."""
    url = own_postgresql.new_database()
    with Server(tmp_path, url) as server:
        async with make_client(1) as client:
            history = [await send(client, server.base_url)]
            # From now on a commit that is on disk waits for a standby that does not exist.
            own_postgresql.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
            own_postgresql.stop()
            own_postgresql.start()
            breaking = asyncio.to_thread(break_commit, own_postgresql)
            record, _ = await asyncio.gather(send(client, server.base_url, "Luna"), breaking)
        own_postgresql.execute("ALTER SYSTEM RESET synchronous_standby_names")
        own_postgresql.execute("SELECT pg_reload_conf()")
        history += [record, *await append_until_acknowledged(server, "after")]
    check_history(history, await read_list(url))
    assert [record.status for record in history] == [200, 503, 200]
    assert history[-1].names[3:] == ["Luna", "after.0"]
