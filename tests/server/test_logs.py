"""The access log: no client can forge a line. test_stop and test_outages check the other messages."""

from pathlib import Path
from urllib.parse import quote

import httpx

from support.servers import Server

CONTROLS = "\n\r\x0b\x1b[31m\x85\u2028\u202e"


def test_clients_cannot_forge_lines(tmp_path: Path) -> None:
    """Every request is one printable line of the access log, whatever its name, path and headers contain."""
    options = ("--access-logfile", "-", "--access-logformat", "%(R)s %(U)s %(a)s")
    with Server(tmp_path, options=options) as server, httpx.Client(base_url=server.base_url) as client:
        headers = {b"User-Agent": b"one\x85two\x9b31m"}
        assert client.get(f"/wizards?name={quote(CONTROLS)}", headers=headers).status_code == 200
        assert client.get(f"/{quote(CONTROLS)}", headers=headers).status_code == 404
        server.stop()
    lines = server.log.read_bytes().decode().splitlines()
    found = [line.partition("[INFO] ")[2] for line in lines if "GET" in line]
    assert len(lines) == len(found) + 3  # the list is open, Running on, the list is closed
    query, path = quote(CONTROLS), r"\n\r\x0b\x1b[31m\x85\u2028\u202e"
    agent = r"one\x85two\x9b31m"
    assert found == [
        f"GET /wizards?name={query} 1.1 /wizards {agent}",
        f"GET /{path} 1.1 /{path} {agent}",
    ]
