"""PgBouncer between the servers and PostgreSQL: transaction pooling with its defaults."""

from contextlib import ExitStack
from pathlib import Path

from support.history import check_history
from support.pgbouncer import run_pgbouncer
from support.postgresql import PostgreSQL
from support.servers import Server
from support.stores import read_list
from support.workload import run_workload


async def test_more_processes_than_pooled_connections(own_postgresql: PostgreSQL, tmp_path: Path) -> None:
    """Three processes, with two connections each, share a pool of two, and answer like one list."""
    url = own_postgresql.new_database()
    with ExitStack() as stack:
        path = url + stack.enter_context(run_pgbouncer(own_postgresql, pool_size=2))
        servers = [stack.enter_context(Server(tmp_path, path)) for _ in range(3)]
        history = await run_workload(servers)
        sessions = own_postgresql.execute(
            "SELECT count(*), count(DISTINCT application_name) FROM pg_stat_activity"
            f" WHERE datname = '{own_postgresql.database_of(url)}'"
        )
        check_history(history, await read_list(path))
    assert sessions == "2|1"
    assert {record.status for record in history} == {200}
