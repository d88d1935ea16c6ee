"""Clients that go on appending until the server refuses them, and what became of their requests."""

import asyncio
import re
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from h2.connection import H2Connection
from h2.events import DataReceived, Event, ResponseReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError


@dataclass
class Outcome:
    """The names that were asked for, by what became of the request."""

    acknowledged: list[str] = field(default_factory=list)
    turned_away: list[str] = field(default_factory=list)  # 503
    cut: list[str] = field(default_factory=list)  # a part of an answer
    dropped: list[str] = field(default_factory=list)  # connected and sent, but no byte of an answer
    refused: int = 0  # no connection
    answers: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    def count(self, status: bytes, name: str) -> None:
        """Count an answer."""
        assert status in {b"200", b"206", b"503"}, status
        (self.turned_away if status == b"503" else self.acknowledged).append(name)
        self.answers.release()

    def check(self, names: Iterable[str]) -> None:
        """Check against the final list: nothing acknowledged is missing, nothing unanswered is there."""
        present = set(names)
        assert not self.cut
        assert present.issuperset(self.acknowledged)
        assert present.isdisjoint(self.turned_away)
        assert present.isdisjoint(self.dropped)


async def append_until_refused(port: int, outcome: Outcome, client: int, *, keep_alive: bool) -> None:
    """Append names of this client, one by one, until the server is gone."""
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    number = 0
    while True:
        if connection is None:
            try:
                connection = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                outcome.refused += 1
                return
        goes_on = await _append(connection, outcome, f"c{client}n{number}", keep_alive=keep_alive)
        number += 1
        if not goes_on:
            connection[1].close()
            connection = None
        if outcome.dropped or outcome.cut:
            return


async def append_over_http2(port: int, outcome: Outcome, client: int, *, slow: bool) -> None:
    """Append names of this client, five at a time on one connection, until the server ends it."""
    its_socket = socket.create_connection(("127.0.0.1", port))
    if slow:  # its answers wait on the server's side
        its_socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader, writer = await asyncio.open_connection(sock=its_socket)
    lanes = Lanes(outcome, client)
    with suppress(OSError):
        writer.write(lanes.connection.data_to_send())
        while data := await reader.read(2**16):
            for event in lanes.connection.receive_data(data):
                lanes.handle(event)
            writer.write(lanes.connection.data_to_send())
    outcome.dropped += lanes.names.values()
    writer.close()


class Lanes:
    """A client of HTTP/2 that appends five names at a time.

    httpx will not do: it gives up what is under way at a GOAWAY, even if the answer has come already.
    """

    def __init__(self, outcome: Outcome, client: int) -> None:
        self.connection = H2Connection()
        self.connection.initiate_connection()
        self.names: dict[int, str] = {}  # of the streams under way
        self.statuses: dict[int, bytes] = {}
        self._outcome = outcome
        self._client = client
        for _ in range(5):
            self._append()

    def handle(self, event: Event) -> None:
        """Take an answer, count it, and append once more."""
        if isinstance(event, ResponseReceived):
            self.statuses[event.stream_id] = dict(event.headers)[b":status"]
        elif isinstance(event, DataReceived):
            self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            self._outcome.count(self.statuses[event.stream_id], self.names.pop(event.stream_id))
            self._append()
        elif isinstance(event, StreamReset):
            self._outcome.dropped.append(self.names.pop(event.stream_id))

    def _append(self) -> None:
        stream = self.connection.get_next_available_stream_id()
        name = f"c{self._client}s{stream}"
        head = {":method": "GET", ":scheme": "http", ":authority": "test", ":path": f"/wizards?name={name}"}
        with suppress(ProtocolError):  # the server takes no more
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
    wish = "keep-alive" if keep_alive else "close"
    part = "Range: bytes=0-0\r\n" if name[-1] in "02468" else ""  # every other one through Quart
    request = f"GET /wizards?name={name} HTTP/1.1\r\nHost: test\r\n{part}Connection: {wish}\r\n\r\n"
    head = b""
    try:
        writer.write(request.encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        assert length is not None
        await reader.readexactly(int(length[1]))
    except (OSError, asyncio.IncompleteReadError):
        (outcome.cut if head else outcome.dropped).append(name)
        return False
    outcome.count(head.split()[1], name)
    told_to_close = head.lower().count(b"connection: close")
    assert told_to_close <= 1, head
    return not told_to_close
