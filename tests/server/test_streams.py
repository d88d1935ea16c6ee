"""Requests one by one: refused handshakes, upgrades, and one access-log line for each."""

import asyncio
import re
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.task_group import TaskGroup
from hypercorn.config import Config
from hypercorn.events import RawData
from hypercorn.protocol.events import EndBody, Event, Request, Response, StreamClosed
from hypercorn.protocol.h11 import H2CProtocolRequiredError
from hypercorn.typing import ConnectionState

from support.connections import Application, running, settle
from support.http2_frames import GET, PREFACE, SETTINGS, frame
from support.servers import Server
from support.sockets import connect, receive_all, receive_until
from wizards.server.context import ServerContext
from wizards.server.http1 import HTTP1Protocol
from wizards.server.streams import HTTPStream, WSStream


class Log:
    """In place of Hypercorn's log: the statuses of its access log's lines."""

    def __init__(self) -> None:
        self.statuses: list[int | None] = []

    async def access(self, request: Any, response: Any, seconds: float) -> None:  # noqa: ARG002
        self.statuses.append(response and response["status"])


async def send_request(
    kind: type[HTTPStream] | type[WSStream],
    headers: list[tuple[bytes, bytes]],
    leaves_at: type[Event],
    **settings: Any,
) -> tuple[list[Event], list[int | None]]:
    """Give a stream a request whose client leaves as an event is sent; return all events and the log."""
    config, events, log = Config.from_mapping(settings), [], Log()
    config._log = cast(Any, log)
    loop = asyncio.get_running_loop()
    async with TaskGroup(loop) as group:

        async def send(event: Event) -> None:
            events.append(event)
            if isinstance(event, leaves_at):
                await stream.handle(StreamClosed(stream_id=1))

        context = ServerContext(None, config)
        app = ASGIWrapper(cast(Any, Application()))
        stream = kind(app, config, context, group, False, None, None, send, 1)  # noqa: FBT003
        state = ConnectionState(cast(Any, {}))
        await stream.handle(Request(1, headers, "1.1", "GET", b"/", state))
    return events, log.statuses


HANDSHAKE = [
    (b"connection", b"upgrade"),
    (b"upgrade", b"websocket"),
    (b"sec-websocket-key", b"a2V5"),
    (b"sec-websocket-version", b"13"),
]


@pytest.mark.parametrize("broken", [2, 3], ids=["no key", "no version"])
async def test_refused_handshake_ends_its_stream(broken: int) -> None:
    """A handshake without a key or version gets a 400, and its stream ends."""
    headers = HANDSHAKE[:broken] + HANDSHAKE[broken + 1 :]
    events, statuses = await send_request(WSStream, headers, StreamClosed)
    assert [type(event) for event in events] == [Response, EndBody, StreamClosed]
    assert statuses == [400]


async def test_refused_host_ends_its_stream() -> None:
    """A request for a host that is not served gets a 404, and its stream ends."""
    events, statuses = await send_request(
        HTTPStream, [(b"host", b"t")], StreamClosed, server_names=["example"]
    )
    assert [type(event) for event in events] == [Response, EndBody, StreamClosed]
    assert statuses == [404]


@pytest.mark.parametrize("leaves_at", [Response, EndBody, StreamClosed])
async def test_a_request_is_logged_once(leaves_at: type[Event]) -> None:
    """A request is one line of the access log, whenever its client leaves."""
    _, statuses = await send_request(HTTPStream, [(b"host", b"t")], leaves_at)
    assert len(statuses) == 1
    assert statuses == [200] or leaves_at is Response


H2C = (
    b"GET / HTTP/1.1\r\nHost: t\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABk\r\n\r\n"
)
IGNORED = {
    "not listed": H2C.replace(b"Upgrade, HTTP2", b"HTTP2"),
    "settings not listed": H2C.replace(b", HTTP2-Settings", b""),
    "no settings": H2C.replace(b"HTTP2-Settings: AAMAAABk\r\n", b""),
    "HTTP/1.0": H2C.replace(b"HTTP/1.1", b"HTTP/1.0"),
}


async def test_complete_upgrade() -> None:
    """An upgrade to HTTP/2 that is asked for as RFC 7540 has it is taken."""
    async with running(HTTP1Protocol, Application()) as (protocol, wire):
        with pytest.raises(H2CProtocolRequiredError):
            await protocol.handle(RawData(H2C))
        assert wire.sent.startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize("request_bytes", IGNORED.values(), ids=IGNORED)
async def test_incomplete_upgrade_is_ignored(request_bytes: bytes) -> None:
    """Any other is ignored (RFC 9110, section 7.8)."""
    async with running(HTTP1Protocol, Application()) as (protocol, wire):
        await protocol.handle(RawData(request_bytes))
        await settle()
        assert wire.sent.startswith(b"HTTP/1.1 200 ")


async def test_responses_have_a_reason() -> None:
    """Each response has the reason phrase of its status, as Flask's servers send it."""
    async with running(HTTP1Protocol, Application()) as (protocol, wire):
        await protocol.handle(RawData(b"POST / HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\n"))
        await protocol.handle(RawData(b"Content-Length: 1\r\n\r\nx"))
        await settle()
        await protocol.handle(RawData(b":\r\n\r\n"))
        assert re.findall(rb"HTTP/1.1 (.*)\r\n", wire.sent) == [
            b"100 CONTINUE",
            b"200 OK",
            b"400 BAD REQUEST",
        ]


async def test_drain_tells_clients_to_close() -> None:
    """During a drain each response is its connection's last one, and says so once."""
    async with running(HTTP1Protocol, Application()) as (protocol, wire):
        protocol.context.is_draining = True
        await protocol.handle(RawData(b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"))
        await settle()
        assert wire.sent.lower().count(b"connection: close") == 1
        assert wire.is_closed


HEAD = b"GET / HTTP/1.1\r\nHost: t\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
REFUSED = {
    "no key": (HEAD + b"Sec-WebSocket-Version: 13\r\n\r\n", b"400"),
    "wrong version": (HEAD + b"Sec-WebSocket-Key: a2V5\r\nSec-WebSocket-Version: 9\r\n\r\n", b"400"),
    "bytes behind": (HEAD + b"Sec-WebSocket-Key: a2V5\r\nSec-WebSocket-Version: 13\r\n\r\nx", b"400"),
    "another host": (b"GET / HTTP/1.1\r\nHost: other\r\n\r\n", b"404"),
}


def test_refused_requests_close(tmp_path: Path) -> None:
    """What the server refuses by itself gets one answer, and its connection is closed."""
    options = ("--keep-alive", "600", "--server-name", "t", "--access-logfile", "-")
    with Server(tmp_path, options=options) as server, ExitStack() as stack:
        for sent, status in REFUSED.values():
            client = stack.enter_context(connect(server.port))
            client.sendall(sent)
            assert re.findall(rb"HTTP/1.1 (\d+)", receive_all(client)) == [status]
        assert server.stop() == 0
        assert server.output().count('"GET / ') == len(REFUSED)


def test_reasons(tmp_path: Path) -> None:
    """The first and each further response has its reason, from the application and from the server."""
    with Server(tmp_path) as server:
        for target, reason in (b"/", b"OK"), (b"/nowhere", b"NOT FOUND"), (b"/\xff", b"BAD REQUEST"):
            for _ in range(2):
                with connect(server.port) as client:
                    client.sendall(b"GET %b HTTP/1.1\r\nHost: t\r\n\r\n" % target)
                    line = receive_until(b"\r\n", client).partition(b"\r\n")[0]
                    assert line.split(b" ", 2)[2] == reason


def test_upgrade(tmp_path: Path) -> None:
    """Only a complete upgrade is answered in HTTP/2."""
    with Server(tmp_path) as server:
        for sent in (H2C, *IGNORED.values()):
            with connect(server.port) as client:
                client.sendall(sent)
                if sent == H2C:
                    client.sendall(PREFACE + SETTINGS)
                    receive_until(b"</p>", client)
                else:
                    assert receive_until(b"</p>", client).startswith(b"HTTP/1.1 200 ")


def test_requests_are_logged_once(tmp_path: Path) -> None:
    """A client of HTTP/2 that resets its requests gets one line for each in the access log."""
    with Server(tmp_path, options=("--access-logfile", "-")) as server, connect(server.port) as client:
        client.sendall(PREFACE + SETTINGS)
        for stream in range(1, 201, 2):
            client.sendall(
                frame(1, 4 if stream % 4 == 1 else 5, stream, GET) + frame(3, 0, stream, b"\0\0\0\x08")
            )
        client.sendall(frame(1, 5, 201, GET))
        receive_until(b"</p>", client)
        client.shutdown(socket.SHUT_WR)
        receive_all(client)
        assert server.stop() == 0
    assert server.output().count('"GET / ') == 101
