"""A client of HTTP/3, one connection each."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, QuicEvent, StreamReset

# The status and the body of a response, or the code with which its stream or its connection ended.
Answer = tuple[int, bytes] | int


class HTTP3Client(QuicConnectionProtocol):
    """One connection, which sends any bytes as method and path."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._http = H3Connection(self._quic)
        self._answers: dict[int, asyncio.Future[Answer]] = {}
        self._received: dict[int, tuple[int, bytes]] = {}
        self.end: int | None = None

    async def request(
        self,
        path: bytes,
        method: bytes = b"GET",
        *,
        body: bytes | None = None,
        trailers: list[tuple[bytes, bytes]] | None = None,
    ) -> Answer:
        """Make a request and wait for its answer."""
        if self.end is not None:
            return self.end
        stream = self._quic.get_next_available_stream_id()
        answer = self._answers[stream] = asyncio.get_running_loop().create_future()
        head = [(b":method", method), (b":scheme", b"https"), (b":authority", b"t"), (b":path", path)]
        self._http.send_headers(stream, head, end_stream=body is None)
        if body is not None:
            self._http.send_data(stream, body, end_stream=not trailers)
        if trailers:
            self._http.send_headers(stream, trailers, end_stream=True)
        self.transmit()
        async with asyncio.timeout(30):
            result: Answer = await answer
            return result

    def quic_event_received(self, event: QuicEvent) -> None:
        """Take what the server has sent."""
        if isinstance(event, ConnectionTerminated):
            self.end = event.error_code
            for stream in self._answers:
                self._finish(stream, event.error_code)
        elif isinstance(event, StreamReset):
            self._finish(event.stream_id, event.error_code)
        for part in self._http.handle_event(event):
            if not isinstance(part, HeadersReceived | DataReceived):
                continue
            status, body = self._received.get(part.stream_id, (0, b""))
            if isinstance(part, HeadersReceived):
                status = int(dict(part.headers)[b":status"])
            else:
                body += part.data
            self._received[part.stream_id] = status, body
            if part.stream_ended:
                self._finish(part.stream_id, (status, body))

    def _finish(self, stream: int, answer: Answer) -> None:
        future = self._answers.get(stream)
        if future is not None and not future.done():
            future.set_result(answer)


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[HTTP3Client]:
    """Connect to a port of this machine, whatever its certificate."""
    trusting = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, verify_mode=ssl.CERT_NONE)
    async with connect("127.0.0.1", port, configuration=trusting, create_protocol=HTTP3Client) as client:
        assert isinstance(client, HTTP3Client)
        yield client
