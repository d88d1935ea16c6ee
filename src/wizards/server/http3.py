"""HTTP/3: a request that fails is reset alone, and the client is told when the server stops."""

from contextlib import suppress
from typing import Any

from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import ErrorCode, FrameType, encode_frame
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import QuicEvent, StopSendingReceived, StreamReset
from hypercorn.protocol import h3
from hypercorn.protocol.events import Body, EndBody, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent

# A stream that no client reaches: GOAWAY with it asks for no more requests, and refuses none (RFC 9114, 5.2).
LAST_STREAM = 2**62 - 4


class HTTP3Protocol(h3.H3Protocol):
    """A connection of HTTP/3."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._quic: QuicConnection = args[7]
        self._has_sent_goaway = False

    def is_idle(self) -> bool:
        """Return whether no request is under way, and all responses have been received."""
        # aioquic forgets a stream when its end was acknowledged. Every fourth is a request (RFC 9000, 2.1).
        return not self.streams and all(stream_id % 4 for stream_id in self._quic._streams)  # noqa: SLF001

    def send_goaway(self) -> None:
        """Ask the client for no more requests on this connection, once."""
        if not self._has_sent_goaway:
            self._has_sent_goaway = True
            frame = encode_frame(FrameType.GOAWAY, encode_uint_var(LAST_STREAM))
            control: Any = self.connection._local_control_stream_id  # noqa: SLF001
            self._quic.send_stream_data(control, frame)

    async def handle(self, quic_event: QuicEvent) -> None:
        """Take what happened on the connection. Raises what aioquic and Hypercorn fail at."""
        if isinstance(quic_event, StreamReset | StopSendingReceived):
            await self.end_stream(quic_event.stream_id)
        for event in self.connection.handle_event(quic_event):
            if not isinstance(event, HeadersReceived | DataReceived):
                continue
            if isinstance(event, HeadersReceived) and event.stream_id not in self.streams:
                await self._begin(event)
            stream = self.streams.get(event.stream_id)
            if stream is not None and isinstance(event, DataReceived):
                await stream.handle(Body(event.stream_id, event.data))
            if stream is not None and event.stream_ended:
                await stream.handle(EndBody(event.stream_id))

    async def end_stream(self, stream_id: int) -> None:
        """Tell the application that the client of a request has left."""
        stream = self.streams.pop(stream_id, None)
        if stream is not None:
            await stream.handle(StreamClosed(stream_id))

    async def stream_send(self, event: StreamEvent) -> None:
        """Send what a stream has to say, unless its client has left."""
        if event.stream_id in self.streams:
            await super().stream_send(event)
        if isinstance(event, StreamClosed) and self.context.terminated.is_set():
            await self.send()  # and close, if this was the last one

    async def _begin(self, event: HeadersReceived) -> None:
        if self.context.terminated.is_set():
            # Not begun, so that the client may send it again (RFC 9114, section 4.1.1).
            self._refuse(event.stream_id, ErrorCode.H3_REQUEST_REJECTED)
            return
        try:
            await self._create_stream(event)
        except UnicodeError:  # a method or a path that is not ASCII
            self.streams.pop(event.stream_id, None)
            self._refuse(event.stream_id, ErrorCode.H3_MESSAGE_ERROR)

    def _refuse(self, stream_id: int, code: int) -> None:
        self._quic.reset_stream(stream_id, code)
        with suppress(ValueError):  # it has ended
            self._quic.stop_stream(stream_id, code)
