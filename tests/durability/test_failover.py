"""PostgreSQL fails over: no acknowledged append is lost, and a history that was lost is never served."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from support.followers import FIRST_EVENTS, follow
from support.history import check_history
from support.list_client import ListClient
from support.postgresql import PostgreSQL, run_postgresql
from support.proxy import Proxy
from support.servers import Server
from support.stores import read_list
from support.workload import append_until_acknowledged, run_workload

LOST_5 = (
    "The database has lost names; answering 503 until this process is restarted."
    " It holds 5 wizards; row 5 of the list is gone, or another one."
)


@pytest.fixture
def standby(own_postgresql: PostgreSQL) -> Iterator[PostgreSQL]:
    """Start a standby of `own_postgresql` for one test."""
    with run_postgresql(own_postgresql) as server:
        yield server


def wait_for_replicating_append(server: PostgreSQL) -> None:
    """Wait until a commit that is on the primary's disk waits for its synchronous standby."""
    server.wait_for("SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'SyncRep'")


def fail_over(primary: PostgreSQL, standby: PostgreSQL) -> None:
    """Kill the primary when an append waits for the standby, and promote the standby."""
    wait_for_replicating_append(primary)
    primary.kill()
    standby.pause_replication(resume=True)
    standby.promote()


@asynccontextmanager
async def open_path(
    kind: str, url: str, primary: PostgreSQL, standby: PostgreSQL
) -> AsyncIterator[tuple[str, Proxy | None]]:
    """Yield a URL that leads to the primary, and the proxy to be moved at a failover if there is one."""
    if kind == "hosts":
        yield f"{url},{standby.folder}", None
    else:
        async with Proxy(primary) as proxy:
            yield proxy.url(url), proxy


@pytest.mark.parametrize("kind", ["hosts", "proxy"])
async def test_failover_under_load(
    kind: str, own_postgresql: PostgreSQL, standby: PostgreSQL, tmp_path: Path
) -> None:
    """The primary is killed under load and its synchronous standby promoted: 200s and 503s, nothing lost."""
    url = own_postgresql.new_database()
    own_postgresql.configure("synchronous_standby_names", "standby")
    failovers: list[asyncio.Task[None]] = []
    async with open_path(kind, url, own_postgresql, standby) as (path, proxy):

        async def fail_over_and_move() -> None:
            await asyncio.to_thread(fail_over, own_postgresql, standby)
            if proxy is not None:
                proxy.move(standby)

        def after_response(count: int, _: Server) -> None:
            if count == 300:
                standby.pause_replication()
                failovers.append(asyncio.create_task(fail_over_and_move()))

        with Server(tmp_path, path, workers=2) as one, Server(tmp_path, path, workers=2) as two:
            await asyncio.gather(one.wait_until_running(), two.wait_until_running())
            history = await run_workload([one, two], after_response=after_response)
            await asyncio.gather(*failovers)  # while it lasts, any number of tries fails at once
            for server in (one, two):
                history += await append_until_acknowledged(server, f"after.{server.port}")
        check_history(history, await read_list(path))
    assert {record.status for record in history} == {200, 503}


@pytest.mark.parametrize("new", [[], ["Draco"], ["Draco", "Cho"]], ids=["shorter", "as long", "longer"])
async def test_lost_history_is_never_served(
    new: list[str], own_postgresql: PostgreSQL, standby: PostgreSQL, tmp_path: Path
) -> None:
    """A process that holds more than a promoted standby had answers 503 and says why, until its restart."""
    url = own_postgresql.new_database()
    path = f"{url},{standby.folder}"
    with Server(tmp_path, path) as one, Server(tmp_path, path) as two:
        await two.wait_until_running()
        async with ListClient(one) as a, ListClient(two) as b:
            await a.names("Luna")
            standby.wait_for("SELECT max(position) = 4 FROM wizards", own_postgresql.database_of(url))
            standby.stop()
            await a.names("Ginny")  # acknowledged, and on the primary alone
            own_postgresql.kill()
            standby.start()
            standby.promote()
            while await b.status() != 200:  # on a busy machine the new primary takes its time
                pass
            for name in new:
                await b.names(name)
            assert [await a.status(name) for name in ("", "Neville", "")] == [503, 503, 503]
            assert one.output().count(LOST_5) == 1
            assert one.stop() == 0
            one.start()
            assert await a.names("Seamus") == ["Luna", *new, "Seamus"]
            assert await b.names() == ["Luna", *new, "Seamus"]


async def test_stream_outlasts_failover(
    own_postgresql: PostgreSQL, standby: PostgreSQL, tmp_path: Path
) -> None:
    """A follower's stream goes on through a failover to a synchronous standby, and misses no name."""
    url = own_postgresql.new_database()
    own_postgresql.configure("synchronous_standby_names", "standby")
    path = f"{url},{standby.folder}"
    with Server(tmp_path, path) as server:
        async with ListClient(server) as client, follow(server.base_url) as follower:
            await client.names("Luna")
            assert await follower.take(4) == [*FIRST_EVENTS, (4, "Luna")]
            own_postgresql.kill()
            standby.promote()
            await append_until_acknowledged(server, "after")
            names = await read_list(path)
            assert await follower.take(len(names) - 4) == list(enumerate(names, 1))[4:]


async def test_lost_history_ends_streams(
    own_postgresql: PostgreSQL, standby: PostgreSQL, tmp_path: Path
) -> None:
    """A follower's stream ends, without a request of others, when its process holds what was lost."""
    url = own_postgresql.new_database()
    with Server(tmp_path, f"{url},{standby.folder}") as server:
        async with ListClient(server) as client, follow(server.base_url) as follower:
            standby.wait_for(
                f"SELECT count(*) = 1 FROM pg_database WHERE datname = '{own_postgresql.database_of(url)}'"
            )
            standby.wait_for("SELECT max(position) = 3 FROM wizards", own_postgresql.database_of(url))
            standby.stop()
            await client.names("Luna")  # acknowledged, and on the primary alone
            assert await follower.take(4) == [*FIRST_EVENTS, (4, "Luna")]
            own_postgresql.kill()
            standby.start()
            standby.promote()
            async with asyncio.timeout(30):
                assert [event async for event in follower.events] == []
            assert await client.status() == 503


async def test_standby_is_refused(own_postgresql: PostgreSQL, standby: PostgreSQL, tmp_path: Path) -> None:
    """A start on a standby fails with its name; while the path leads to one, every request gets a 503."""
    url = own_postgresql.new_database()
    standby.wait_for(
        f"SELECT count(*) = 1 FROM pg_database WHERE datname = '{own_postgresql.database_of(url)}'"
    )
    with Server(tmp_path, standby.url(own_postgresql.database_of(url))) as server:
        assert server.wait() == 1
        assert f" cannot be used: {standby.folder} is a standby, " in server.output()
    async with Proxy(own_postgresql) as proxy:
        with Server(tmp_path, proxy.url(url)) as server:
            async with ListClient(server) as client:
                await client.names("Luna")
                proxy.move(standby)
                assert [await client.status(name) for name in ("", "Draco", "")] == [503, 503, 503]
                assert server.output().count(" is a standby, ") == 1
                proxy.move(own_postgresql)
                assert await client.names("Ginny") == ["Luna", "Ginny"]


async def test_timeout_sends_no_cancel_request(own_postgresql: PostgreSQL, tmp_path: Path) -> None:
    """An append that waits for a synchronous standby in vain gets a 503, and stays invisible.

    Reads are answered meanwhile, also by a process that starts while the append holds the lock.
    """
    url = own_postgresql.new_database()
    with Server(tmp_path, url) as server:
        async with ListClient(server) as client:
            await client.names("Luna")
            own_postgresql.configure("synchronous_standby_names", "nobody")
            assert await client.status("Ginny") == 503
            wait_for_replicating_append(own_postgresql)
            assert await client.names() == ["Luna"]
            with Server(tmp_path, url) as other:
                async with ListClient(other) as reader:
                    assert await reader.names() == ["Luna"]
            own_postgresql.configure("synchronous_standby_names", "")
            assert await client.names("Cho") == ["Luna", "Ginny", "Cho"]
