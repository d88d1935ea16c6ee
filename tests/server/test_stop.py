"""Stops, deploys and kills: who began is answered, who was not answered was not served."""

import asyncio
import itertools
import re
import select
import signal
import socket
import sqlite3
import ssl
import struct
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path

import httpx
import pytest
from hypercorn.asyncio import run
from hypercorn.asyncio.worker_context import WorkerContext

from support.appending_clients import Outcome, append_over_http2, append_until_refused
from support.clients import receive_all, receive_until
from support.http2_frames import BAD_GET, GET, PREFACE, SETTINGS, frame
from support.servers import Server, started
from wizards import create_app
from wizards.server.shutdown import Stop

CLIENTS = 32

ONE_BY_ONE = partial(append_until_refused, keep_alive=False)


def names_in(file: Path) -> list[str]:
    connection = sqlite3.connect(file)
    names = [name for (name,) in connection.execute("SELECT name FROM wizards ORDER BY position")]
    connection.close()
    return names


@contextmanager
def own_socket(file: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start a server that binds a port of its own choice; give the process and the port."""
    command = ["hypercorn", "--config", "hypercorn.toml", "--bind", "127.0.0.1:0", *options, "asgi:app"]
    with started(command, f"sqlite:///{file}") as process:
        assert process.stdout is not None
        running = next(found for line in process.stdout if (found := re.search(r"Running on .*:(\d+)", line)))
        yield process, int(running[1])


@asynccontextmanager
async def under_load(
    port: int, append: Callable[[int, Outcome, int], Coroutine[None, None, None]], count: int = CLIENTS
) -> AsyncIterator[Outcome]:
    """Have clients append; go on when they had many answers, and end when the server refuses them all."""
    outcome = Outcome()
    async with asyncio.timeout(60), asyncio.TaskGroup() as clients:
        for client in range(count):
            clients.create_task(append(port, outcome, client))
        for _ in range(5 * count):
            await outcome.answers.acquire()
        yield outcome


@pytest.mark.parametrize("keep_alive", [False, True], ids=["one request a connection", "keep-alive"])
async def test_sigterm_under_load(tmp_path: Path, keep_alive: bool) -> None:  # noqa: FBT001
    """Whoever is connected is answered, whoever comes later is refused, and the server ends by itself."""
    with own_socket(tmp_path / "w.db") as (process, port):
        async with under_load(port, partial(append_until_refused, keep_alive=keep_alive)) as outcome:
            process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    outcome.check(names_in(tmp_path / "w.db"))
    assert outcome.dropped == []
    assert outcome.refused == CLIENTS


async def test_sigterm_under_load_with_workers(tmp_path: Path) -> None:
    """With a master requests may be dropped, but none is carried out unanswered, and none lost."""
    with own_socket(tmp_path / "w.db", "--workers", "2") as (process, port):
        async with under_load(port, ONE_BY_ONE) as outcome:
            process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    outcome.check(names_in(tmp_path / "w.db"))


@pytest.mark.parametrize(("count", "slow"), [(CLIENTS, False), (8, True)], ids=["many", "slow readers"])
async def test_sigterm_under_load_over_http2(tmp_path: Path, count: int, slow: bool) -> None:  # noqa: FBT001
    """Over HTTP/2 requests are refused in the end, but none is carried out unanswered, and none lost."""
    with own_socket(tmp_path / "w.db") as (process, port):
        async with under_load(port, partial(append_over_http2, slow=slow), count) as outcome:
            process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    outcome.check(names_in(tmp_path / "w.db"))


def begin_appends(port: int, count: int) -> list[socket.socket]:
    """Send appends and return their connections once the server has begun each of them."""
    connections = []
    for number in range(count):
        connection = socket.create_connection(("127.0.0.1", port), timeout=30)
        # The interim answer is sent when the request has been handed to the application.
        head = f"GET /wizards?name=begun{number} HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\n"
        connection.sendall(f"{head}Connection: close\r\n\r\n".encode())
        assert connection.recv(12) == b"HTTP/1.1 100"
        connections.append(connection)
    return connections


@pytest.mark.parametrize("workers", [0, 2])
def test_stop_answers_what_was_begun(tmp_path: Path, workers: int) -> None:
    """Appends that wait for the storage when SIGTERM comes are committed and answered before the end."""
    file = tmp_path / "w.db"
    with Server(tmp_path, f"sqlite:///{file}", workers=workers) as server:
        httpx.get(server.base_url + "/wizards").raise_for_status()
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        waiting = begin_appends(server.port, 20)
        server.signal(signal.SIGTERM)
        other.execute("ROLLBACK")
        other.close()
        for connection in waiting:
            assert b"HTTP/1.1 200" in receive_all(connection)
            connection.close()
        assert server.wait() == 0
    assert sorted(names_in(file)[3:]) == sorted(f"begun{number}" for number in range(20))
    assert "Traceback" not in server.output()


async def test_replaced_one_by_one(tmp_path: Path) -> None:
    """Behind one socket a server is replaced by another, and no client notices."""
    url = f"sqlite:///{tmp_path}/w.db"
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    old, new = (Server(tmp_path, url, listener=listener) for _ in range(2))
    with old:
        async with under_load(old.port, ONE_BY_ONE) as outcome:
            new.start()
            old.signal(signal.SIGTERM)
            assert await asyncio.to_thread(old.wait) == 0
            for _ in range(5 * CLIENTS):
                await outcome.answers.acquire()
            assert (outcome.refused, outcome.dropped, outcome.cut, outcome.turned_away) == (0, [], [], [])
            new.kill()  # ends the load; answers that the new server has begun are cut by that
            listener.close()
    present = set(names_in(tmp_path / "w.db"))
    assert present.issuperset(outcome.acknowledged)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("whole_group", [False, True])
def test_told_to_stop_twice(tmp_path: Path, number: signal.Signals, whole_group: bool) -> None:  # noqa: FBT001
    """Ctrl-C or SIGTERM, once more for good measure, to the server or to all of make's children, ends it."""
    with Server(tmp_path) as server:
        httpx.get(server.base_url + "/wizards").raise_for_status()
        server.signal(number, whole_group=whole_group)
        server.signal(number, whole_group=whole_group)
        assert server.wait(10) == 0
    lines = server.output().splitlines()
    assert [line.partition(": ")[2] for line in lines if "INFO in app" in line] == [
        "The list at sqlite:// is open; wizards: 3.",
        "The list is closed.",
    ]
    assert len(lines) == 3  # and where it listened


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_told_again_at_the_end(tmp_path: Path, number: signal.Signals) -> None:
    """Nor does it harm when all is done and the process only has to end."""
    with own_socket(tmp_path / "w.db") as (process, _):
        assert process.stdout is not None
        process.send_signal(number)
        assert any("The list is closed." in line for line in process.stdout)
        process.send_signal(number)
        assert process.wait(10) == 0


def test_orphaned_workers_end(tmp_path: Path) -> None:
    """When the master is killed its workers end by themselves."""
    with own_socket(tmp_path / "w.db", "--workers", "2") as (process, port):
        httpx.get(f"http://127.0.0.1:{port}/wizards").raise_for_status()
        process.kill()
        assert process.stdout is not None
        rest = process.stdout.read()  # ends when the last process that holds it has ended
        assert rest.count("The master is gone, so this worker ends.") == 2
        assert "Traceback" not in rest


async def test_stopped_before_the_first_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is told to stop before it had a request carries none out; without a server one is."""
    monkeypatch.setattr(run, "WorkerContext", WorkerContext)  # and back in the end
    stop = Stop(create_app({"DATABASE_URL": "sqlite://"}))
    stop.prepare()
    assert not stop.has_begun()
    context = run.WorkerContext(None)  # type: ignore[attr-defined]
    assert not stop.has_begun()
    await context.terminated.set()
    assert stop.has_begun()


def test_clients_who_leave(tmp_path: Path) -> None:
    """HTTP/2 clients who reset their connections while the server closes them harm no stop."""
    with Server(tmp_path) as server, ExitStack() as stack:
        clients = set()
        for _ in range(60):
            client = socket.create_connection(("127.0.0.1", server.port), timeout=10)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            clients.add(stack.enter_context(client))
            client.sendall(PREFACE + SETTINGS + frame(1, 5, 1, GET))
            receive_until(frame(0, 1, 1, b""), client)
        server.signal(signal.SIGTERM)
        while clients:
            for client in select.select(clients, [], [])[0]:
                client.close()
                clients.remove(client)
        assert server.wait(10) == 0
    assert "Traceback" not in server.output()


def send_on(port: int, begun: threading.Barrier) -> None:
    """Send requests over TLS, whatever is answered, until the connection is gone."""
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    with suppress(OSError), trusting.wrap_socket(socket.create_connection(("127.0.0.1", port))) as client:
        for turn in itertools.count():
            client.sendall(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
            if turn == 0:
                client.recv(1)
                begun.wait(10)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_clients_who_send_on_over_tls(tmp_path: Path, number: signal.Signals) -> None:
    """Clients who go on sending over TLS while the server closes their connections harm no stop."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make = f"openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=t -keyout {key} -out {certificate}"
    subprocess.run(make.split(), check=True, capture_output=True)
    options = ("--certfile", str(certificate), "--keyfile", str(key))
    with Server(tmp_path, options=options) as server, ThreadPoolExecutor() as threads:
        begun = threading.Barrier(5)
        clients = [threads.submit(send_on, server.port, begun) for _ in range(4)]
        begun.wait(10)
        server.signal(number)
        assert server.wait(10) == 0
        for client in clients:
            client.result()
    assert "Traceback" not in server.output()


NO_WINDOW = frame(4, 0, 0, b"\x00\x04\x00\x00\x00\x00")
CLINGING = {
    "nothing": b"",
    "half a head": b"GET / HTTP/1.1\r\nHost:",
    "half a body": b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\nabc",
    "half a handshake": b"GET / HTTP/1.1\r\nHost: t\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    "an HTTP/2 preface": PREFACE + SETTINGS,
    "an HTTP/2 request without its end": PREFACE + SETTINGS + frame(1, 4, 1, GET),
    "an HTTP/2 request and no window": PREFACE + NO_WINDOW + frame(1, 5, 1, GET),
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_clinging_clients(tmp_path: Path, number: signal.Signals) -> None:
    """Whatever clients leave unfinished, a stop ends within ten seconds, with status 0 and no traceback."""
    with ExitStack() as stack:
        servers = [stack.enter_context(Server(tmp_path)) for _ in CLINGING]
        for server, sent in zip(servers, CLINGING.values(), strict=True):
            httpx.get(server.base_url).raise_for_status()
            client = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            client.sendall(sent)
            httpx.get(server.base_url).raise_for_status()
            server.signal(number)
        for server, left in zip(servers, CLINGING, strict=True):
            assert (left, server.wait(10)) == (left, 0)
            assert server.output().endswith("The list is closed.\n")
            assert "Traceback" not in server.output()


def test_what_the_server_fails_at(tmp_path: Path) -> None:
    """It ends the connection, the requests under way on it too, and no stop waits for them."""
    with Server(tmp_path) as server, socket.create_connection(("127.0.0.1", server.port), 30) as client:
        client.sendall(PREFACE + SETTINGS + frame(1, 4, 1, GET))
        httpx.get(server.base_url).raise_for_status()
        client.sendall(frame(1, 5, 3, BAD_GET))
        receive_all(client)  # until the server closes it
        server.signal(signal.SIGTERM)
        assert server.wait(5) == 0
        assert "Traceback" not in server.output()


def test_body_of_a_refused_request(tmp_path: Path) -> None:
    """An HTTP/2 request with a body that comes after the stop has begun ends nobody's answer."""
    with Server(tmp_path) as server, ExitStack() as stack:
        stalled, idle = (
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 30)) for _ in range(2)
        )
        stalled.sendall(PREFACE + NO_WINDOW + frame(1, 5, 1, GET))
        idle.sendall(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
        assert idle.recv(2**16)
        server.signal(signal.SIGTERM)
        receive_all(idle)  # closed when the server has begun to stop
        stalled.sendall(frame(1, 4, 3, GET) + frame(0, 1, 3, b"body"))
        stalled.sendall(frame(8, 0, 1, b"\x00\x00\xff\xff"))  # a window for the first one
        receive_until(b"</p>", stalled)
        assert server.wait() == 0
        assert "Traceback" not in server.output()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_clinging_from_the_start(tmp_path: Path, number: signal.Signals) -> None:
    """So does one right after the start, on sockets of the server's own, of which there may be several."""
    with (
        own_socket(tmp_path / "w.db", "--bind", "127.0.0.1:0") as (process, port),
        socket.create_connection(("127.0.0.1", port)) as client,
    ):
        client.sendall(CLINGING["an HTTP/2 request without its end"])
        httpx.get(f"http://127.0.0.1:{port}").raise_for_status()
        process.send_signal(number)
        assert process.wait(10) == 0
