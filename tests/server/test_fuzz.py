"""A real server answers any bytes with an expected status or closes the connection, and keeps running.

Each example is a batch of concurrent connections, each with its own bytes. With FUZZ=10000 in the environment
the tests send 10,000 new cases of each kind; without it they send a few, always the same.
"""

import asyncio
import os
import re
import struct
from collections.abc import Iterator

import hpack
import httpx
import pytest
from hyperframe.frame import DataFrame, Frame, HeadersFrame
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from support.http2_frames import PREFACE, SETTINGS, frame
from support.pages import GREETING
from support.servers import ROOT, Server

CASES = int(os.environ.get("FUZZ", "320"))  # of each kind
BATCH_SIZE = 20
FUZZ_SETTINGS = settings(
    max_examples=CASES // BATCH_SIZE,
    derandomize="FUZZ" not in os.environ,
    deadline=None,
    # No shrinking: it takes minutes, and the failing connection is shown anyway.
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)

# 501 is h11's answer to an unknown transfer coding (RFC 9112, section 6.1).
EXPECTED = {*range(100, 500), 501, 503, 507}
STATUS_LINE = re.compile(rb"HTTP/1\.1 (\d+)")


class Batch(list[list[bytes]]):
    """The parts that each of several concurrent connections sends."""

    def __repr__(self) -> str:
        """Return a short text instead of thousands of bytes."""
        return f"<{len(self)} connections>"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a server with the shipped settings, except for a short keep-alive timeout."""
    folder = tmp_path_factory.mktemp("fuzz")
    config = folder / "hypercorn.toml"
    config.write_text((ROOT / "hypercorn.toml").read_text() + "\nkeep_alive_timeout = 0.1\n")
    with Server(folder, options=("--config", str(config))) as server:
        yield server
        assert server.stop() == 0


def find_statuses(answer: bytes) -> set[int]:
    """Return the statuses in an answer over HTTP/1.1, over HTTP/2, or over HTTP/2 after an upgrade."""
    found = {int(status) for status in STATUS_LINE.findall(answer)}
    if found and found != {101}:
        return found
    frames = answer.partition(b"\r\n\r\n")[2] if found else answer
    decoder = hpack.Decoder()
    while len(frames) >= 9:
        frame, length = Frame.parse_frame_header(memoryview(frames[:9]))
        if isinstance(frame, HeadersFrame):
            block = decoder.decode(frames[9 : 9 + length], raw=True)
            found |= {int(value) for name, value in block if name == b":status"}
        frames = frames[9 + length :]
    return found


async def exchange(port: int, parts: list[bytes]) -> bytes:
    """Send the parts on a new connection, with time for the server after each; return the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = bytearray()
    reading = asyncio.create_task(read_into(answer, reader))
    try:
        for part in parts:
            writer.write(part)
            # The server closes the connection unless it waits for more bytes; after a while they follow.
            await asyncio.wait({reading}, timeout=0.2)
        if not reading.done():
            writer.write_eof()
        await asyncio.wait_for(reading, 10)
    except OSError:  # the server closed the connection with unread bytes
        pass
    finally:
        writer.transport.abort()
    return bytes(answer)


async def read_into(answer: bytearray, reader: asyncio.StreamReader) -> None:
    while data := await reader.read(2**16):
        answer.extend(data)


async def exchange_all(port: int, sent: Batch) -> list[bytes]:
    return await asyncio.gather(*(exchange(port, parts) for parts in sent))


def check_batch(server: Server, sent: Batch) -> None:
    """Send a batch; assert that every status is expected and that the server still works."""
    logged = len(server.output())
    for parts, answer in zip(sent, asyncio.run(exchange_all(server.port, sent)), strict=True):
        assert find_statuses(answer) <= EXPECTED, (parts, answer[:1000])
    assert httpx.get(server.base_url, timeout=10, trust_env=False).text == GREETING
    log = server.output()[logged:]
    assert "Traceback" not in log, log[-3000:]


HANDSHAKE = (
    b"GET /wizards HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Protocol: a\r\n\r\n\x81\x85abcd\x29\x07\x11\x16\x18"
)
REQUESTS = [
    b"GET /wizards?name=Luna HTTP/1.1\r\nHost: t\r\n\r\n",
    b"GET /wizards HTTP/1.1\r\nHost: t\r\nAccept-Encoding: gzip\r\nRange: bytes=0-9\r\nAccept: */*\r\n\r\n"
    * 2,
    b"POST /api/wizards HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nHarry",
    b"HEAD / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nHarry\r\n0\r\nX: y\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n",
    b"GET http://t/api/wizards HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    HANDSHAKE,
    (
        b"GET /wizards HTTP/1.1\r\nHost: t\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
    ),
    b"CONNECT t:80 HTTP/1.1\r\nHost: t\r\n\r\n",
]
PIECES = [
    *[b"\r\n", b"\n", b"\r", b" ", b":", b"\0", b"\xff", b"%", b"/", b"?", b"GET ", b"HTTP/1.1", b"HTTP/9.9"],
    *[b"Content-Length: 5\r\n", b"Content-Length: -1\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: [\r\n"],
    *[b"Upgrade: websocket\r\n", b"Upgrade: h2c\r\n", b"Connection: upgrade\r\n", b"HTTP2-Settings: !\r\n"],
    *[b"x" * 20_000, b"X: y\r\n" * 2_000],
]
EDITS = st.lists(
    st.tuples(
        st.integers(0, 400), st.sampled_from([0, 0, 1, 10]), st.sampled_from(PIECES) | st.binary(max_size=4)
    ),
    max_size=4,
)


def edit(data: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """Return `data` with some of its bytes replaced by others."""
    for place, cut, piece in edits:
        at = place % (len(data) + 1)
        data = data[:at] + piece + data[at + cut :]
    return data


HTTP1 = st.builds(edit, st.sampled_from(REQUESTS), EDITS) | st.binary(max_size=100)


@FUZZ_SETTINGS
@example(Batch([[HANDSHAKE.replace(b"Host: t", b"Host: ..")]]))
@given(st.lists(HTTP1.map(lambda data: [data]), min_size=BATCH_SIZE, max_size=BATCH_SIZE).map(Batch))
def test_http1(server: Server, sent: Batch) -> None:
    """Damaged HTTP/1.1 requests and random bytes do not break the server."""
    check_batch(server, sent)


PSEUDO = [
    *[(b":method", value) for value in (b"GET", b"GET", b"POST", b"CONNECT", b"", b"\xff")],
    *[(b":path", value) for value in (b"/", b"/wizards", b"/wizards?name=Luna", b"", b"*", b"/\xff", b"?\0")],
    *[(b":path", value) for value in (b"/wizards?name=\xff", b"//[", b"http://[bad", b"/" * 9_000)],
    *[(b":scheme", value) for value in (b"http", b"http", b"", b"\xff")],
    *[(b":authority", value) for value in (b"t", b"t", b"", b"[", b"\xff", b"a b")],
    *[(b":protocol", value) for value in (b"websocket", b"\xff")],
    *[(b":status", b"200"), (b":odd", b"x")],
]
FIELDS = [
    *[(b"host", b"t"), (b"Host", b"t"), (b"te", b"trailers"), (b"te", b"x"), (b"connection", b"close")],
    *[(b"content-length", b"5"), (b"content-length", b"x"), (b"transfer-encoding", b"chunked"), (b"", b"x")],
    *[(b"sec-websocket-version", b"13"), (b"\xff", b"\xff"), (b"x", b"\r\n\0"), (b"cookie", b"y" * 9_000)],
    *[
        (b"accept", b"application/json"),
        (b"x", b"y"),
        (b"if-range", b"W/"),
        (b"sec-fetch-site", b"cross-site"),
    ],
    *[(b"upgrade", b"h2c"), (b"range", b"bytes=\xff"), (b"accept-encoding", b"gzip"), (b"x ", b" y ")],
]
VALID = [(b":method", b"GET"), (b":path", b"/wizards"), (b":scheme", b"http"), (b":authority", b"t")]
HEADERS = st.builds(
    # Most blocks have one bad pseudo header at most; otherwise few would reach the application.
    lambda pseudo, fields: [pair for pair in VALID if pair[0] != pseudo[0]] + [pseudo, *fields],
    st.sampled_from(PSEUDO),
    st.just([]) | st.lists(st.sampled_from(FIELDS), max_size=2),
) | st.lists(st.sampled_from(PSEUDO + FIELDS), max_size=6)
ENCODED = HEADERS.map(lambda headers: hpack.Encoder().encode(headers))

STREAM = st.sampled_from([0, 1, 1, 3, 5, 2, 2**31 - 1])
FLAGS = st.sampled_from([0, 1, 4, 5, 5, 5, 8, 0x20, 0x2D, 0xFF])
NUMBER = st.sampled_from([0, 1, 2**14, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1])
SETTING = st.builds(lambda key, value: struct.pack(">HL", key, value), st.integers(0, 9), NUMBER)


async def test_conflicting_body_length(server: Server) -> None:
    """Bytes after a body with two conflicting lengths are not taken as a request (request smuggling)."""
    conflicting = b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n"
    for headers, answers in ((b"Transfer-Encoding: chunked\r\n", 2), (conflicting, 1)):
        first = b"POST /wizards HTTP/1.1\r\nHost: t\r\n%s\r\n0\r\n\r\n" % headers
        second = b"GET /wizards?name=smuggled HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
        answer = await exchange(server.port, [first + second])
        assert len(STATUS_LINE.findall(answer)) == answers


FRAMES = st.one_of(
    st.builds(frame, st.just(HeadersFrame.type), FLAGS, STREAM, ENCODED | st.binary(max_size=20)),
    st.builds(frame, st.just(DataFrame.type), FLAGS, STREAM, st.sampled_from([b"", b"x", b"x" * 2**14])),
    st.builds(
        frame, st.sampled_from([2, 3, 6, 7, 8]), FLAGS, STREAM, NUMBER.map(lambda n: struct.pack(">L", n))
    ),
    st.builds(
        frame, st.just(4), st.sampled_from([0, 1]), STREAM, st.lists(SETTING, max_size=3).map(b"".join)
    ),
    st.builds(frame, st.integers(0, 12), FLAGS, STREAM, st.binary(max_size=20), st.integers(0, 2)),
    st.just(SETTINGS * 200),
    st.just(
        b"".join(
            frame(1, 5, stream, hpack.Encoder().encode(VALID)) + frame(3, 0, stream, bytes(4))
            for stream in range(7, 107, 2)
        )
    ),
)
# Most connections start with requests; otherwise few would get past the first frame.
OPENING = st.builds(
    lambda ends, blocks: b"".join(frame(1, 4 | ends, 2 * i + 1, block) for i, block in enumerate(blocks)),
    st.sampled_from([0, 1, 1]),
    st.lists(ENCODED, max_size=3),
)
HTTP2 = st.builds(
    # The server drops all frames that arrive together with a broken one, so some frames are sent separately.
    lambda edits, opening, frames: [edit(PREFACE + SETTINGS + opening, edits), b"".join(frames)],
    st.just([]) | st.just([]) | EDITS,
    OPENING,
    st.lists(FRAMES, max_size=4),
)


@FUZZ_SETTINGS
@given(st.lists(HTTP2, min_size=BATCH_SIZE, max_size=BATCH_SIZE).map(Batch))
def test_http2(server: Server, sent: Batch) -> None:
    """Broken HTTP/2 frames and floods of resets and settings do not break the server."""
    check_batch(server, sent)
