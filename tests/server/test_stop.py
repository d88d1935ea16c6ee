"""Graceful shutdown: begun requests are answered, and unanswered requests were not carried out."""

import asyncio
import itertools
import re
import select
import signal
import socket
import sqlite3
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path

import httpx
import pytest

from support.http2_frames import BAD_GET, GET, PREFACE, SETTINGS, frame
from support.servers import Server, run_module
from support.sockets import (
    begin_append,
    connect,
    receive_all,
    receive_final_response,
    receive_until,
    reset_on_close,
)
from support.stop_load import Outcome, append_over_http2, append_until_refused
from support.stores import read_table

CLIENTS = 32

WITHOUT_KEEP_ALIVE = partial(append_until_refused, keep_alive=False)


@contextmanager
def bound_server(file: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start a server that binds its socket itself; yield the process and the port."""
    command = ["hypercorn", "--config", "hypercorn.toml", "--workers", "0", "--bind", "127.0.0.1:0"]
    command += [*options, "asgi:app"]
    with run_module(command, f"sqlite:///{file}") as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        running = next(found for line in lines if (found := re.search(r"Running on .*:(\d+)", line)))
        yield process, int(running[1])


@asynccontextmanager
async def run_load(
    port: int, append: Callable[[int, Outcome, int], Coroutine[None, None, None]], count: int = CLIENTS
) -> AsyncIterator[Outcome]:
    """Let clients append; enter the block after many responses, and leave it when all clients have ended."""
    outcome = Outcome()
    async with asyncio.timeout(60), asyncio.TaskGroup() as clients:
        for client in range(count):
            clients.create_task(append(port, outcome, client))
        for _ in range(5 * count):
            await outcome.responses.acquire()
        yield outcome


@pytest.mark.parametrize("workers", [0, 2, 4])
@pytest.mark.parametrize("keep_alive", [False, True], ids=["one request per connection", "keep-alive"])
async def test_sigterm_under_load(tmp_path: Path, keep_alive: bool, workers: int) -> None:  # noqa: FBT001
    """After SIGTERM connected clients are answered, new connections are refused, and the server exits."""
    with bound_server(tmp_path / "w.db", "--workers", f"{workers}") as (process, port):
        async with run_load(port, partial(append_until_refused, keep_alive=keep_alive)) as outcome:
            process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.stdout is not None
        assert "Traceback" not in process.stdout.read()
    outcome.check(read_table(tmp_path / "w.db"))
    assert outcome.unanswered == []
    assert outcome.connections_refused == CLIENTS


@pytest.mark.parametrize("workers", [2, 4])
async def test_reload_under_load(tmp_path: Path, workers: int) -> None:
    """SIGHUP replaces all workers: connections are refused for a while, but no request fails."""
    clients, reloaded = itertools.count(), asyncio.Event()

    async def append_until_reloaded(port: int, outcome: Outcome, _: int) -> None:
        while not reloaded.is_set():
            await append_until_refused(port, outcome, next(clients), keep_alive=True)
            await asyncio.sleep(0.02)  # a pace for connections that are refused

    with bound_server(tmp_path / "w.db", "--workers", f"{workers}") as (process, port):
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        async with run_load(port, append_until_reloaded) as outcome:
            process.send_signal(signal.SIGHUP)
            for expected in ["The list is closed."] * workers + ["Running on"] * workers:
                while expected not in await asyncio.to_thread(next, lines):
                    pass
            for _ in range(5 * CLIENTS):
                await outcome.responses.acquire()
            reloaded.set()
            process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert "Traceback" not in process.stdout.read()
    outcome.check(read_table(tmp_path / "w.db"))
    assert outcome.unanswered == []


async def test_reload_on_a_socket_that_was_passed(tmp_path: Path) -> None:
    """On a socket that came with the process a reload of all workers does not even refuse a connection."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    with Server(tmp_path, f"sqlite:///{tmp_path}/w.db", workers=2, listener=listener) as server:
        async with run_load(server.port, WITHOUT_KEEP_ALIVE) as outcome:
            server.send_signal(signal.SIGHUP)
            while server.output().count("The list is closed.") < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            for _ in range(5 * CLIENTS):
                await outcome.responses.acquire()
            assert outcome.connections_refused == 0
            assert (outcome.unanswered, outcome.truncated, outcome.rejected) == ([], [], [])
            server.kill()  # ends the load and truncates responses in progress
            listener.close()
    assert set(read_table(tmp_path / "w.db")).issuperset(outcome.acknowledged)


@pytest.mark.parametrize(("count", "slow"), [(CLIENTS, False), (8, True)], ids=["many", "slow readers"])
async def test_sigterm_under_load_over_http2(tmp_path: Path, count: int, slow: bool) -> None:  # noqa: FBT001
    """An HTTP/2 stop may refuse requests, but never carries out one unanswered or loses an append."""
    with bound_server(tmp_path / "w.db") as (process, port):
        async with run_load(port, partial(append_over_http2, slow=slow), count) as outcome:
            process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    outcome.check(read_table(tmp_path / "w.db"))


@pytest.mark.parametrize("workers", [0, 2])
def test_stop_answers_waiting_appends(tmp_path: Path, workers: int) -> None:
    """Appends that wait for the storage at SIGTERM are committed and answered before the server exits."""
    file = tmp_path / "w.db"
    with Server(tmp_path, f"sqlite:///{file}", workers=workers) as server:
        httpx.get(server.base_url + "/wizards").raise_for_status()
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        waiting = [begin_append(server.port, f"begun{number}") for number in range(20)]
        server.send_signal(signal.SIGTERM)
        other.execute("ROLLBACK")
        other.close()
        for connection in waiting:
            assert receive_final_response(connection).startswith(b"HTTP/1.1 200")
            connection.close()
        assert server.wait() == 0
    assert sorted(read_table(file)[3:]) == sorted(f"begun{number}" for number in range(20))


async def test_rolling_restart(tmp_path: Path) -> None:
    """A new server on the same socket replaces the old one without a failed request."""
    url = f"sqlite:///{tmp_path}/w.db"
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    old, new = (Server(tmp_path, url, listener=listener) for _ in range(2))
    with old:
        async with run_load(old.port, WITHOUT_KEEP_ALIVE) as outcome:
            new.start()
            old.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(old.wait) == 0
            for _ in range(5 * CLIENTS):
                await outcome.responses.acquire()
            assert outcome.connections_refused == 0
            assert (outcome.unanswered, outcome.truncated, outcome.rejected) == ([], [], [])
            new.kill()  # ends the load and truncates responses in progress
            listener.close()
    present = set(read_table(tmp_path / "w.db"))
    assert present.issuperset(outcome.acknowledged)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("whole_group", [False, True])
def test_second_signal(tmp_path: Path, number: signal.Signals, whole_group: bool) -> None:  # noqa: FBT001
    """Two SIGINTs or SIGTERMs, to the server or to its process group as make gets them, stop it cleanly."""
    with Server(tmp_path) as server:
        httpx.get(server.base_url + "/wizards").raise_for_status()
        server.send_signal(number, whole_group=whole_group)
        server.send_signal(number, whole_group=whole_group)
        assert server.wait(10) == 0
    lines = server.output().splitlines()
    assert [line.partition("[INFO] ")[2].partition(" http")[0] for line in lines] == [
        "The list at sqlite:// is open; wizards: 3.",
        "Running on",
        "The list is closed.",
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_after_shutdown(tmp_path: Path, number: signal.Signals) -> None:
    """A second signal after the list is closed does not change the exit status 0."""
    with bound_server(tmp_path / "w.db") as (process, _):
        assert process.stdout is not None
        process.send_signal(number)
        assert any("The list is closed." in line for line in process.stdout)
        process.send_signal(number)
        assert process.wait(10) == 0


def test_orphaned_workers_exit(tmp_path: Path) -> None:
    """Workers exit by themselves when their master is killed."""
    with bound_server(tmp_path / "w.db", "--workers", "2") as (process, port):
        httpx.get(f"http://127.0.0.1:{port}/wizards").raise_for_status()
        process.kill()
        assert process.stdout is not None
        rest = process.stdout.read()  # until the last process that holds the pipe exits
        assert rest.count("The master is gone, so this worker ends.") == 2
        assert "Traceback" not in rest


def test_stop_while_clients_reset(tmp_path: Path) -> None:
    """HTTP/2 clients that reset their connections while the server closes them do not delay the stop."""
    with Server(tmp_path) as server, ExitStack() as stack:
        clients = set()
        for _ in range(60):
            client = stack.enter_context(connect(server.port))
            reset_on_close(client)
            clients.add(client)
            client.sendall(PREFACE + SETTINGS + frame(1, 5, 1, GET))
            receive_until(frame(0, 1, 1, b""), client)
        server.send_signal(signal.SIGTERM)
        while clients:
            for client in select.select(clients, [], [])[0]:
                client.close()
                clients.remove(client)
        assert server.wait(10) == 0


def send_until_closed(port: int, started: threading.Barrier) -> None:
    """Send requests over TLS without reading the responses until the connection is closed."""
    unverified = ssl.create_default_context()
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    with suppress(OSError), unverified.wrap_socket(connect(port)) as client:
        for turn in itertools.count():
            client.sendall(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
            if turn == 0:
                client.recv(1)
                started.wait(10)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_while_clients_send_over_tls(tmp_path: Path, number: signal.Signals) -> None:
    """Clients that keep sending over TLS while the server closes their connections do not delay the stop."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make = f"openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=t -keyout {key} -out {certificate}"
    subprocess.run(make.split(), check=True, capture_output=True)
    options = ("--certfile", str(certificate), "--keyfile", str(key))
    with Server(tmp_path, options=options) as server, ThreadPoolExecutor() as threads:
        started = threading.Barrier(5)
        clients = [threads.submit(send_until_closed, server.port, started) for _ in range(4)]
        started.wait(10)
        server.send_signal(number)
        assert server.wait(10) == 0
        for client in clients:
            client.result()


NO_WINDOW = frame(4, 0, 0, b"\x00\x04\x00\x00\x00\x00")
UNFINISHED = {
    "nothing": b"",
    "half a head": b"GET / HTTP/1.1\r\nHost:",
    "half a body": b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\nabc",
    "half a handshake": b"GET / HTTP/1.1\r\nHost: t\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    "an HTTP/2 preface": PREFACE + SETTINGS,
    "an HTTP/2 request without its end": PREFACE + SETTINGS + frame(1, 4, 1, GET),
    "an HTTP/2 request and no window": PREFACE + NO_WINDOW + frame(1, 5, 1, GET),
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_with_unfinished_requests(tmp_path: Path, number: signal.Signals) -> None:
    """A stop takes less than ten seconds and exits with 0, whatever requests are unfinished."""
    with ExitStack() as stack:
        servers = [stack.enter_context(Server(tmp_path)) for _ in UNFINISHED]
        for server, sent in zip(servers, UNFINISHED.values(), strict=True):
            httpx.get(server.base_url).raise_for_status()
            client = stack.enter_context(connect(server.port))
            client.sendall(sent)
            httpx.get(server.base_url).raise_for_status()
            server.send_signal(number)
        for server, case in zip(servers, UNFINISHED, strict=True):
            assert (case, server.wait(10)) == (case, 0)
            assert server.output().endswith("The list is closed.\n")


def test_stop_after_a_failed_connection(tmp_path: Path) -> None:
    """A server error ends that connection and its requests, and a stop does not wait for them."""
    with Server(tmp_path) as server, connect(server.port) as client:
        client.sendall(PREFACE + SETTINGS + frame(1, 4, 1, GET))
        httpx.get(server.base_url).raise_for_status()
        client.sendall(frame(1, 5, 3, BAD_GET))
        receive_all(client)  # until the server closes it
        server.send_signal(signal.SIGTERM)
        assert server.wait(5) == 0


def test_body_of_a_refused_request(tmp_path: Path) -> None:
    """An HTTP/2 request with a body that arrives during the stop does not end another stream's response."""
    with Server(tmp_path) as server, connect(server.port) as stalled, connect(server.port) as idle:
        stalled.sendall(PREFACE + NO_WINDOW + frame(1, 5, 1, GET))
        idle.sendall(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
        assert idle.recv(2**16)
        server.send_signal(signal.SIGTERM)
        receive_all(idle)  # until the server starts the stop and closes it
        stalled.sendall(frame(1, 4, 3, GET) + frame(0, 1, 3, b"body"))
        stalled.sendall(frame(8, 0, 1, b"\x00\x00\xff\xff"))  # WINDOW_UPDATE for the first request
        receive_until(b"</p>", stalled)
        assert server.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_right_after_the_start(tmp_path: Path, number: signal.Signals) -> None:
    """A stop right after the start of a server with two sockets of its own takes less than ten seconds."""
    with (
        bound_server(tmp_path / "w.db", "--bind", "127.0.0.1:0") as (process, port),
        connect(port) as client,
    ):
        client.sendall(UNFINISHED["an HTTP/2 request without its end"])
        httpx.get(f"http://127.0.0.1:{port}").raise_for_status()
        process.send_signal(number)
        assert process.wait(10) == 0
