"""Measure the memory that a long list and clients that stop reading cost the service."""

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

PER_NAME = 150  # bytes, in addition to the plain and the gzipped page
PER_STALLED = 0.15  # pages


class Footprint(NamedTuple):
    """A measured size, the allowed size, and their unit."""

    title: str
    measured: float
    allowed: float
    unit: str


def measure(bench: Bench) -> list[Footprint]:
    """Measure the service alone, because no other contender promises a memory limit."""
    with bench.start(SERVICE, 3) as short, bench.start(SERVICE, LENGTH) as long:
        sizes = [_read_all(short), _read_all(long)]
        growth = resident(long) - resident(short)
        allowed = sizes[1] - sizes[0] + LENGTH * PER_NAME
        page = fetch(long.port, "/wizards").size
        before = resident(long)
        with ExitStack() as clients:
            for number in range(STALLED):
                clients.enter_context(_stalled_client(long.port, number))
            fetch(long.port, "/wizards")  # answered after all stalled clients
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
    """Return the resident memory of the service's process in bytes."""
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def _read_all(service: Service) -> int:
    # The size of the page, plain and gzipped. Sending both forms fills the service's caches.
    codings = ("identity", "gzip")
    return sum(fetch(service.port, "/wizards", {"Accept-Encoding": coding}).size for coding in codings)


def _stalled_client(port: int, number: int) -> socket.socket:
    """Append, wait for the start of the response, and read no byte."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    client.sendall(f"GET /wizards?name=Stalled-{number} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    select.select([client], [], [])
    return client
