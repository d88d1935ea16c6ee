"""The gauges that statsd receives beside Hypercorn's own metrics."""

import socket
from pathlib import Path

import httpx
import pytest

from support.servers import Server


@pytest.mark.parametrize("workers", [0, 1])
def test_gauges_reach_statsd(tmp_path: Path, workers: int) -> None:
    """Statsd receives the length of the list and the exchanges at the start, and later what has changed."""
    with socket.socket(type=socket.SOCK_DGRAM) as statsd:
        statsd.bind(("127.0.0.1", 0))
        statsd.settimeout(30)
        options = ("--statsd-host", f"127.0.0.1:{statsd.getsockname()[1]}", "--statsd-prefix", "w")
        with Server(tmp_path, options=options, workers=workers) as server:
            assert [statsd.recv(99) for _ in range(3)] == [
                b"w.list.length:3|g",
                b"w.requests.waiting:0|g",
                b"w.exchanges:0|g",
            ]
            url, headers = f"{server.base_url}/wizards?name=Luna", {"Accept": "text/event-stream"}
            with httpx.stream("GET", url, headers=headers):
                changed = {b"w.list.length:4|g", b"w.exchanges:1|g", b"w.followers:1|g"}
                while changed:
                    changed.discard(statsd.recv(99))
            assert server.stop() == 0
