"""The log: no client can forge a line, or cause many. test_stop and test_outages check the other messages."""

import logging
import re
import resource
import signal
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from support.servers import Server, run_module
from support.sockets import connect
from wizards.server import logs

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


def test_atoms_print() -> None:
    """What does not print is escaped in every part of an access log's line."""
    atoms = logs.PrintableAtoms({"U": "/a\nb", "s": 200})
    assert "%(U)s %(s)s" % atoms == r"/a\nb 200"  # noqa: UP031  # as logging does


def record(message: str, error: BaseException | None = None) -> logging.LogRecord:
    information = (type(error), error, None) if error else None
    return logging.LogRecord("asyncio", logging.ERROR, "", 0, message, (), information)


def test_noise_is_dropped(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Of what clients cause at will nothing is logged; a shortage of files is, once a minute."""
    clock = iter([100.0, 159.0, 161.0])
    monkeypatch.setattr(logs, "_next_warning", [0.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    for _ in range(3):
        error = OSError(24, "Too many open files")
        assert not logs.drop_noise(record("socket.accept() out of system resource", error))
    assert [entry.getMessage() for entry in caplog.records] == [
        "No more connections: [Errno 24] Too many open files. New ones wait; see LimitNOFILE."
    ] * 2
    assert not logs.drop_noise(record("socket.send() raised exception."))
    assert logs.drop_noise(record("Exception in callback ours()", ValueError()))


REQUESTS = [
    b"GET /nowhere HTTP/1.1\r\nHost: t\r\n\r\n",
    b"GET /wizards?name=%41 HTTP/1.1\r\nHost: \xc3\xa9.example\r\n\r\n",
    b"GET /api//wizards HTTP/1.1\r\nHost: t\r\nAccept: application/json\r\n\r\n",
]


def test_first_requests_without_a_free_file(tmp_path: Path) -> None:
    """The first requests are answered even if no file is free, and a stop then logs nothing else."""
    command = ["hypercorn", "--workers", "0", "--bind", "127.0.0.1:0", "asgi:app"]
    with run_module(command, f"sqlite:///{tmp_path}/w.db") as process, ExitStack() as stack:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        port = int(next(found[1] for line in lines if (found := re.search(r"Running on .*:(\d+)", line))))
        limit = len(list(Path(f"/proc/{process.pid}/fd").iterdir())) + len(REQUESTS)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (limit, limit))
        clients = [stack.enter_context(connect(port)) for _ in range(40)]
        assert "No more connections" in next(lines)
        for client, request in zip(clients, REQUESTS, strict=False):
            client.sendall(request)
            assert client.recv(10) in {b"HTTP/1.1 2", b"HTTP/1.1 3", b"HTTP/1.1 4"}
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert [line.partition("[INFO] ")[2] for line in lines] == ["The list is closed.\n"]
