"""A real PgBouncer in front of a PostgreSQL server."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support.postgresql import USER, PostgreSQL

SETTINGS = """
[databases]
* = host={folder} user=wizards
[pgbouncer]
listen_addr =
listen_port = 6432
unix_socket_dir = {folder}
auth_type = any
pool_mode = transaction
default_pool_size = {pool_size}
"""


@contextmanager
def run_pgbouncer(server: PostgreSQL, *, pool_size: int) -> Iterator[str]:
    """Start PgBouncer, which pools transactions and has its defaults otherwise; yield what URLs end with.

    The database's URL with this at its end leads through PgBouncer.
    """
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        stop = pytest.fail if os.environ.get("CI") else pytest.skip
        stop("this test needs PgBouncer: apt-get install pgbouncer")
    settings = server.folder / "pgbouncer.ini"
    settings.write_text(SETTINGS.format(folder=server.folder, pool_size=pool_size))
    with (
        (server.folder / "pgbouncer.log").open("wb") as log,
        subprocess.Popen([program, settings], user=USER, group=USER, stderr=log) as process,
    ):
        latest = time.monotonic() + 30
        while not (server.folder / ".s.PGSQL.6432").exists():
            assert process.poll() is None
            assert time.monotonic() < latest
        try:
            yield "&port=6432"
        finally:
            process.kill()
