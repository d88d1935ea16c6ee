"""A connection's idle time, its end, and what a client sends meanwhile."""

import asyncio
import random
import socket
import sqlite3
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest
from hypercorn.config import Config
from hypercorn.events import Closed

from support.connections import Application, make, settle
from support.http2_frames import BAD_GET, GET, PREFACE, SETTINGS, frame
from support.servers import Server
from wizards.server import shutdown
from wizards.server.connections import Connection
from wizards.server.context import ServerContext
from wizards.server.http1 import HTTP1Protocol
from wizards.server.http2 import HTTP2Protocol

REQUEST = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"


@pytest.mark.parametrize("first", ["request", "timeout"])
async def test_request_at_the_end_of_the_idle_time(first: str) -> None:
    """A request is carried out and answered, or neither, if it comes as the idle time ends."""
    app = Application()
    connection = make(Connection, app, keep_alive_timeout=60)
    running = asyncio.create_task(connection.run())
    await asyncio.sleep(0)
    steps = [lambda: connection.reader.feed_data(REQUEST), connection.idle_task.expire]
    for step in steps if first == "request" else reversed(steps):
        step()
    for _ in range(20):
        await asyncio.sleep(0)
    connection.reader.feed_eof()
    await running
    assert len(app.requests) == connection.writer.sent.count(b"ok")
    assert len(app.requests) or first == "timeout"


@pytest.mark.parametrize("sent", [b"", REQUEST[:9], REQUEST, PREFACE, PREFACE + frame(1, 1, 1, GET)])
async def test_idle_connection_is_closed(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing, half a head or an answered request a connection is closed when idle for too long."""
    monkeypatch.setattr("hypercorn.protocol.H2Protocol", HTTP2Protocol)
    monkeypatch.setattr("wizards.server.connections.GOAWAY_LINGER_SECONDS", 0.01)
    connection = make(Connection, Application(), keep_alive_timeout=0.01)
    connection.reader.feed_data(sent)
    async with asyncio.timeout(10):
        await connection.run()
    assert connection.writer.is_closing()


async def test_idle_time_begins_again_with_each_answer() -> None:
    """Requests move the end of the idle time without a new timer for each."""
    connection = make(Connection, Application(), keep_alive_timeout=60)
    running = asyncio.create_task(connection.run())
    await asyncio.sleep(0)
    timer, ends = connection.idle_task._handle, []
    for turn in range(1, 4):
        connection.reader.feed_data(REQUEST)
        while connection.writer.sent.count(b"ok") < turn or connection.protocol.protocol.stream:  # noqa: ASYNC110
            await asyncio.sleep(0)
        ends.append(connection.idle_task.until)
    assert ends == sorted(set(ends))
    assert connection.idle_task._handle is timer
    connection.reader.feed_eof()
    await running
    assert timer.cancelled()


async def test_connection_ends_when_its_client_closes() -> None:
    """A connection does not wait for its idle time when its client has closed it."""
    connection = make(Connection, Application(), keep_alive_timeout=600)
    connection.reader.feed_data(REQUEST)
    connection.reader.feed_eof()
    async with asyncio.timeout(10):
        await connection.run()
    assert connection.writer.sent.endswith(b"ok")
    assert connection.context.connections == set()


async def test_failing_connection_ends_alone() -> None:
    """What Hypercorn fails at in a connection ends it, and raises nothing."""
    connection = make(Connection, Application())
    connection.reader.feed_data(PREFACE + SETTINGS + frame(1, 5, 1, BAD_GET))
    async with asyncio.timeout(10):
        await connection.run()
    assert connection.writer.is_closing()


async def test_client_that_sends_on_while_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of TLS while a connection is closed raises nothing."""
    connection = make(Connection, Application())
    monkeypatch.setattr(connection.writer, "wait_closed", AsyncMock(side_effect=ssl.SSLError()))
    connection.reader.feed_eof()
    await connection.run()


async def test_client_of_http2_is_told_before_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle client of HTTP/2 gets GOAWAY, and may close by itself; what it sends then is not begun."""
    monkeypatch.setattr("hypercorn.protocol.H2Protocol", HTTP2Protocol)
    app = Application()
    connection = make(Connection, app)
    running = asyncio.create_task(connection.run())
    connection.reader.feed_data(PREFACE + SETTINGS)
    await settle()
    connection.expire()
    await settle()
    assert connection.writer.sent.endswith(frame(7, 0, 0, bytes(8)))
    assert not connection.writer.is_closing()
    connection.reader.feed_data(frame(1, 5, 1, GET))
    connection.reader.feed_eof()
    await running
    assert app.requests == []


async def test_drain() -> None:
    """A drain accepts the queue, refuses new connections, and ends when no request has come for a while."""
    context, accepted = ServerContext(None, Config()), asyncio.Event()

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await context.mark_request()
        accepted.set()
        writer.close()

    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    server = await asyncio.start_server(accept, sock=listener)
    with socket.create_connection(("127.0.0.1", port)):
        await shutdown.drain(context, [server], [listener], is_worker=False)
    assert accepted.is_set()
    assert context.is_draining
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


class Stream(Application):
    """An application whose responses go on until the client has left."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.requests.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begin", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass


async def test_pipelined_request_behind_a_lost_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection ends when its client is lost, although a request waits for the response before it."""
    monkeypatch.setattr("hypercorn.protocol.H11Protocol", HTTP1Protocol)
    connection = make(Connection, Stream())
    connection.reader.feed_data(2 * b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
    running = asyncio.create_task(connection.run())
    await settle()
    assert connection.writer.sent.endswith(b"begin\r\n")
    await connection.protocol.handle(Closed())
    connection.reader.feed_eof()
    async with asyncio.timeout(10):
        await running


async def test_pipelined_request_behind_the_last_response(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection ends with the response during which the server has ended, although a request waits."""
    monkeypatch.setattr("hypercorn.protocol.H11Protocol", HTTP1Protocol)
    connection = make(Connection, app := Application(waits=True))
    connection.reader.feed_data(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\n")
    running = asyncio.create_task(connection.run())
    await settle()
    await connection.context.terminated.set()
    connection.reader.feed_data(b"x" + REQUEST)
    async with asyncio.timeout(10):
        await running
    assert len(app.requests) == app.answered == 1


def test_listener_that_two_workers_have_shut_down() -> None:
    """A listening socket that was shut down, once or twice, has no pending connections."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()):
            assert shutdown._has_pending_connections(listener)
            listener.accept()[0].close()
        for _ in range(2):
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            assert not shutdown._has_pending_connections(listener)


async def test_abort(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection whose request never ends is aborted a while after the server has ceased to listen."""
    monkeypatch.setattr("wizards.server.context.ABORT_TIMEOUT", 0.01)
    connection = make(Connection, Application(waits=True))
    monkeypatch.setattr(connection.writer, "abort", connection.writer.close, raising=False)
    connection.reader.feed_data(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\nhalf")
    running = asyncio.create_task(connection.run())
    await settle()
    await connection.context.end_connections()
    assert not connection.writer.is_closing()
    async with asyncio.timeout(10):
        await running


async def append_late(port: int, name: str, delay: float) -> bool:
    """Make a request, wait, and append on the same connection; return whether there was an answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(REQUEST)
        await reader.readuntil(b"</p>")
        await asyncio.sleep(delay)
        writer.write(b"GET /wizards?name=%s HTTP/1.1\r\nHost: t\r\n\r\n" % name.encode())
        return bool(await reader.read(1))
    except OSError:
        return False
    finally:
        writer.close()


async def test_no_append_is_carried_out_unanswered(tmp_path: Path) -> None:
    """Hundreds of appends come as their connections' idle time ends: those in the list were answered."""
    jitter = random.Random(1)
    file = tmp_path / "w.db"
    with Server(tmp_path, f"sqlite:///{file}", options=("--keep-alive", "1")) as server:
        names = [f"late{number}" for number in range(400)]
        delays = (1 + jitter.uniform(-0.05, 0.05) for _ in names)
        answered = await asyncio.gather(*map(append_late, [server.port] * len(names), names, delays))
        assert await asyncio.to_thread(server.stop) == 0
    with sqlite3.connect(file) as connection:
        present = {name for (name,) in connection.execute("SELECT name FROM wizards")}
    connection.close()
    assert {name for name, got in zip(names, answered, strict=True) if got} == present.intersection(names)
