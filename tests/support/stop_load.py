"""Clients that append until the server closes, and a record of what happened to each request."""

import asyncio
import re
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from h2.connection import H2Connection
from h2.events import DataReceived, Event, ResponseReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError

STREAMS = 5  # concurrent appends of an HTTP/2 client


@dataclass
class Outcome:
    """The names that clients sent, sorted by the fate of the request."""

    acknowledged: list[str] = field(default_factory=list)  # 200 or 206
    rejected: list[str] = field(default_factory=list)  # 503
    truncated: list[str] = field(default_factory=list)  # a part of a response
    unanswered: list[str] = field(default_factory=list)  # connected and sent, but no byte of a response
    connections_refused: int = 0
    responses: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    def count(self, status: bytes, name: str) -> None:
        """Count a complete response."""
        assert status in {b"200", b"206", b"503"}, status
        (self.rejected if status == b"503" else self.acknowledged).append(name)
        self.responses.release()

    def check(self, names: Iterable[str]) -> None:
        """Assert that the final list holds every acknowledged name and no other that was sent."""
        present = set(names)
        assert not self.truncated
        assert present.issuperset(self.acknowledged)
        assert present.isdisjoint(self.rejected)
        assert present.isdisjoint(self.unanswered)


async def append_until_refused(port: int, outcome: Outcome, client: int, *, keep_alive: bool) -> None:
    """Append names of this client one by one until the server refuses a connection or fails a request."""
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    number = 0
    while True:
        if connection is None:
            try:
                connection = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                outcome.connections_refused += 1
                return
        persists = await _append(connection, outcome, f"c{client}n{number}", keep_alive=keep_alive)
        number += 1
        if not persists:
            connection[1].close()
            connection = None
        if outcome.unanswered or outcome.truncated:
            return


async def append_over_http2(port: int, outcome: Outcome, client: int, *, slow: bool) -> None:
    """Append names of this client, several at a time on one connection, until the server closes it."""
    connected = socket.create_connection(("127.0.0.1", port))
    if slow:  # a small receive buffer, so that responses wait in the server
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader, writer = await asyncio.open_connection(sock=connected)
    appends = HTTP2Appends(outcome, client)
    with suppress(OSError):
        writer.write(appends.connection.data_to_send())
        while data := await reader.read(2**16):
            for event in appends.connection.receive_data(data):
                appends.handle(event)
            writer.write(appends.connection.data_to_send())
    outcome.unanswered += appends.names.values()
    writer.close()


class HTTP2Appends:
    """An HTTP/2 client that keeps STREAMS appends open.

    httpx cannot serve here: on GOAWAY it drops open streams even if their responses have arrived.
    """

    def __init__(self, outcome: Outcome, client: int) -> None:
        self.connection = H2Connection()
        self.connection.initiate_connection()
        self.names: dict[int, str] = {}  # of the open streams
        self.statuses: dict[int, bytes] = {}
        self._outcome = outcome
        self._client = client
        for _ in range(STREAMS):
            self._append()

    def handle(self, event: Event) -> None:
        """Count a response when it is complete, and send the next append."""
        if isinstance(event, ResponseReceived):
            self.statuses[event.stream_id] = dict(event.headers)[b":status"]
        elif isinstance(event, DataReceived):
            self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            self._outcome.count(self.statuses[event.stream_id], self.names.pop(event.stream_id))
            self._append()
        elif isinstance(event, StreamReset):
            self._outcome.unanswered.append(self.names.pop(event.stream_id))

    def _append(self) -> None:
        stream = self.connection.get_next_available_stream_id()
        name = f"c{self._client}s{stream}"
        head = {":method": "GET", ":scheme": "http", ":authority": "test", ":path": f"/wizards?name={name}"}
        with suppress(ProtocolError):  # after GOAWAY no stream can be opened
            self.connection.send_headers(stream, head.items(), end_stream=True)
            self.names[stream] = name


async def _append(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    outcome: Outcome,
    name: str,
    *,
    keep_alive: bool,
) -> bool:
    reader, writer = connection
    option = "keep-alive" if keep_alive else "close"
    # Every other request goes through Quart.
    byte_range = "Range: bytes=0-0\r\n" if name[-1] in "02468" else ""
    request = f"GET /wizards?name={name} HTTP/1.1\r\nHost: test\r\n{byte_range}Connection: {option}\r\n\r\n"
    head = b""
    try:
        writer.write(request.encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        assert length is not None
        await reader.readexactly(int(length[1]))
    except (OSError, asyncio.IncompleteReadError):
        (outcome.truncated if head else outcome.unanswered).append(name)
        return False
    outcome.count(head.split()[1], name)
    close_headers = head.lower().count(b"connection: close")
    assert close_headers <= 1, head
    return not close_headers
