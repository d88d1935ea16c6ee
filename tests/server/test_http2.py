"""HTTP/2: what clients may set, grow, refuse and break, without a server and with one."""

import asyncio
import struct
from collections.abc import Iterable
from contextlib import closing, suppress
from itertools import repeat
from pathlib import Path

import hpack
import httpx
import pytest
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, StreamEnded
from h2.settings import SettingCodes
from hypercorn.events import Closed, RawData

from support.connections import Application, running, settle
from support.http2_frames import GET, PREFACE, SETTINGS, frame
from support.servers import Server
from support.sockets import connect, receive_all, receive_until
from wizards.server.context import ServerEvent
from wizards.server.http2 import CHUNK_SIZE, Encoder, HTTP2Protocol, StreamBuffer


def settings(*pairs: tuple[int, int]) -> bytes:
    """Return a SETTINGS frame."""
    return frame(4, 0, 0, b"".join(struct.pack(">HL", *pair) for pair in pairs))


async def test_encoder_table_is_bounded() -> None:
    """A client may make the encoder's table smaller and restore it, but not larger."""
    encoder, decoder = Encoder(), hpack.Decoder()
    sizes = []
    for size in (2**32 - 1, 100, 8_000, 50, 4_096):
        encoder.header_table_size = size
        sizes.append(encoder.header_table_size)
    assert sizes == [4_096, 100, 4_096, 50, 4_096]
    assert len(encoder.table_size_changes) == 2
    for number in range(300):
        decoder.decode(encoder.encode([("content-range", f"{number}")]))
    assert encoder.header_table._current_size <= 4_096


async def test_client_sets_nothing_that_grows() -> None:
    """Settings, priorities and streams that a client names for the sake of it are not kept."""
    async with running(HTTP2Protocol, Application()) as (protocol, _):
        await protocol.handle(RawData(PREFACE))
        for number in range(3_000):
            await protocol.handle(RawData(settings((SettingCodes.HEADER_TABLE_SIZE, number))))
            await protocol.handle(RawData(settings((100 + number, 1))))
            await protocol.handle(RawData(frame(2, 0, 2 * number + 1, struct.pack(">LB", 0, 1))))
        for number in range(3_000):
            await protocol.handle(RawData(frame(1, 5, 2 * number + 1, GET)))
            await protocol.handle(RawData(frame(3, 0, 2 * number + 1, struct.pack(">L", 8))))
            if number % 100 == 0:
                await settle()
        await settle()
        kept = {
            name: len(value) for name, value in vars(protocol.connection).items() if hasattr(value, "__len__")
        }
        kept |= {name: len(value) for name, value in vars(protocol).items() if hasattr(value, "__len__")}
        kept["tree"] = len(protocol.priority._streams)
        kept["settings"] = len(protocol.connection.remote_settings)
        kept["changes"] = len(protocol.connection.encoder.table_size_changes)
        assert {name: size for name, size in kept.items() if size > 1_024} == {}


def reset_code(sent: bytes | bytearray, stream: int) -> int | None:
    """Return the error code of a stream's RST_STREAM among what was sent, if there is one."""
    _, found, code = sent.partition(frame(3, 0, stream, b"....")[:9])
    return int.from_bytes(code[:4]) if found else None


async def test_an_answer_without_an_event_is_sent() -> None:
    """DATA on a stream that has ended gets its RST_STREAM at once, not with the next request."""
    async with running(HTTP2Protocol, Application()) as (protocol, wire):
        await protocol.handle(RawData(PREFACE + SETTINGS + frame(1, 5, 1, GET)))
        await settle()
        del wire.sent[:]
        await protocol.handle(RawData(frame(0, 0, 1, b"late")))
        assert reset_code(wire.sent, 1) == ErrorCodes.STREAM_CLOSED


async def test_refused_stream_may_be_repeated() -> None:
    """A request after the server has ceased to listen is refused as not begun; its body is counted."""
    app = Application()
    async with running(HTTP2Protocol, app) as (protocol, wire):
        await protocol.handle(RawData(PREFACE + SETTINGS))
        await protocol.context.terminated.set()
        await protocol.handle(RawData(frame(1, 4, 1, GET) + frame(0, 1, 1, b"body")))
        assert reset_code(wire.sent, 1) == ErrorCodes.REFUSED_STREAM
        assert not protocol.closed
    assert app.requests == []


async def test_headers_are_bounded() -> None:
    """Headers that refer again and again to a long value end the connection before they are expanded."""
    value = hpack.Encoder().encode([("cookie", "x" * 4_000)], huffman=False)
    block = GET + value + b"\xbe" * 10
    app = Application()
    async with running(HTTP2Protocol, app, h2_max_header_list_size=16_384) as (protocol, wire):
        await protocol.handle(RawData(PREFACE + SETTINGS + frame(1, 5, 1, block)))
        assert wire.is_closed
    assert app.requests == []


@pytest.mark.parametrize("leaves", [frame(3, 0, 1, b"\0\0\0\x08"), None], ids=["reset", "closed"])
async def test_client_leaves_a_stalled_response(leaves: bytes | None) -> None:
    """An application that waits for a client's window goes on when the client resets or closes."""
    app = Application(b"x" * 10 * CHUNK_SIZE)
    async with running(HTTP2Protocol, app) as (protocol, wire):
        await protocol.handle(RawData(PREFACE + SETTINGS + frame(1, 5, 1, GET)))
        await settle()
        assert (len(app.requests), app.answered) == (1, 0)
        assert len(wire.sent) < 4 * CHUNK_SIZE
        await protocol.handle(Closed() if leaves is None else RawData(leaves))
        await settle()
        assert app.answered == 1


async def test_buffer_takes_more_when_it_is_empty() -> None:
    """A buffer accepts data while it is empty, and is drained when its stream has ended."""
    buffer = StreamBuffer(ServerEvent)
    pushing = asyncio.create_task(buffer.push(b"x" * 10))
    await settle()
    assert not pushing.done()
    assert await buffer.pop(20) == b"x" * 10
    await pushing
    buffer.set_complete()
    draining = asyncio.create_task(buffer.drain())
    await settle()
    assert not draining.done()
    await buffer.close()
    await draining


class Client:
    """A client of HTTP/2 that lets the server's headers refer to tables of any size."""

    def __init__(self, port: int) -> None:
        self._socket = connect(port)
        self._connection = H2Connection()
        self._connection.initiate_connection()
        self._connection.update_settings({SettingCodes.HEADER_TABLE_SIZE: 2**32 - 1})

    def request(self, paths: Iterable[str], ranges: Iterable[str]) -> None:
        """Make requests on one connection at once and wait for their responses."""
        waiting = set()
        for path, part in zip(paths, ranges, strict=False):
            stream = self._connection.get_next_available_stream_id()
            head = {":method": "GET", ":scheme": "http", ":authority": "t", ":path": path, "range": part}
            self._connection.send_headers(stream, head.items(), end_stream=True)
            waiting.add(stream)
        while waiting:
            self._socket.sendall(self._connection.data_to_send())
            for event in self._connection.receive_data(self._socket.recv(2**16)):
                if isinstance(event, DataReceived):
                    length = event.flow_controlled_length
                    self._connection.acknowledge_received_data(length, event.stream_id)
                elif isinstance(event, StreamEnded):
                    waiting.remove(event.stream_id)
        self._socket.sendall(self._connection.data_to_send())

    def close(self) -> None:
        self._socket.close()


def test_responses_cost_the_same_after_thousands(tmp_path: Path) -> None:
    """A client with an endless header table makes its own responses no dearer."""
    with Server(tmp_path) as server, closing(Client(server.port)) as client:
        client.request([f"/wizards?name={'x' * 250}"] * 16, repeat("bytes=0-0"))
        costs = []
        for volley in range(60):
            before = server.processor_time()
            client.request(repeat("/wizards"), [f"bytes=0-{50 * volley + number}" for number in range(50)])
            costs.append(server.processor_time() - before)
        assert sum(costs[-20:]) < 2 * sum(costs[:20])


def test_expanding_headers_end_the_connection(tmp_path: Path) -> None:
    """Headers that expand to megabytes cost no time, and nobody else's either."""
    value = hpack.Encoder().encode([("cookie", "x" * 4_000)], huffman=False)
    with Server(tmp_path) as server:
        httpx.get(server.base_url).raise_for_status()
        before = server.processor_time()
        with connect(server.port) as client:
            client.sendall(PREFACE + SETTINGS + frame(1, 1, 1, GET + value))
            for number in range(1, 18):
                with suppress(OSError):
                    client.sendall(frame(1, 5, 2 * number + 1, GET + b"\xbe" * 16_000))
            with suppress(OSError):
                receive_all(client)
        assert server.processor_time() - before < 0.5
        httpx.get(server.base_url).raise_for_status()


def test_preface_alone_times_out(tmp_path: Path) -> None:
    """A connection that begins HTTP/2 and makes no request is told to go away, and closed."""
    with Server(tmp_path, options=("--keep-alive", "1")) as server, connect(server.port) as client:
        client.sendall(PREFACE + SETTINGS)
        assert receive_all(client).endswith(frame(7, 0, 0, bytes(8)))


def test_settings_cost_no_memory(tmp_path: Path) -> None:
    """Tens of thousands of unknown settings take no memory, and make later frames no dearer."""
    with Server(tmp_path) as server, connect(server.port) as client:
        client.sendall(PREFACE)
        receive_until(SETTINGS[3:4], client)
        before = server.memory()
        for first in range(256, 65_536, 2_000):
            client.sendall(settings(*((code, 1) for code in range(first, min(first + 2_000, 65_536)))))
        client.sendall(frame(6, 0, 0, b"finished"))
        receive_until(b"finished", client)
        assert server.memory() - before < 24 * 2**20  # kept, they take 50 MiB
