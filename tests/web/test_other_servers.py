"""Other ASGI servers serve the list and shut down in their own way."""

import re
import signal
import socket
from pathlib import Path

import httpx
import pytest

from support.servers import run_module

# Each server prints one of these lines per worker that is ready.
READY = re.compile(r"Started worker-\d|Application startup complete")


def open_client(port: int) -> httpx.Client:
    """Return a client that waits for the server to listen: uvicorn does so after its application is ready."""
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", transport=httpx.HTTPTransport(retries=9))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("server", ["uvicorn", "granian --interface asgi"])
def test_serves_and_stops(tmp_path: Path, server: str, workers: int) -> None:
    """The server appends, shows the append, lets a client follow and exits at SIGTERM without a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = f"{server} --port {port} --workers {workers} asgi:app"
    with run_module(command.split(), f"sqlite:///{tmp_path}/w.db") as process:
        assert process.stdout is not None
        for _ in range(workers):
            assert next(filter(READY.search, process.stdout))
        with open_client(port) as client:
            for name in ("Luna", "G%69nny"):
                assert client.get(f"/wizards?name={name}").status_code == 200
            assert client.get("/wizards").text.count("Luna") == 1
            with client.stream(
                "GET", "/wizards?name=Cho", headers={"Accept": "text/event-stream"}
            ) as response:
                assert any('{"name":"Cho"}' in line for line in response.iter_lines())
        process.send_signal(signal.SIGTERM)
        output = process.communicate(timeout=20)[0]
    assert "Traceback" not in output


@pytest.mark.parametrize("server", ["uvicorn", "granian --interface asgi"])
def test_malformed_body_is_refused(tmp_path: Path, server: str) -> None:
    """A request whose chunked body is malformed gets a 4xx and appends nothing."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = f"{server} --port {port} asgi:app"
    with run_module(command.split(), f"sqlite:///{tmp_path}/w.db") as process:
        assert process.stdout is not None
        assert next(filter(READY.search, process.stdout))
        with open_client(port) as client:
            page = client.get("/wizards").text
            with (
                socket.create_connection(("127.0.0.1", port)) as malformed,
                malformed.makefile("rb") as answer,
            ):
                head = b"GET /wizards?name=Eve HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
                malformed.sendall(head + b"x\r\n")
                assert answer.readline().startswith(b"HTTP/1.1 4")
            assert client.get("/wizards").text == page
