"""What a long list, and clients that stop reading, cost the service in memory."""

import select
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from .answers import fetch
from .measure import Bench
from .services import OURS, Service

TITLE = "memory"
SERVICE = OURS[0]
LENGTH = 100_000
STALLED = 150

PER_NAME = 150  # bytes, beside the page plain and gzipped
PER_STALLED = 0.15  # pages


class Footprint(NamedTuple):
    """What was measured, what is allowed, and in which unit."""

    title: str
    measured: float
    allowed: float
    unit: str


def measure(bench: Bench) -> list[Footprint]:
    """Measure the service on its own: it alone promises anything about memory."""
    with bench.start(SERVICE, 3) as short, bench.start(SERVICE, LENGTH) as long:
        sizes = [_read_all(short), _read_all(long)]
        growth = resident(long) - resident(short)
        allowed = sizes[1] - sizes[0] + LENGTH * PER_NAME
        page = fetch(long.port, "/wizards").size
        before = resident(long)
        with ExitStack() as clients:
            for number in range(STALLED):
                clients.enter_context(_stalled_client(long.port, number))
            fetch(long.port, "/wizards")  # comes behind all of them
            held = (resident(long) - before) / STALLED / page
    return [
        Footprint(f"{TITLE} of {LENGTH:,} names", growth / 2**20, allowed / 2**20, "MiB"),
        Footprint(
            f"{TITLE} of a client that appends and stops reading, {STALLED} of them",
            held,
            PER_STALLED,
            "page",
        ),
    ]


def resident(service: Service) -> int:
    """Return how many bytes of memory the service's process holds."""
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def _read_all(service: Service) -> int:
    # The size of the page, plain and gzipped; it has been sent both ways, so whatever is kept is there.
    codings = ("identity", "gzip")
    return sum(fetch(service.port, "/wizards", {"Accept-Encoding": coding}).size for coding in codings)


def _stalled_client(port: int, number: int) -> socket.socket:
    """Append, wait until the answer begins, and read no byte of it."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    client.sendall(f"GET /wizards?name=Stalled-{number} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    select.select([client], [], [])
    return client
