"""TCP connections: closing, and exceptions that Hypercorn does not handle."""

import asyncio
import logging
from contextlib import suppress
from typing import Any

from hypercorn.asyncio.tcp_server import MAX_RECV, TCPServer
from hypercorn.events import Closed, RawData

from wizards.server import http1_short_cut
from wizards.server.context import ServerContext
from wizards.server.idle_timer import IdleTimer

logger = logging.getLogger(__name__)

# How long a client of HTTP/2 may take to read what it was sent last, and to close. A connection that is
# closed on a client that still sends, as HTTP/2 clients do to open their windows, is reset, and answers are
# lost that have not been read yet (RFC 9112, section 9.6).
GOAWAY_LINGER_SECONDS = 5


class Connection(TCPServer):
    """A connection that ends when its client has closed it, or has sent what Hypercorn fails at."""

    context: ServerContext

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.idle_task: IdleTimer = IdleTimer(self)

    async def run(self) -> None:
        """Serve the connection to its end. A cancellation ends it at once."""
        self.context.add(self)
        try:
            await super().run()
        except Exception as error:  # noqa: BLE001  # any failure ends only this connection
            logger.debug("A connection failed: %r", error)
        finally:
            self.context.connections.discard(self)
            self.idle_task.end()

    def expire(self) -> None:
        """Close the connection if it is idle, and otherwise when it is."""
        self.idle_task.expire()

    def abort(self) -> None:
        """Abort the connection: its requests find their client gone."""
        self.writer.transport.abort()

    def close_if_idle(self) -> None:
        """Close the connection unless a request has been received by then."""
        self._task_group.spawn(self._initiate_server_close)

    async def _read_data(self) -> None:
        async with http1_short_cut.short_cut(self):
            try:
                while not self.reader.at_eof() and (data := await self._read()) is not None:
                    await self.protocol.handle(RawData(data))
            except Exception:
                await self.protocol.handle(Closed())  # wake the tasks that wait for this client
                raise
            await self.protocol.handle(Closed())
        self.idle_task.end()

    async def _read(self) -> bytes | None:
        # Bytes that are read after the connection has begun to close could not be answered.
        try:
            if self.config.read_timeout is None:
                data = await self.reader.read(MAX_RECV)
            else:
                async with asyncio.timeout(self.config.read_timeout):
                    data = await self.reader.read(MAX_RECV)
        except OSError:  # a timeout and an error of TLS, too
            return None
        return None if self.writer.is_closing() else data

    async def _close(self) -> None:
        with suppress(OSError):  # over TLS: the client has sent more after it was told that this is the end
            await super()._close()

    async def _initiate_server_close(self) -> None:
        # As a task begins one step after it was made, what had been received then has been read by now.
        if not self.idle_task.is_over():
            return
        send_goaway = getattr(self.protocol.protocol, "send_goaway", None)
        if send_goaway is None:  # HTTP/1.1
            await super()._initiate_server_close()
            return
        # Set the deadline before sending GOAWAY: the send blocks if the client reads nothing.
        self.loop.call_later(GOAWAY_LINGER_SECONDS, self.writer.close)
        await send_goaway()
        await self.protocol.handle(Closed())
        if self.writer.can_write_eof():  # TLS cannot
            with suppress(OSError):  # the client has reset it
                self.writer.write_eof()
