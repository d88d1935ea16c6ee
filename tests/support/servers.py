"""Real servers: Hypercorn in its own processes, on sockets that the test owns."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hypercorn.asyncio import serve
from hypercorn.config import Config

ROOT = Path(__file__).parents[2]


class Server:
    """`hypercorn --config hypercorn.toml asgi:app`, started by `start` or by entering a with block.

    The listening socket belongs to the test and outlives the process. A client may connect at any time and
    waits in the kernel's queue until a server accepts the connection, so no test has to poll or sleep.
    """

    def __init__(
        self,
        directory: Path,
        url: str = "sqlite://",
        *,
        workers: int = 0,
        application: str = "asgi:app",
        settings: Mapping[str, str] | None = None,
        options: tuple[str, ...] = (),
        listener: socket.socket | None = None,
    ) -> None:
        self._socket = listener or socket.create_server(("127.0.0.1", 0), backlog=2048)
        self._socket.set_inheritable(True)
        self.port: int = self._socket.getsockname()[1]
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.log = directory / f"server-{self.port}.log"
        fd = self._socket.fileno()
        self._command = [
            sys.executable,
            "-m",
            "hypercorn",
            "--config",
            "hypercorn.toml",
            "--bind",
            f"fd://{fd}",
        ]
        self._command += ["--workers", str(workers), *options, application]
        self._workers = max(1, workers)
        self._environment = {**os.environ, "WIZARDS_DATABASE_URL": url, **(settings or {})}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start a server process on the socket, in a new process group."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=self._environment,
                stdout=log,
                stderr=log,
                pass_fds=(self._socket.fileno(),),
                start_new_session=True,
            )

    async def wait_until_running(self) -> None:
        """Wait until every worker serves, before something happens at which none could start."""
        latest = time.monotonic() + 30
        while self.output().count("Running on") < self._workers:
            assert time.monotonic() < latest, self.output()
            await asyncio.sleep(0.01)  # the database may be behind a proxy of this event loop

    def send_signal(self, number: signal.Signals, *, whole_group: bool = False) -> None:
        """Send a signal to the main process, or to its whole process group."""
        assert self.process is not None
        (os.killpg if whole_group else os.kill)(self.process.pid, number)

    def wait(self, timeout: float = 30) -> int:
        """Wait until the main process ends and return its exit status."""
        assert self.process is not None
        return self.process.wait(timeout)

    def stop(self) -> int:
        """Send SIGTERM, wait until the main process ends and return its exit status."""
        self.send_signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """Send SIGKILL to the server and all its workers."""
        self.send_signal(signal.SIGKILL, whole_group=True)
        self.wait()

    def output(self) -> str:
        """Return what all servers on this socket have printed so far."""
        return self.log.read_text()

    def processor_time(self) -> float:
        """Return the processor time that the process has used so far, in seconds."""
        assert self.process is not None
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self, measure: str = "VmRSS") -> int:
        """Return the resident memory of the main process in bytes, or its peak (`VmHWM`)."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(status.partition(f"{measure}:")[2].split()[0])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        self._socket.close()
        if kind is None:
            assert "Traceback" not in self.output(), self.output()


@contextmanager
def run_module(command: Sequence[str], url: str) -> Iterator[subprocess.Popen[str]]:
    """Run `python -m COMMAND` with its list at `url`; stdout carries stderr too.

    The process leads a new process group, which is killed if the process is still running at the end.
    """
    with subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={**os.environ, "WIZARDS_DATABASE_URL": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


@asynccontextmanager
async def serve_here(app: Any, config: Config | None = None) -> AsyncIterator[int]:
    """Serve an application with Hypercorn in this process, and stop it at the end; yield the port."""
    listener, stop = socket.create_server(("127.0.0.1", 0)), asyncio.Event()
    port = listener.getsockname()[1]
    config = config or Config.from_mapping(errorlog=None)
    config.bind = [f"fd://{listener.detach()}"]  # Hypercorn closes it
    server = asyncio.create_task(serve(app, config, shutdown_trigger=stop.wait))
    try:
        yield port
    finally:
        stop.set()
        async with asyncio.timeout(10):
            await server
