"""HTTP/3 over QUIC, with aioquic as client."""

import asyncio
import os
import re
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from unittest.mock import AsyncMock, Mock

import pytest

from support.certificates import make_certificate
from support.connections import Application, settle
from support.servers import run_module
from support.stores import read_table
from wizards.server.context import ServerContext

if "CI" not in os.environ:
    pytest.importorskip("aioquic", reason="HTTP/3 needs the extra h3")

from aioquic.h3.connection import ErrorCode
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.task_group import TaskGroup
from hypercorn.config import Config
from hypercorn.events import Closed
from hypercorn.typing import ConnectionState

from support.quic_client import connected
from wizards.server.http3 import HTTP3Protocol
from wizards.server.quic import QUICProtocol


@contextmanager
def quic_server(directory: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start a server on a QUIC socket; yield the process and the port."""
    certificate, key = make_certificate(directory)
    command = ["hypercorn", "--config", "hypercorn.toml", "--workers", "0", "--bind", "127.0.0.1:0"]
    command += ["--quic-bind", "127.0.0.1:0", "--certfile", certificate, "--keyfile", key, "asgi:app"]
    with run_module(command, f"sqlite:///{directory}/w.db") as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        running = next(found for line in lines if (found := re.search(r":(\d+) \(QUIC\)", line)))
        yield process, int(running[1])


class Stub:
    """In place of aioquic's two connections: the events to come, and the streams that were reset."""

    def __init__(self, *_: Any) -> None:
        self.events: list[H3Event] = []
        self.reset: list[tuple[int, int]] = []
        self._quic = self

    def handle_event(self, _: object) -> list[H3Event]:
        events, self.events = self.events, []
        return events

    def reset_stream(self, stream_id: int, code: int) -> None:
        self.reset.append((stream_id, code))

    def stop_stream(self, stream_id: int, code: int) -> None:
        pass

    def send_headers(self, *_: object) -> None:
        pass

    send_data = send_headers


def head(stream: int, path: bytes = b"/", method: bytes = b"GET", *, ended: bool = True) -> HeadersReceived:
    headers = [(b":method", method), (b":scheme", b"https"), (b":authority", b"t"), (b":path", path)]
    return HeadersReceived(headers, stream, stream_ended=ended)


async def exchange(events: list[H3Event], *, is_stopping: bool = False) -> tuple[Stub, Application]:
    """Let a connection take events; return its stub and the application."""
    config, app, stub = Config(), Application(), Stub()
    context = ServerContext(None, config)
    if is_stopping:
        await context.terminated.set()

    async def send() -> None:
        pass

    async with TaskGroup(asyncio.get_running_loop()) as group:
        wrapped, state = ASGIWrapper(cast(Any, app)), ConnectionState(cast(Any, {}))
        quic = QuicConnection(configuration=QuicConfiguration(is_client=True))
        protocol = HTTP3Protocol(wrapped, config, context, group, state, None, None, quic, send)
        protocol.connection = protocol._quic = cast(Any, stub)
        stub.events = events
        await protocol.handle(cast(Any, None))
        await settle()
    return stub, app


async def test_a_failing_request_is_reset_alone() -> None:
    """A path and a method that are not ASCII reset their streams; the next request is answered."""
    stub, app = await exchange([head(0, b"/\xff"), head(4, method=b"G\xffT"), head(8)])
    assert stub.reset == [(0, ErrorCode.H3_MESSAGE_ERROR), (4, ErrorCode.H3_MESSAGE_ERROR)]
    assert app.answered == 1


async def test_requests_after_the_drain_are_rejected() -> None:
    """A request with a body that comes after the server has ceased to listen is rejected as not begun."""
    events = [head(0, ended=False), DataReceived(b"body", 0, stream_ended=True)]
    stub, app = await exchange(events, is_stopping=True)
    assert stub.reset == [(0, ErrorCode.H3_REQUEST_REJECTED)]
    assert app.requests == []


async def test_trailers_begin_no_request() -> None:
    """Trailers end the request that they belong to."""
    trailers = HeadersReceived([(b"x", b"y")], 0, stream_ended=True)
    _, app = await exchange([head(0, ended=False), DataReceived(b"body", 0, stream_ended=False), trailers])
    assert len(app.requests) == app.answered == 1


async def test_idle_connection_is_closed_at_a_stop() -> None:
    """A connection without a request under way is closed when the server has ceased to listen."""
    connection = AsyncMock(cids={b"id"}, h3=None, quic=Mock())
    protocol = QUICProtocol.__new__(QUICProtocol)  # without a certificate
    connection.quic.configure_mock(datagrams_to_send=Mock(return_value=[]), get_timer=Mock(return_value=None))
    protocol.connections, protocol.send = {b"id": connection}, AsyncMock()
    protocol.context = ServerContext(None, Config())
    await protocol.handle(Closed())
    connection.quic.close.assert_not_called()
    await protocol.context.terminated.set()
    await protocol.handle(Closed())
    connection.quic.close.assert_called_once_with(error_code=ErrorCode.H3_NO_ERROR)
    assert protocol.connections == {}


async def test_requests(tmp_path: Path) -> None:
    """All kinds of requests are answered on one connection, whatever fails on it and on another one."""
    with quic_server(tmp_path) as (process, port):
        async with connected(port) as client, connected(port) as other:
            for path, method in [(b"/\xff", b"GET"), (b"/", b"G\xffT")]:
                assert await client.request(path, method) == ErrorCode.H3_MESSAGE_ERROR
            for one in (client, other):
                assert await one.request(b"/") == (200, b"<p>Hello World from Flask!</p>")
                answer = await one.request(b"/wizards?name=Luna")
                assert isinstance(answer, tuple)
                assert answer[0] == 200
                assert b"Luna" in answer[1]
                answer = await one.request(b"/", b"POST", body=b"x" * 200_000, trailers=[(b"x", b"y")])
                assert isinstance(answer, tuple)
                assert answer[0] == 405
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 5) == 0
            assert process.stdout is not None
            assert "Traceback" not in process.stdout.read()
    assert read_table(tmp_path / "w.db").count("Luna") == 2


async def test_sigterm_under_load(tmp_path: Path) -> None:
    """A stop answers every append that it carries out, rejects later ones, and ends within ten seconds."""
    acknowledged: list[str] = []
    rejected: list[str] = []
    answers = asyncio.Semaphore(0)

    async def append(port: int, client_number: int) -> None:
        async with connected(port) as client:
            for number in range(100_000):
                name = f"c{client_number}n{number}"
                answer = await client.request(f"/wizards?name={name}".encode())
                if not isinstance(answer, tuple) or answer[0] != 200:
                    rejected.append(name)
                    return
                acknowledged.append(name)
                answers.release()

    with quic_server(tmp_path) as (process, port):
        async with asyncio.TaskGroup() as clients:
            for number in range(16):
                clients.create_task(append(port, number))
            for _ in range(160):
                await answers.acquire()
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 10) == 0
    present = set(read_table(tmp_path / "w.db"))
    assert present.issuperset(acknowledged)
    assert present.isdisjoint(rejected)


async def test_appends_under_way_are_answered(tmp_path: Path) -> None:
    """Appends that wait for the storage at SIGTERM are answered before the connection is closed."""
    with quic_server(tmp_path) as (process, port):
        async with connected(port) as client:
            await client.request(b"/wizards")
            other = sqlite3.connect(tmp_path / "w.db", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            waiting = [
                asyncio.create_task(client.request(b"/wizards?name=n%d" % number)) for number in range(9)
            ]
            await client.request(b"/")
            process.send_signal(signal.SIGTERM)
            await asyncio.sleep(1)  # the drain is over by then
            other.execute("ROLLBACK")
            other.close()
            for answer in await asyncio.gather(*waiting):
                assert isinstance(answer, tuple)
                assert answer[0] == 200
            assert await asyncio.to_thread(process.wait, 10) == 0
