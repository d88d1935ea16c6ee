"""Run the contenders on their servers, one worker each, as real processes."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from . import cores

ROOT = Path(__file__).parent.parent

# Hypercorn has the service's recommended settings for all contenders; the other servers have their defaults
# and write no access log. More than one thread makes gunicorn's worker a gthread one; four is a usual number.
COMMANDS = {
    "Hypercorn": "hypercorn --config hypercorn.toml --workers 0 --bind fd://{fd} {app}",
    "uvicorn": "uvicorn --fd {fd} --backlog 2048 --log-level warning --no-access-log {app}",
    "Granian": "bench.granian_on_fd {fd} {app}",
    "gunicorn sync": "gunicorn --log-level warning --bind fd://{fd} {app}",
    "gunicorn gthread": "gunicorn --log-level warning --bind fd://{fd} --threads 4 {app}",
}
ASGI_SERVERS = ("Hypercorn", "uvicorn", "Granian")


@dataclass(frozen=True)
class Contender:
    """An application on a server."""

    name: str
    app: str
    server: str

    def __str__(self) -> str:
        return f"{self.name} on {self.server}"

    def command(self, fd: int) -> list[str]:
        """Return the command line that serves the app on a listening socket."""
        return [sys.executable, "-m", *COMMANDS[self.server].format(fd=fd, app=self.app).split()]


class Service:
    """A running contender, which leads a process group and whose output goes to `log`.

    The listening socket is bound here and lives longer than the process, so a client that connects too
    early waits in the kernel's queue, and no client has to poll whether the server is up.
    """

    def __init__(self, contender: Contender, environment: Mapping[str, str], log: Path) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=2048)
        # Accepted sockets inherit the option. All servers set TCP_NODELAY, except uvicorn on an inherited
        # socket: uvicorn's responses would wait 40 ms for the client's delayed acknowledgement.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port: int = self._socket.getsockname()[1]
        self.log = log
        fd = self._socket.fileno()
        with log.open("wb") as output:
            self.process = subprocess.Popen(  # noqa: S603
                cores.for_service(contender.command(fd)),
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=output,
                stderr=output,
                pass_fds=(fd,),
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._socket.close()

    def url(self, path: str) -> str:
        """Return the URL of a path."""
        return f"http://127.0.0.1:{self.port}{path}"


def _on(servers: tuple[str, ...], name: str, app: str) -> list[Contender]:
    return [Contender(name, app, server) for server in servers]


FLOOR = _on(ASGI_SERVERS, "the floor", "bench.contenders.floor:app")
OURS = _on(ASGI_SERVERS, "wizards", "asgi:app")
FLASK = _on(("gunicorn sync", "gunicorn gthread"), "Flask", "bench.contenders.flask_app:app")
FLASK_SQLITE = _on(("gunicorn sync",), "Flask committing to SQLite", "bench.contenders.flask_sqlite:app")
QUART = _on(ASGI_SERVERS, "plain Quart port", "bench.contenders.quart_port:app")
OTHERS = [
    *_on(ASGI_SERVERS, "FastAPI", "bench.contenders.fastapi_app:app"),
    *_on(ASGI_SERVERS, "Starlette", "bench.contenders.starlette_app:app"),
    *_on(ASGI_SERVERS, "BlackSheep", "bench.contenders.blacksheep_app:app"),
]
