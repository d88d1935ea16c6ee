"""Overload: many connections, slow clients and unwanted bodies cost little and do not delay others.

The default sizes suit `make test`. The documented figures come from the sizes of
`FULL_LOAD=1 pytest --log-cli-level=WARNING tests/server/test_overload.py`.
"""

import asyncio
import logging
import os
import resource
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import httpx
import pytest

from support.http2_frames import GET, PREFACE, SETTINGS, frame
from support.servers import Server
from support.sockets import (
    begin_append,
    connect,
    receive_all,
    receive_final_response,
    receive_until,
    reset_on_close,
)
from support.stores import read_table
from wizards import create_app

logger = logging.getLogger(__name__)

FULL = "FULL_LOAD" in os.environ
SLOW_SENDERS = 1_000 if FULL else 300
BODY = (1_024 if FULL else 24) * 2**20  # bytes
IDLE_CONNECTIONS, BURST = (8_000, 1_000) if FULL else (600, 200)
STALLED_READERS = 150 if FULL else 40
STREAMS = 5_000 if FULL else 600

CHUNK = b"x" * 2**16
ROUTES = ["/", "/wizards", "/wizards?name=Luna", "/api/wizards"]
GREETING_REQUEST = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"
GREETING_REQUEST_HTTP2 = PREFACE + SETTINGS + frame(1, 5, 1, GET)


@pytest.fixture(autouse=True)
def _raised_file_limit() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def report(figures: str) -> None:
    logger.warning("%s", figures)  # httpx logs nothing at this level


def slowest_request(server: Server, count: int = 20) -> float:
    """Send requests as another client and return the latency of the slowest, in seconds."""
    latencies = []
    with httpx.Client(trust_env=False, timeout=10) as client:
        for path in (ROUTES * count)[:count]:
            begin = time.perf_counter()
            assert client.get(server.base_url + path).status_code == 200
            latencies.append(time.perf_counter() - begin)
    return max(latencies)


def fill_list(url: str, count: int, length: int = 200) -> int:
    """Append `count` names and return the size of the page in bytes."""

    async def append() -> int:
        app = create_app({"DATABASE_URL": url, "MAX_WAITING": count})
        async with app.test_app():
            roster = app.extensions["wizards"].roster
            await asyncio.gather(*(roster.append(f"{number:0{length}}") for number in range(count)))
            size: int = (await roster.read()).html.plain.size
            return size

    return asyncio.run(append())


def test_slow_senders(tmp_path: Path) -> None:
    """Hundreds of clients that send a header or a body byte by byte do not block another client."""
    heads = (b"GET / HTTP/1.1\r\nX: ", b"POST /wizards HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\n")
    with Server(tmp_path) as server, ExitStack() as stack:
        slow = [stack.enter_context(connect(server.port)) for _ in range(SLOW_SENDERS)]
        for number, connection in enumerate(slow):
            connection.sendall(heads[number % 2])
        latencies = []
        for _ in range(3):
            for connection in slow:
                connection.sendall(b"x")
            latencies.append(slowest_request(server))
        assert {connection.recv(12) for connection in slow[1::2]} == {b"HTTP/1.1 405"}
        report(f"{SLOW_SENDERS} slow senders: {1000 * max(latencies):.0f} ms for another client")
        assert server.stop() == 0


def send_body(server: Server, path: str, *, chunked: bool) -> int:
    """Send a request with a body over HTTP/1.1, then one without; return the status of the first."""
    head = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {BODY}"
    piece = b"%x\r\n%s\r\n" % (len(CHUNK), CHUNK) if chunked else CHUNK
    with ExitStack() as stack:
        connection = stack.enter_context(connect(server.port))
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: t\r\n{head}\r\n\r\n".encode())
        for _ in range(BODY // len(CHUNK)):
            connection.sendall(piece)
        connection.sendall(b"0\r\n\r\n" if chunked else b"")
        connection.sendall(b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        answers = receive_all(connection)
    assert answers.count(b"HTTP/1.1 200") == 2
    return int(answers.split()[1])


def send_body_http2(client: httpx.Client, server: Server, path: str, *, chunked: bool) -> int:
    """Send a request with a body over HTTP/2, without a Content-Length if `chunked`; return its status."""
    pieces = (CHUNK for _ in range(BODY // len(CHUNK)))
    headers = {} if chunked else {"Content-Length": str(BODY)}
    return client.request("GET", server.base_url + path, content=pieces, headers=headers).status_code


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("version", ["1.1", "2"])
def test_unwanted_bodies(tmp_path: Path, version: str, chunked: bool) -> None:  # noqa: FBT001
    """A large body on any route changes no answer, takes no memory and keeps the connection usable."""
    with Server(tmp_path) as server, httpx.Client(http1=False, http2=True, timeout=300) as client:
        slowest_request(server)
        before = server.memory("VmHWM")
        for path in ROUTES:
            with ThreadPoolExecutor(1) as executor:
                if version == "2":
                    sending = executor.submit(send_body_http2, client, server, path, chunked=chunked)
                else:
                    sending = executor.submit(send_body, server, path, chunked=chunked)
                latency = slowest_request(server)
                assert sending.result() == 200
            growth = server.memory("VmHWM") - before
            report(
                f"{BODY / 2**20:.0f} MiB to {path}: {growth / 2**20:.1f} MiB of memory,"
                f" {1000 * latency:.0f} ms for another client"
            )
            assert growth < 8 * 2**20
        assert server.stop() == 0


def test_header_value_that_looks_like_a_body_header(tmp_path: Path) -> None:
    """A header value `transfer-encoding` announces no body, and the connection stays open."""
    with Server(tmp_path) as server, ExitStack() as stack:
        connection = stack.enter_context(connect(server.port))
        head = b"GET / HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\nAccept: transfer-encoding\r\n\r\n"
        connection.sendall(head + b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        answers = receive_all(connection)
        assert answers.count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize("path", ROUTES)
def test_abandoned_bodies(tmp_path: Path, path: str) -> None:
    """A connection closed in the middle of a body does not delay a stop."""
    with Server(tmp_path, options=("--graceful-timeout", "60")) as server:
        for _ in range(3):
            with ExitStack() as stack:
                connection = stack.enter_context(connect(server.port))
                head = f"GET {path} HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
                connection.sendall(head.encode() + b"1\r\nx\r\n" * 20_000)
        slowest_request(server)
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0


async def open_keep_alive(server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a request on a new connection and return the connection, still open."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=2**12)
    writer.write(GREETING_REQUEST)
    assert (await reader.readuntil(b"</p>")).startswith(b"HTTP/1.1 200")
    return reader, writer


async def test_idle_connections(tmp_path: Path) -> None:
    """Keep-alive connections that arrive in bursts are all served and take at most 64 KiB each when idle."""
    with Server(tmp_path, options=("--keep-alive", "60")) as server:
        await asyncio.to_thread(slowest_request, server)
        before = server.memory()
        connections = []
        for _ in range(IDLE_CONNECTIONS // BURST):
            connections += await asyncio.gather(*(open_keep_alive(server) for _ in range(BURST)))
        each = (server.memory() - before) / IDLE_CONNECTIONS / 1024
        latency = await asyncio.to_thread(slowest_request, server)
        report(
            f"{IDLE_CONNECTIONS} idle connections: 0 failures, {each:.1f} KiB each,"
            f" {1000 * latency:.1f} ms for one more"
        )
        assert each < 64
        for _, writer in connections:
            writer.close()


@pytest.mark.parametrize(
    "request_bytes", [GREETING_REQUEST, GREETING_REQUEST_HTTP2], ids=["HTTP/1.1", "HTTP/2"]
)
def test_client_closes(tmp_path: Path, request_bytes: bytes) -> None:
    """The server closes a connection when its client does, however long the keep-alive timeout is."""
    with Server(tmp_path, options=("--keep-alive", "600")) as server, ExitStack() as stack:
        connection = stack.enter_context(connect(server.port))
        connection.sendall(request_bytes)
        receive_until(b"</p>", connection)
        connection.shutdown(socket.SHUT_WR)
        receive_all(connection)  # until the server closes it as well


def test_open_file_limit(tmp_path: Path) -> None:
    """At the limit of open files new connections wait for a free one, and the log says so once."""
    with Server(tmp_path) as server, ExitStack() as stack:
        slowest_request(server)
        assert server.process is not None
        used = len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (used + 10, used + 10))
        connections = [stack.enter_context(connect(server.port)) for _ in range(40)]
        for connection in connections:
            connection.sendall(GREETING_REQUEST)
        for connection in connections:  # in the order of their arrival
            assert connection.recv(12) == b"HTTP/1.1 200"
            connection.close()
        assert server.stop() == 0
        assert server.output().count("No more connections: [Errno 24] Too many open files.") == 1
        assert len(server.output().splitlines()) == 4


def test_resets_are_not_logged(tmp_path: Path) -> None:
    """Clients that reset their connections during a response leave no line in the log."""
    with Server(tmp_path) as server, ExitStack() as stack:
        for head in (b"GET / HTTP/1.1", b"GET /wizards?name=a HTTP/1.1", b"GET /wizards?name=%41 HTTP/1.1"):
            connection = stack.enter_context(connect(server.port))
            connection.sendall(300 * (head + b"\r\nHost: t\r\n\r\n"))
            connection.recv(1)  # now responses are in progress
            reset_on_close(connection)
            connection.close()
        slowest_request(server)
        assert server.stop() == 0
        assert len(server.output().splitlines()) == 3  # the list is open, Running on, the list is closed


def stall(server: Server, count: int, stack: ExitStack) -> None:
    """Append on `count` connections and read only the first bytes of each response."""
    for number in range(count):
        connection = stack.enter_context(connect(server.port))
        connection.sendall(f"GET /wizards?name=s{number} HTTP/1.1\r\nHost: t\r\n\r\n".encode())
        assert connection.recv(12) == b"HTTP/1.1 200"


def stall_http2(
    server: Server, count: int, stack: ExitStack, query: str = "?name=s", *, reset: bool = False
) -> None:
    """Append on `count` streams, 50 to a connection, with a window of 64 KiB that is never enlarged.

    With `reset`, reset all streams in the end and keep the connection open.
    """
    for begin in range(0, count, 50):
        client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        client.initiate_connection()
        streams = min(50, count - begin)
        for number in range(streams):
            path = f"/wizards{query}{begin + number}"
            pseudo = [(":method", "GET"), (":path", path), (":scheme", "http"), (":authority", "t")]
            client.send_headers(1 + 2 * number, pseudo, end_stream=True)
        connection = stack.enter_context(connect(server.port))
        answered = 0
        while answered < streams:
            connection.sendall(client.data_to_send())
            events = client.receive_data(connection.recv(2**16))
            answered += sum(isinstance(event, h2.events.ResponseReceived) for event in events)
        if reset:
            for number in range(streams):
                client.reset_stream(1 + 2 * number)
            client.ping(b"answered")
            connection.sendall(client.data_to_send())
            while not any(isinstance(event, h2.events.PingAckReceived) for event in events):
                events = client.receive_data(connection.recv(2**16))


@pytest.mark.parametrize(
    ("stall", "max_pages"), [(stall, 0.15), (stall_http2, 0.02)], ids=["HTTP/1.1", "HTTP/2"]
)
def test_stalled_readers(
    tmp_path: Path, stall: Callable[[Server, int, ExitStack], None], max_pages: float
) -> None:
    """Clients that append to a page of 7 MiB and stop reading take a small part of the page each."""
    url = f"sqlite:///{tmp_path}/w.db"
    size = fill_list(url, 30_000)
    assert size > 7 * 2**20
    with Server(tmp_path, url) as server, ExitStack() as stack:
        slowest_request(server)
        before = server.memory()
        stall(server, STALLED_READERS, stack)
        latency = slowest_request(server)
        each = (server.memory() - before) / STALLED_READERS / size
        report(
            f"{STALLED_READERS} stalled readers: {each:.3f} pages each,"
            f" {1000 * latency:.0f} ms for another client"
        )
        assert each < max_pages
        stack.close()
        assert server.stop() == 0


@pytest.mark.parametrize("reset", [False, True], ids=["close", "reset"])
@pytest.mark.parametrize("query", ["?name=s", "?"], ids=["append", "read"])
def test_abandoned_responses(tmp_path: Path, query: str, reset: bool) -> None:  # noqa: FBT001
    """HTTP/2 responses that clients abandon do not delay a stop."""
    url = f"sqlite:///{tmp_path}/w.db"
    fill_list(url, 4_000)
    with Server(tmp_path, url, options=("--graceful-timeout", "60")) as server, ExitStack() as stack:
        for _ in range(3):  # the second read is answered from the cache
            stall_http2(server, 10, stack, query, reset=reset)
            slowest_request(server)
            if not reset:
                stack.close()
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0


def test_waiting_requests_are_bounded(tmp_path: Path) -> None:
    """Requests beyond the bound get 503 and Retry-After at once; the others are served in order."""
    file, bound = tmp_path / "w.db", 20
    settings = {"WIZARDS_MAX_WAITING": str(bound)}
    with Server(tmp_path, f"sqlite:///{file}", settings=settings) as server, ExitStack() as stack:
        slowest_request(server, 1)
        other = stack.enter_context(closing(sqlite3.connect(file, isolation_level=None)))
        other.execute("BEGIN IMMEDIATE")
        waiting = [
            stack.enter_context(begin_append(server.port, f"n{number}")) for number in range(5 * bound)
        ]
        early = [receive_final_response(connection) for connection in waiting[2 * bound :]]
        other.execute("ROLLBACK")
        late = [receive_final_response(connection) for connection in waiting[: 2 * bound]]
        names = read_table(file)
    assert all(answer.startswith(b"HTTP/1.1 503") and b"retry-after: 1" in answer for answer in early)
    served = [f"n{number}" for number, answer in enumerate(late) if answer.startswith(b"HTTP/1.1 200")]
    assert names[3:] == served
    assert bound <= len(served) <= 2 * bound


async def test_many_streams(tmp_path: Path) -> None:
    """One HTTP/2 connection carries thousands of requests, 50 at a time, some for large pages."""
    url = f"sqlite:///{tmp_path}/w.db"
    size = await asyncio.to_thread(fill_list, url, 4_000)
    assert size > 2**20 * 0.9
    limit, plain = asyncio.Semaphore(50), {"Accept-Encoding": "identity"}
    with Server(tmp_path, url) as server:
        async with httpx.AsyncClient(http1=False, http2=True, timeout=60, headers=plain) as client:

            async def request(number: int) -> int:
                async with limit:
                    response = await client.get(server.base_url + ("/" if number % 5 else "/wizards"))
                    return response.status_code * (len(response.content) == (30 if number % 5 else size))

            begin = time.perf_counter()
            answers = await asyncio.gather(*(request(number) for number in range(STREAMS)))
            report(f"{STREAMS} requests on one connection: {time.perf_counter() - begin:.1f} s")
        assert answers == [200] * STREAMS
        assert server.stop() == 0
