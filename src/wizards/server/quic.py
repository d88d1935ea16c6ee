"""QUIC: a failure ends one connection, and a shutdown waits for pending responses.

Hypercorn serves all connections of a QUIC socket in one task, which any exception ended: a path that is not
ASCII, a trailer, data of a request that it had refused. Hypercorn also waited for datagrams after it was told
to stop.
"""

import logging
from asyncio import Queue, QueueFull
from contextlib import suppress
from typing import Any

from aioquic.h3.connection import ErrorCode
from hypercorn.asyncio import udp_server
from hypercorn.events import Closed, Event
from hypercorn.protocol import quic

from wizards.server.context import ServerContext

logger = logging.getLogger(__name__)

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
