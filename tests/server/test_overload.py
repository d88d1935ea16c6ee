"""Crowds, slow clients and bodies that nobody wants: they hurt nobody else, and cost little.

The sizes are for `make test`. Those of the documented figures, and the figures, come from
`FULL_LOAD=1 pytest --log-cli-level=WARNING tests/server/test_overload.py`.
"""

import asyncio
import logging
import os
import resource
import signal
import socket
import sqlite3
import struct
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

from support.clients import receive_all, receive_until
from support.http2_frames import GET, PREFACE, SETTINGS, frame
from support.servers import Server
from wizards import create_app

logger = logging.getLogger(__name__)

FULL = "FULL_LOAD" in os.environ
DRIPPING = 1_000 if FULL else 300
BODY = (1_024 if FULL else 24) * 2**20  # bytes
CROWD, BURST = (8_000, 1_000) if FULL else (600, 200)
STALLED = 150 if FULL else 40
STREAMS = 5_000 if FULL else 600

PIECE = b"x" * 2**16
ROUTES = ["/", "/wizards", "/wizards?name=Luna", "/api/wizards"]
HELLO = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"
HELLO_HTTP2 = PREFACE + SETTINGS + frame(1, 5, 1, GET)


@pytest.fixture(autouse=True)
def _many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def report(figures: str) -> None:
    logger.warning("%s", figures)  # a level that httpx does not write at


def longest_wait(server: Server, count: int = 20) -> float:
    """Make requests as another client would; return the seconds of the slowest."""
    waits = []
    with httpx.Client(trust_env=False, timeout=10) as client:
        for path in (ROUTES * count)[:count]:
            begin = time.perf_counter()
            assert client.get(server.base_url + path).status_code == 200
            waits.append(time.perf_counter() - begin)
    return max(waits)


def connect(server: Server, stack: ExitStack) -> socket.socket:
    connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def fill(url: str, count: int, length: int = 200) -> int:
    """Put `count` names into the list and return the size of its page."""

    async def append() -> int:
        app = create_app({"DATABASE_URL": url, "MAX_WAITING": count})
        async with app.test_app():
            roster = app.extensions["wizards"].roster
            await asyncio.gather(*(roster.append(f"{number:0{length}}") for number in range(count)))
            size: int = (await roster.read()).html.plain.size
            return size

    return asyncio.run(append())


def test_slow_senders(tmp_path: Path) -> None:
    """Hundreds who send one byte at a time, of a header or of a body, keep nobody else from an answer."""
    heads = (b"GET / HTTP/1.1\r\nX: ", b"POST /wizards HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\n")
    with Server(tmp_path) as server, ExitStack() as stack:
        slow = [connect(server, stack) for _ in range(DRIPPING)]
        for number, connection in enumerate(slow):
            connection.sendall(heads[number % 2])
        waits = []
        for _ in range(3):
            for connection in slow:
                connection.sendall(b"x")
            waits.append(longest_wait(server))
        assert {connection.recv(12) for connection in slow[1::2]} == {b"HTTP/1.1 405"}
        report(f"{DRIPPING} slow senders: {1000 * max(waits):.0f} ms for another client")
        assert server.stop() == 0
        assert "Traceback" not in server.output()


def send_body(server: Server, path: str, *, chunked: bool) -> int:
    """Send a body over HTTP/1.1, then one more request on the connection; return the first status."""
    head = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {BODY}"
    piece = b"%x\r\n%s\r\n" % (len(PIECE), PIECE) if chunked else PIECE
    with ExitStack() as stack:
        connection = connect(server, stack)
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: t\r\n{head}\r\n\r\n".encode())
        for _ in range(BODY // len(PIECE)):
            connection.sendall(piece)
        connection.sendall(b"0\r\n\r\n" if chunked else b"")
        connection.sendall(b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        answers = receive_all(connection)
    assert answers.count(b"HTTP/1.1 200") == 2
    return int(answers.split()[1])


def send_body_http2(client: httpx.Client, server: Server, path: str, *, chunked: bool) -> int:
    """Send a body over HTTP/2, with a Content-Length or, as `chunked` would have it, without."""
    pieces = (PIECE for _ in range(BODY // len(PIECE)))
    headers = {} if chunked else {"Content-Length": str(BODY)}
    return client.request("GET", server.base_url + path, content=pieces, headers=headers).status_code


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("version", ["1.1", "2"])
def test_unwanted_bodies(tmp_path: Path, version: str, chunked: bool) -> None:  # noqa: FBT001
    """A large body on any route changes no answer, costs no memory and leaves the connection whole."""
    with Server(tmp_path) as server, httpx.Client(http1=False, http2=True, timeout=300) as client:
        longest_wait(server)
        before = server.memory("VmHWM")
        for path in ROUTES:
            with ThreadPoolExecutor(1) as executor:
                if version == "2":
                    sending = executor.submit(send_body_http2, client, server, path, chunked=chunked)
                else:
                    sending = executor.submit(send_body, server, path, chunked=chunked)
                wait = longest_wait(server)
                assert sending.result() == 200
            growth = server.memory("VmHWM") - before
            report(
                f"{BODY / 2**20:.0f} MiB to {path}: {growth / 2**20:.1f} MiB of memory,"
                f" {1000 * wait:.0f} ms for another client"
            )
            assert growth < 8 * 2**20
        assert server.stop() == 0
        assert "Traceback" not in server.output()


def test_no_body(tmp_path: Path) -> None:
    """A header whose value reads like one that announces a body announces none: the connection goes on."""
    with Server(tmp_path) as server, ExitStack() as stack:
        connection = connect(server, stack)
        head = b"GET / HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\nAccept: transfer-encoding\r\n\r\n"
        connection.sendall(head + b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        answers = receive_all(connection)
        assert answers.count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize("path", ROUTES)
def test_abandoned_bodies(tmp_path: Path, path: str) -> None:
    """A body that its sender gives up in the middle holds nothing: the server can stop as if idle."""
    with Server(tmp_path, options=("--graceful-timeout", "60")) as server:
        for _ in range(3):
            with ExitStack() as stack:
                connection = connect(server, stack)
                head = f"GET {path} HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
                connection.sendall(head.encode() + b"1\r\nx\r\n" * 20_000)
        longest_wait(server)
        server.signal(signal.SIGTERM)
        assert server.wait(20) == 0
        assert "Traceback" not in server.output()


async def ask(server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Make a request on a new connection and return the connection, which stays open."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=2**12)
    writer.write(HELLO)
    assert (await reader.readuntil(b"</p>")).startswith(b"HTTP/1.1 200")
    return reader, writer


async def test_idle_crowd(tmp_path: Path) -> None:
    """Keep-alive connections that come in bursts are all served, and idle ones cost some KiB each."""
    with Server(tmp_path, options=("--keep-alive", "60")) as server:
        await asyncio.to_thread(longest_wait, server)
        before = server.memory()
        crowd = []
        for _ in range(CROWD // BURST):
            crowd += await asyncio.gather(*(ask(server) for _ in range(BURST)))
        each = (server.memory() - before) / CROWD / 1024
        wait = await asyncio.to_thread(longest_wait, server)
        report(
            f"{CROWD} idle connections: 0 failures, {each:.1f} KiB each, {1000 * wait:.1f} ms for one more"
        )
        assert each < 64
        for _, writer in crowd:
            writer.close()


@pytest.mark.parametrize("hello", [HELLO, HELLO_HTTP2], ids=["HTTP/1.1", "HTTP/2"])
def test_client_closes(tmp_path: Path, hello: bytes) -> None:
    """A connection ends when its client closes it, however long idle ones are kept."""
    with Server(tmp_path, options=("--keep-alive", "600")) as server, ExitStack() as stack:
        connection = connect(server, stack)
        connection.sendall(hello)
        receive_until(b"</p>", connection)
        connection.shutdown(socket.SHUT_WR)
        receive_all(connection)  # until the server closes it, too


def test_no_free_file(tmp_path: Path) -> None:
    """Who comes when no file is free waits until one is; the log says so once."""
    with Server(tmp_path) as server, ExitStack() as stack:
        longest_wait(server)
        assert server.process is not None
        used = len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (used + 10, used + 10))
        crowd = [connect(server, stack) for _ in range(40)]
        for connection in crowd:
            connection.sendall(HELLO)
        for connection in crowd:  # in the order in which they came
            assert connection.recv(12) == b"HTTP/1.1 200"
            connection.close()
        assert server.stop() == 0
        assert server.output().count("No more connections: [Errno 24] Too many open files.") == 1
        assert len(server.output().splitlines()) == 4


def test_resets_are_not_logged(tmp_path: Path) -> None:
    """Clients who reset their connections, answers under way, leave no line in the log."""
    with Server(tmp_path) as server, ExitStack() as stack:
        for head in (b"GET / HTTP/1.1", b"GET /wizards?name=a HTTP/1.1", b"GET /wizards?name=%41 HTTP/1.1"):
            connection = connect(server, stack)
            connection.sendall(300 * (head + b"\r\nHost: t\r\n\r\n"))
            connection.recv(1)  # so they are being answered
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
        longest_wait(server)
        assert server.stop() == 0
        assert len(server.output().splitlines()) == 3  # the start, where it listens, the stop


def stall(server: Server, count: int, stack: ExitStack) -> None:
    """Append on `count` connections and read no more than the first bytes of each answer."""
    for number in range(count):
        connection = connect(server, stack)
        connection.sendall(f"GET /wizards?name=s{number} HTTP/1.1\r\nHost: t\r\n\r\n".encode())
        assert connection.recv(12) == b"HTTP/1.1 200"


def stall_http2(
    server: Server, count: int, stack: ExitStack, query: str = "?name=s", *, reset: bool = False
) -> None:
    """Append on streams, 50 to a connection, and never let the server send more than the first 64 KiB.

    With `reset`, tell the server in the end that nobody wants the answers, and stay.
    """
    for begin in range(0, count, 50):
        client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        client.initiate_connection()
        streams = min(50, count - begin)
        for number in range(streams):
            path = f"/wizards{query}{begin + number}"
            pseudo = [(":method", "GET"), (":path", path), (":scheme", "http"), (":authority", "t")]
            client.send_headers(1 + 2 * number, pseudo, end_stream=True)
        connection = connect(server, stack)
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


@pytest.mark.parametrize(("stall", "most"), [(stall, 0.15), (stall_http2, 0.02)], ids=["HTTP/1.1", "HTTP/2"])
def test_stalled_readers(
    tmp_path: Path, stall: Callable[[Server, int, ExitStack], None], most: float
) -> None:
    """Clients who append to a page of 7 MiB and stop reading cost a small part of a page each."""
    url = f"sqlite:///{tmp_path}/w.db"
    size = fill(url, 30_000)
    assert size > 7 * 2**20
    with Server(tmp_path, url) as server, ExitStack() as stack:
        longest_wait(server)
        before = server.memory()
        stall(server, STALLED, stack)
        wait = longest_wait(server)
        each = (server.memory() - before) / STALLED / size
        report(f"{STALLED} stalled readers: {each:.3f} pages each, {1000 * wait:.0f} ms for another client")
        assert each < most
        stack.close()
        assert server.stop() == 0
        assert "Traceback" not in server.output()


@pytest.mark.parametrize("reset", [False, True], ids=["close", "reset"])
@pytest.mark.parametrize("query", ["?name=s", "?"], ids=["append", "read"])
def test_readers_who_leave(tmp_path: Path, query: str, reset: bool) -> None:  # noqa: FBT001
    """HTTP/2 clients who leave in the middle of an answer leave nothing behind: the stop waits for nobody."""
    url = f"sqlite:///{tmp_path}/w.db"
    fill(url, 4_000)
    with Server(tmp_path, url, options=("--graceful-timeout", "60")) as server:
        with ExitStack() as stack:
            for _ in range(3):  # the second time it is a read that the cache knows
                stall_http2(server, 10, stack, query, reset=reset)
                longest_wait(server)
                if not reset:
                    stack.close()
            server.signal(signal.SIGTERM)
            assert server.wait(20) == 0
        assert "Traceback" not in server.output()


def append_slowly(server: Server, number: int, stack: ExitStack) -> socket.socket:
    """Send an append and return its connection once the server has begun it."""
    connection = connect(server, stack)
    head = f"GET /wizards?name=n{number} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nExpect: 100-continue"
    connection.sendall(f"{head}\r\n\r\n".encode())
    assert connection.recv(12) == b"HTTP/1.1 100"
    return connection


def read_all(connection: socket.socket) -> bytes:
    """Return the final answer on a connection that the server closes."""
    return receive_all(connection).partition(b"\r\n\r\n")[2]


def test_more_than_may_wait(tmp_path: Path) -> None:
    """Beyond the bound requests get 503 and Retry-After at once; those within are served, in order."""
    file, bound = tmp_path / "w.db", 20
    settings = {"WIZARDS_MAX_WAITING": str(bound)}
    with Server(tmp_path, f"sqlite:///{file}", settings=settings) as server, ExitStack() as stack:
        longest_wait(server, 1)
        other = stack.enter_context(closing(sqlite3.connect(file, isolation_level=None)))
        other.execute("BEGIN IMMEDIATE")
        waiting = [append_slowly(server, number, stack) for number in range(5 * bound)]
        early = [read_all(connection) for connection in waiting[2 * bound :]]
        other.execute("ROLLBACK")
        late = [read_all(connection) for connection in waiting[: 2 * bound]]
        names = [name for (name,) in other.execute("SELECT name FROM wizards ORDER BY position")]
    assert all(answer.startswith(b"HTTP/1.1 503") and b"retry-after: 1" in answer for answer in early)
    served = [f"n{number}" for number, answer in enumerate(late) if answer.startswith(b"HTTP/1.1 200")]
    assert names[3:] == served
    assert bound <= len(served) <= 2 * bound


async def test_many_streams(tmp_path: Path) -> None:
    """One HTTP/2 connection carries thousands of requests, 50 at a time, large pages among them."""
    url = f"sqlite:///{tmp_path}/w.db"
    size = await asyncio.to_thread(fill, url, 4_000)
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
        assert "Traceback" not in server.output()
