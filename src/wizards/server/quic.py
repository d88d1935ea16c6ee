"""HTTP/3: a failure ends one connection, and a shutdown waits for pending responses.

Hypercorn serves all connections of a QUIC socket in one task, which any exception ended: a path that is not
ASCII, a trailer, data of a request that it had refused. Hypercorn also waited for datagrams after it was told
to stop.
"""

import logging
from asyncio import Queue, QueueFull
from contextlib import suppress
from typing import Any

from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import ErrorCode, FrameType, encode_frame
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import QuicEvent, StopSendingReceived, StreamReset
from hypercorn.asyncio import udp_server
from hypercorn.events import Closed, Event
from hypercorn.protocol import h3, quic
from hypercorn.protocol.events import Body, EndBody, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent

from wizards.server.context import ServerContext

logger = logging.getLogger(__name__)

# A stream that no client reaches: GOAWAY with it asks for no more requests, and refuses none (RFC 9114, 5.2).
LAST_STREAM = 2**62 - 4

# How many datagrams may wait. Hypercorn's ten are fewer than a burst of a few clients, and the rest is lost.
MAX_DATAGRAMS = 1024


class UDPServer(udp_server.UDPServer):
    """A QUIC socket that ends when the server has been told to stop and its connections have ended."""

    context: ServerContext

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.protocol_queue = Queue(MAX_DATAGRAMS)

    async def run(self) -> None:
        """Serve the socket to its end. A cancellation ends it at once."""
        self.context.add(self)
        try:
            await super().run()
        finally:
            self.context.connections.discard(self)
            if self.transport is not None:
                self.transport.close()

    def expire(self) -> None:
        """Close the connections that have no request under way, and each other one when it has none."""
        self._wake()

    def abort(self) -> None:
        """Close all connections."""
        self.context.is_aborted = True
        self._wake()

    async def protocol_send(self, event: Event) -> None:
        """Send a datagram, or look again whether all connections have ended."""
        await super().protocol_send(event)
        if isinstance(event, Closed):
            self._wake()

    def _wake(self) -> None:
        with suppress(QueueFull):  # it is awake
            self.protocol_queue.put_nowait(Closed())


class QUICProtocol(quic.QuicProtocol):
    """The connections of a QUIC socket, which fail one by one."""

    context: ServerContext

    async def handle(self, event: Event) -> None:
        """Take a datagram, or close what is idle."""
        await super().handle(event)
        if isinstance(event, Closed) and self.context.terminated.is_set():
            for connection in {
                id(connection): connection for connection in self.connections.values()
            }.values():
                await self._close_if_idle(connection)

    async def send_all(self, connection: Any) -> None:
        """Send what a connection has to send."""
        if self.context.is_draining and connection.h3 is not None:
            connection.h3.send_goaway()
        await super().send_all(connection)
        if self.context.terminated.is_set():
            await self._close_if_idle(connection)

    async def _handle_events(self, connection: Any, client: tuple[str, int] | None = None) -> None:
        try:
            await super()._handle_events(connection, client)
        except Exception as error:  # noqa: BLE001  # any failure ends only this connection
            logger.debug("A connection failed: %r", error)
            await self._close(connection, ErrorCode.H3_INTERNAL_ERROR)
        if not connection.cids:
            await self._end_streams(connection)
            await self.send(Closed())

    async def _close_if_idle(self, connection: Any) -> None:
        if self.context.is_aborted or connection.h3 is None or connection.h3.is_idle():
            await self._close(connection, ErrorCode.H3_NO_ERROR)

    async def _close(self, connection: Any, code: int) -> None:
        connection.quic.close(error_code=code)
        await super().send_all(connection)
        await connection.task.stop()
        for cid in connection.cids:
            self.connections.pop(cid, None)
        connection.cids = set()
        await self._end_streams(connection)
        await self.send(Closed())

    async def _end_streams(self, connection: Any) -> None:
        for stream_id in list(connection.h3.streams) if connection.h3 else ():
            await connection.h3.end_stream(stream_id)


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
